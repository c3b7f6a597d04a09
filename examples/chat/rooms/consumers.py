import json
import logging
import os
import uuid

from asgiref.sync import sync_to_async
from channels.consumer import SyncConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer
from chansup.relay.consumers import HandoverMixin
from django.core.files.base import ContentFile

import chat

from . import layer, thumbnails
from .models import Message, Picture, Room

log = logging.getLogger(__name__)

HISTORY = 50


class RoomConsumer(HandoverMixin, AsyncJsonWebsocketConsumer):
    """One browser in one room.

    In relay mode a browser's connection outlives this process: another one connects it again, with
    `self.handover["count"]` one higher. The browser gets the history again, which holds whatever
    was said while nobody listened for it.
    """

    NO_SUCH_ROOM = 4404
    NOT_UNDERSTOOD = 1007

    accepted = False
    room = None

    async def __call__(self, scope, receive, send):
        try:
            await super().__call__(scope, receive, send)
        except layer.LAYER_ERRORS as error:
            log.warning("the channel layer is away: %s", error)
            if not self.accepted:
                await self.accept()
            await self.send_json({"type": "problem", "text": layer.LAYER_IS_AWAY})
            await self.close(layer.TRY_AGAIN_LATER)

    async def accept(self, *args, **kwargs):
        self.accepted = True
        await super().accept(*args, **kwargs)

    async def connect(self):
        await self.accept()
        slug = self.scope["url_route"]["kwargs"]["slug"]
        self.room = await Room.objects.filter(slug=slug).afirst()
        if self.room is None:
            await self.close(self.NO_SUCH_ROOM)
            return
        # Reading the session is not an I/O: it is a signed cookie.
        self.name = self.scope["session"].get("name") or "Guest"
        # First the group, then the history: what is said in between comes twice, not never.
        await self.channel_layer.group_add(self.room.group, self.channel_name)
        await self.send_json(
            {
                "type": "welcome",
                "version": chat.VERSION,
                "pid": os.getpid(),
                "name": self.name,
                "moves": self.handover["count"],
                "messages": await self.history(),
            }
        )

    async def history(self) -> list[dict]:
        """The last messages. Thumbnails that are still missing are asked for again.

        The channel layer delivers at most once, so a job may be lost; doing one twice does no harm.
        """
        messages = self.room.messages.select_related("picture").order_by("-pk")[:HISTORY]
        result = []
        async for message in messages:
            picture = getattr(message, "picture", None)
            if picture is not None and picture.state == Picture.State.WAITING:
                await layer.make_thumbnail(picture.pk)
            result.append(message.as_json())
        return result[::-1]

    async def disconnect(self, code):
        if self.room is not None:
            await self.channel_layer.group_discard(self.room.group, self.channel_name)

    async def receive(self, text_data=None, bytes_data=None, **kwargs):
        if self.room is None:
            return
        try:
            content = json.loads(text_data or "")
            key, text = uuid.UUID(content["key"]), content["text"].strip()
            text.encode()  # JSON may hold half a character
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            await self.close(self.NOT_UNDERSTOOD)
            return
        if not 0 < len(text) <= Message._meta.get_field("text").max_length:
            await self.send_json(
                {"type": "refused", "key": str(key), "text": "A message has 1 to 2,000 characters."}
            )
            return
        message, _ = await Message.objects.aget_or_create(
            key=key, defaults={"room": self.room, "author": self.name, "text": text}
        )
        if message.room_id == self.room.pk:
            event = {"type": "room.message", "message": await sync_to_async(message.as_json)()}
            await self.channel_layer.group_send(self.room.group, event)

    async def room_message(self, event: dict):
        """Someone in the room said something, or a thumbnail is ready."""
        await self.send_json({"type": "message", "message": event["message"]})


class NoSuchPage(AsyncWebsocketConsumer):
    """Turns away WebSockets on any other path."""

    async def connect(self):
        await self.close()


class ThumbnailConsumer(SyncConsumer):
    """Makes thumbnails in the background: whoever uploads a picture does not wait for it."""

    def thumbnail_make(self, event: dict):
        picture = (
            Picture.objects.select_related("message__room").filter(pk=event["picture"]).first()
        )
        if picture is None or picture.state != Picture.State.WAITING:
            return
        try:
            with picture.original.open() as original:
                data, (picture.width, picture.height) = thumbnails.make(original)
        except Exception:
            log.exception("no thumbnail for %s", picture)
            picture.state = Picture.State.FAILED
        else:
            picture.thumbnail.save("thumbnail.webp", ContentFile(data), save=False)
            picture.state = Picture.State.READY
        picture.save()
        picture.message.picture = picture
        layer.show(picture.message)
