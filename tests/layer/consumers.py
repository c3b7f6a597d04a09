"""Channels' own consumers, moved between processes as the relay does: run as a script.

``python -m tests.layer.consumers ADDRESS old|new ID``: an app worker. It reads commands from stdin
("leave"), and prints what the consumer sends to its client.
"""

import asyncio
import sys
from typing import Any

from django.conf import settings

ADDRESS, ROLE, ID = sys.argv[1:]
settings.configure(
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "chansup.layer.ChannelLayer",
            "CONFIG": {"address": ADDRESS, "capacity": 100_000},
        }
    }
)

import django  # noqa: E402

django.setup()

from channels.generic.websocket import (  # noqa: E402
    AsyncJsonWebsocketConsumer,
    JsonWebsocketConsumer,
)

from chansup.protocol.connection import Connection, connection  # noqa: E402


class Consumer(AsyncJsonWebsocketConsumer):  # type: ignore[misc]
    groups = ["lions", "geese"]  # noqa: RUF012

    async def news(self, event: dict[str, Any]) -> None:
        await self.send_json(event["number"])


class SyncConsumer(JsonWebsocketConsumer):  # type: ignore[misc]
    groups = ["lions", "geese"]  # noqa: RUF012

    def news(self, event: dict[str, Any]) -> None:
        self.send_json(event["number"])


async def main() -> None:
    here = Connection(ID)
    connection.set(here)
    events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    events.put_nowait({"type": "websocket.connect"})

    async def receive() -> dict[str, Any]:
        event = await events.get()
        if event["type"] == "websocket.disconnect":
            here.leaving = True
        return event

    async def send(event: dict[str, Any]) -> None:
        if event["type"] == "websocket.accept":
            print("ready", flush=True)
        elif event["type"] == "websocket.send":
            print(event["text"], flush=True)

    kind = SyncConsumer if ROLE == "sync" else Consumer
    application: Any = kind.as_asgi()
    running = asyncio.create_task(application({"type": "websocket"}, receive, send))
    loop = asyncio.get_running_loop()
    left = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), left.set)
    await left.wait()
    events.put_nowait({"type": "websocket.disconnect", "code": 1012, "reason": "handover"})
    await running
    print("gone", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
