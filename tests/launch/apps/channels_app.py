"""A Django Channels app: one consumer, in a group."""

import sys
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="test",
    INSTALLED_APPS=["channels"],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
)
django.setup()

from channels.routing import ProtocolTypeRouter  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402

if TYPE_CHECKING:

    class AsyncWebsocketConsumer:
        """What is used of the real one, which has no types."""

        channel_layer: Any
        channel_name: str

        @classmethod
        def as_asgi(cls) -> Any: ...
        async def accept(self) -> None: ...
        async def send(self, text_data: str) -> None: ...

else:
    from channels.generic.websocket import AsyncWebsocketConsumer

urlpatterns: list[Any] = []


class Chat(AsyncWebsocketConsumer):
    async def connect(self):
        await self.channel_layer.group_add("room", self.channel_name)
        await self.accept()

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.group_send("room", {"type": "said", "text": text_data})

    async def said(self, event):
        await self.send(event["text"])

    async def disconnect(self, code):
        await self.channel_layer.group_discard("room", self.channel_name)
        sys.stderr.write(f"consumer left with {code}\n")


application = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": Chat.as_asgi()})
