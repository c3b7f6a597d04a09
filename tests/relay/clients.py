"""Clients of an ASGI app: what a server would call it with, and what it sends."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tests.relay.strangers import HTTP_SCOPE, WEBSOCKET_SCOPE

App = Callable[..., Awaitable[None]]


class Client:
    """One request or WebSocket, begun at once. It stays until `leave`."""

    def __init__(self, app: App, scope: dict[str, Any], *events: dict[str, Any]) -> None:
        self.sent: list[MutableMapping[str, Any]] = []
        self.queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.news = asyncio.Event()
        for event in events:
            self.queue.put_nowait(event)
        self.task: asyncio.Task[None] = asyncio.create_task(app(scope, self.queue.get, self._send))  # type: ignore[arg-type]

    async def _send(self, event: MutableMapping[str, Any]) -> None:
        self.sent.append(event)
        self.news.set()

    async def until(self, event_type: str, count: int = 1) -> MutableMapping[str, Any]:
        """Return the last of `count` events of a type."""
        async with asyncio.timeout(10):
            while True:
                found = [event for event in self.sent if event["type"] == event_type]
                if len(found) >= count:
                    return found[count - 1]
                self.news.clear()
                await self.news.wait()

    async def end(self, patience: float = 10.0) -> BaseException | None:
        """Wait until the app has returned. Return what it raised."""
        done, _ = await asyncio.wait([self.task], timeout=patience)
        assert done, f"it never ended, after {self.sent}"
        return self.task.exception()


class Request(Client):
    """A request, with a body in parts."""

    def __init__(self, app: App, *parts: bytes, complete: bool = True, **scope: Any) -> None:
        events = [
            {"type": "http.request", "body": part, "more_body": number < len(parts) or not complete}
            for number, part in enumerate(parts, 1)
        ]
        super().__init__(app, {**HTTP_SCOPE, **scope}, *events)

    def leave(self) -> None:
        self.queue.put_nowait({"type": "http.disconnect"})

    @property
    def status(self) -> int:
        """Of the response; 0: none."""
        return next((event["status"] for event in self.sent if "status" in event), 0)

    @property
    def body(self) -> bytes:
        return b"".join(event.get("body", b"") for event in self.sent)

    async def answer(self) -> tuple[int, bytes]:
        assert await self.end() is None
        return self.status, self.body


class WebSocket(Client):
    """A WebSocket."""

    def __init__(self, app: App, **scope: Any) -> None:
        super().__init__(app, {**WEBSOCKET_SCOPE, **scope}, {"type": "websocket.connect"})
        self.said = 0

    async def ask(self, text: str) -> str:
        """Send a text and return the text that comes back."""
        self.say(text)
        return (await self.until("websocket.send", self.said))["text"]

    def say(self, text: str) -> None:
        self.said += 1
        self.queue.put_nowait({"type": "websocket.receive", "text": text})

    def leave(self) -> None:
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1000})

    @property
    def close_code(self) -> int:
        """With which it was closed; 0: it is open."""
        closes = [event for event in self.sent if event["type"] == "websocket.close"]
        return closes[0]["code"] if closes else 0
