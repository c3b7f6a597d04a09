"""An app that sends back what comes."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Echo texts and bodies; a body in parts of 1,000 bytes on /streamed."""
    if scope["type"] == "websocket":
        await _websocket(receive, send)
    elif scope["type"] == "http":
        await _http(scope["path"], receive, send)
    else:
        raise RuntimeError("no lifespan here")


async def _websocket(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        if event.get("text") is not None:
            await send({"type": "websocket.send", "text": event["text"]})
            checkpoint = {"type": "chansup.handover.checkpoint", "checkpoint": event["text"][:50]}
            await send(checkpoint)


async def _http(path: str, receive: Receive, send: Send) -> None:
    body, more = b"", True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        body += event["body"]
        more = event["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    if path == "/streamed":
        for place in range(0, len(body), 1000):
            part = body[place : place + 1000]
            await send({"type": "http.response.body", "body": part, "more_body": True})
        body = b""
    await send({"type": "http.response.body", "body": body})
