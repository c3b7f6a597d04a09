"""A raw ASGI application: what it costs is the server's, not a framework's.

- ``/`` says which release and which process answers
- ``/slow`` does so after SITE_SLOW_SECONDS (default 3)
- ``/stream`` sends one line a second until the client goes away
- ``/large`` sends SITE_LARGE bytes (default 10**9), as fast as they are taken
- ``/upload`` reads a body to its end, ``/stall`` only the first part of it
- ``/echo`` is a WebSocket that returns every message
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from site_version import BODY

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

SLOW_SECONDS = float(os.environ.get("SITE_SLOW_SECONDS", "3"))
LARGE = int(os.environ.get("SITE_LARGE", "1_000_000_000"))
CHUNK = bytes(65536)
STALL_SECONDS = 20
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", str(len(BODY)).encode())]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        if scope["path"] == "/slow":
            await asyncio.sleep(SLOW_SECONDS)
        if scope["path"] == "/stream":
            await stream(receive, send)
            return
        if scope["path"] == "/large":
            await large(send)
            return
        if scope["path"] in ("/upload", "/stall"):
            await upload(receive, patient=scope["path"] == "/upload")
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BODY})
    elif scope["type"] == "websocket":
        await echo(receive, send)
    elif scope["type"] == "lifespan":
        await lifespan(receive, send)


async def echo(receive: Receive, send: Send) -> None:
    while True:
        event = await receive()
        if event["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif event["type"] == "websocket.receive":
            text, data = event.get("text"), event.get("bytes")
            payload = {"bytes": data} if text is None else {"text": text}
            await send({"type": "websocket.send", **payload})
        else:
            return


async def stream(receive: Receive, send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await receive()  # the request itself
    gone = asyncio.ensure_future(receive())
    while not gone.done():
        await send({"type": "http.response.body", "body": b"data: " + BODY, "more_body": True})
        await asyncio.wait({gone}, timeout=1)


async def large(send: Send) -> None:
    headers = [(b"content-length", str(LARGE).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    rest = LARGE
    while rest:
        part = CHUNK[:rest]
        rest -= len(part)
        await send({"type": "http.response.body", "body": part, "more_body": rest > 0})


async def upload(receive: Receive, patient: bool) -> None:
    while (await receive()).get("more_body"):
        if not patient:
            await asyncio.sleep(STALL_SECONDS)


async def lifespan(receive: Receive, send: Send) -> None:
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return
