"""Apps that take two steps for each message of the group "numbers": "a 7", a pause, "b 7".

What a path does is the name of the class or function. Each writes down when it comes and goes.
"""

import asyncio
import json
import os
import time
from pathlib import Path

PLACE = Path(os.environ["WITNESS"])
STEP = 0.03  # seconds between the two parts

from django.conf import settings  # noqa: E402

settings.configure(
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "chansup.layer.ChannelLayer",
            "CONFIG": json.loads((PLACE / "layer").read_text()),
        }
    }
)

import django  # noqa: E402

django.setup()

from channels.db import database_sync_to_async  # noqa: E402
from channels.generic.websocket import (  # noqa: E402
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    WebsocketConsumer,
)
from channels.layers import get_channel_layer  # noqa: E402


def came(kind):
    with (PLACE / f"{kind}.came").open("a") as file:
        file.write("came\n")


def went(kind, code):
    with (PLACE / f"{kind}.went").open("a") as file:
        file.write(f"{code}\n")


class Plain(AsyncWebsocketConsumer):  # type: ignore[misc,unused-ignore]
    groups = ("numbers",)

    @property
    def kind(self):
        return type(self).__name__.lower()

    async def connect(self):
        await self.accept()
        came(self.kind)

    async def disconnect(self, code):
        went(self.kind, code)

    async def note(self, event):
        await self.send(f"a {event['number']}")
        await self.work()
        await self.send(f"b {event['number']}")

    async def work(self):
        await asyncio.sleep(STEP)


class Database(Plain):
    @database_sync_to_async
    def work(self):
        time.sleep(STEP)


class Asking(Plain):
    """Asks somebody else over a channel of its own, and waits for the answer."""

    async def work(self):
        mine = await self.channel_layer.new_channel()
        await self.channel_layer.send(mine, {"type": "answer"})
        await asyncio.wait_for(self.channel_layer.receive(mine), 5)
        await asyncio.sleep(STEP)


class Selfish(Plain):
    """Sends the second part to itself."""

    async def note(self, event):
        await self.send(f"a {event['number']}")
        await self.work()
        await self.channel_layer.send(
            self.channel_name, {"type": "second", "number": event["number"]}
        )

    async def second(self, event):
        await self.work()
        await self.send(f"b {event['number']}")


class Stuck(Plain):
    async def work(self):
        await asyncio.Event().wait()


class Documents(AsyncJsonWebsocketConsumer):  # type: ignore[misc,unused-ignore]
    groups = ("numbers",)

    async def connect(self):
        await self.accept()
        came("documents")

    async def disconnect(self, code):
        went("documents", code)

    async def note(self, event):
        await self.send_json(f"a {event['number']}")
        await asyncio.sleep(STEP)
        await self.send_json(f"b {event['number']}")


class Synchronous(WebsocketConsumer):  # type: ignore[misc,unused-ignore]
    groups = ("numbers",)

    def connect(self):
        self.accept()
        came("synchronous")

    def disconnect(self, code):
        went("synchronous", code)

    def note(self, event):
        self.send(f"a {event['number']}")
        time.sleep(STEP)
        self.send(f"b {event['number']}")


async def both_parts(send, message):
    await send({"type": "websocket.send", "text": f"a {message['number']}"})
    await asyncio.sleep(STEP)
    await send({"type": "websocket.send", "text": f"b {message['number']}"})


async def joined(*names):
    layer = get_channel_layer()
    channels = []
    for name in names:
        channels.append(await layer.new_channel())
        await layer.group_add(name, channels[-1])
    return layer, channels


async def tasks(scope, receive, send):
    """Reads the layer in a task for each of two channels."""
    await receive()
    await send({"type": "websocket.accept"})
    layer, channels = await joined("numbers", "letters")
    came("tasks")

    async def read(channel):
        while True:
            await both_parts(send, await layer.receive(channel))

    reading = [asyncio.create_task(read(channel)) for channel in channels]
    event = await receive()
    went("tasks", event["code"])
    for channel, name, task in zip(channels, ("numbers", "letters"), reading, strict=True):
        await layer.group_discard(name, channel)
        task.cancel()


async def races(scope, receive, send):
    """Waits for its client and for the layer at a time, each in a task made anew."""
    await receive()
    await send({"type": "websocket.accept"})
    layer, (channel,) = await joined("numbers")
    came("races")
    from_client = asyncio.create_task(receive())
    from_layer = asyncio.create_task(layer.receive(channel))
    while True:
        await asyncio.wait({from_client, from_layer}, return_when=asyncio.FIRST_COMPLETED)
        if from_client.done():
            went("races", from_client.result()["code"])
            await layer.group_discard("numbers", channel)
            from_layer.cancel()
            return
        await both_parts(send, from_layer.result())
        from_layer = asyncio.create_task(layer.receive(channel))


async def deaf(scope, receive, send):
    """Never asks for what its client says."""
    await receive()
    await send({"type": "websocket.accept"})
    layer, (channel,) = await joined("numbers")
    came("deaf")
    while True:
        await both_parts(send, await layer.receive(channel))


async def slow(scope, receive, send):
    """Takes its time before it asks for the first message."""
    await receive()
    await send({"type": "websocket.accept"})
    came("slow")
    await send({"type": "websocket.send", "text": "a 0"})
    await asyncio.sleep(2)
    await send({"type": "websocket.send", "text": "b 0"})
    went("slow", (await receive())["code"])


KINDS = {
    one.__name__.lower(): one.as_asgi()
    for one in (Plain, Database, Asking, Selfish, Stuck, Documents, Synchronous)
} | {one.__name__: one for one in (tasks, races, deaf, slow)}


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await KINDS[scope["path"].strip("/")](scope, receive, send)
        return
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})
