"""Apps without a framework, which heed nobody."""

import asyncio

import presence

HEADERS = [(b"content-type", b"text/event-stream")]


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    presence.waiting += 1
    try:
        await serve(scope, receive, send)
    finally:
        presence.waiting -= 1


async def serve(scope, receive, send):
    name = scope["path"].rpartition("/")[2]
    if name == "count":
        body = str(presence.waiting - 1).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
    elif name == "events":
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": b": hello\n\n", "more_body": True})
        await asyncio.Event().wait()
    elif name == "blocks":
        await asyncio.to_thread(presence.block)
    elif name == "poll":
        await asyncio.Event().wait()
    elif name == "ticks":
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        while True:
            await send({"type": "http.response.body", "body": b": tick\n\n", "more_body": True})
    elif name == "connects":
        await receive()
        await asyncio.Event().wait()
    elif name == "pushes":
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.Event().wait()
