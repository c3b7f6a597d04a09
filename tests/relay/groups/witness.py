"""Consumers of Django Channels that send on what comes to their groups: "numbers", "letters".

Each does it as apps do; what a path does is the name of the class.
"""

import asyncio
import os
from pathlib import Path

PLACE = Path(os.environ["WITNESS"])

from django.conf import settings  # noqa: E402

settings.configure(
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "chansup.layer.LocalChannelLayer",
            "CONFIG": {"address": (PLACE / "hub").read_text(), "capacity": 100_000},
        }
    }
)

import django  # noqa: E402

django.setup()

from asgiref.sync import async_to_sync  # noqa: E402
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer  # noqa: E402

from chansup.relay.consumers import HandoverMixin  # noqa: E402


def write_down(consumer):
    name = consumer.scope["path"].rpartition("/")[2]
    with (PLACE / f"{name}.scopes").open("a") as file:
        file.write(f"{consumer.handover['reason']} {os.getpid()}\n")


class Consumer(HandoverMixin, AsyncWebsocketConsumer):  # type: ignore[misc,unused-ignore]
    async def connect(self):
        write_down(self)
        await self.accept()

    async def note(self, event):
        await self.send(str(event["number"]))


class One(Consumer):
    groups = ("numbers",)


class Several(Consumer):
    groups = ("numbers", "letters")


class Late(Consumer):
    """Joins and leaves by itself, and takes its time."""

    async def connect(self):
        await asyncio.sleep(0.1)
        await super().connect()
        for group in ("letters", "numbers"):
            await asyncio.sleep(0.02)
            await self.channel_layer.group_add(group, self.channel_name)

    async def disconnect(self, code):
        await asyncio.sleep(0.02)
        await self.channel_layer.group_discard("letters", self.channel_name)
        await asyncio.sleep(0.02)
        await self.channel_layer.group_discard("numbers", self.channel_name)


class Untidy(Consumer):
    """Leaves no group at the end."""

    async def connect(self):
        await self.channel_layer.group_add("numbers", self.channel_name)
        await self.channel_layer.group_add("letters", self.channel_name)
        await super().connect()


class Leaver(Consumer):
    """Leaves a group when it is told to, for good."""

    async def connect(self):
        await self.channel_layer.group_add("numbers", self.channel_name)
        if self.handover["checkpoint"] is None:
            await self.channel_layer.group_add("letters", self.channel_name)
        await super().connect()

    async def receive(self, text_data=None, bytes_data=None):
        await asyncio.sleep(0.1)
        await self.channel_layer.group_discard("letters", self.channel_name)
        await self.store_checkpoint("left")  # type: ignore[misc,unused-ignore]
        await asyncio.sleep(0.1)


class Sync(HandoverMixin, WebsocketConsumer):  # type: ignore[misc,unused-ignore]
    def connect(self):
        write_down(self)
        async_to_sync(self.channel_layer.group_add)("letters", self.channel_name)
        self.accept()

    def note(self, event):
        self.send(str(event["number"]))

    def disconnect(self, code):
        async_to_sync(self.channel_layer.group_discard)("letters", self.channel_name)


class Stuck(Consumer):
    """Sends on, and does not come back from it while a file is missing."""

    groups = ("numbers",)

    async def note(self, event):
        await super().note(event)
        while not (PLACE / "go").exists():
            await asyncio.sleep(0.01)


CONSUMERS = {
    one.__name__.lower(): one.as_asgi() for one in (One, Several, Late, Untidy, Leaver, Sync, Stuck)
}


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await CONSUMERS[scope["path"].split("/")[1]](scope, receive, send)
        return
    assert scope["type"] == "lifespan"
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
