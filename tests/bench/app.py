"""What the tests measure."""

import asyncio
from typing import Any

SEEN: dict[str, int] = {}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await websocket(scope, receive, send)
        return
    path, headers, status = scope["path"], [], 200
    body = b"hello"
    if path == "/slow":
        await asyncio.sleep(float(scope["query_string"] or 0.05))
    elif path == "/empty":
        status, body = 204, b""
    elif path == "/missing":
        status = 404
    elif path == "/sometimes":
        SEEN[path] = SEEN.get(path, 0) + 1
        status = 503 if SEEN[path] % 4 == 0 else 200
    elif path == "/post":
        got = b""
        while True:
            message = await receive()
            got += message.get("body", b"")
            if not message.get("more_body"):
                break
        names = dict(scope["headers"])
        as_wanted = scope["method"] == "POST" and got == b"name=value" and names[b"x-one"] == b"1"
        status = 200 if as_wanted else 400
    if path != "/chunked" and status != 204:
        headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if path == "/chunked":
        for _ in range(3):
            await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": body})


async def websocket(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    if scope["path"] == "/denied":
        await send({"type": "websocket.close"})
        return
    wanted = scope["subprotocols"]
    await send({"type": "websocket.accept", "subprotocol": wanted[0] if wanted else None})
    if scope["path"] == "/leave":
        await send({"type": "websocket.close", "code": 4001})
        return
    if scope["path"] == "/greeting":
        await send({"type": "websocket.send", "text": "welcome"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message["text"]
        if scope["path"] == "/numbers" and not text.removeprefix("n=").isdigit():
            await send({"type": "websocket.close", "code": 4002})
            return
        if scope["path"] == "/deploy":
            await send({"type": "websocket.close", "code": 1012})
            return
        await send({"type": "websocket.send", "text": text})
