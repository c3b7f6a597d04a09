"""An ASGI app with everything that a drain has to deal with."""

import asyncio
import os
import sys
import time
from typing import Any


def say(text):
    sys.stderr.write(f"app: {text}\n")
    sys.stderr.flush()


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "http":
        await http(scope, receive, send)
    elif scope["type"] == "websocket":
        await websocket(scope, receive, send)


async def lifespan(receive, send):
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            if os.environ.get("FAIL_LIFESPAN"):
                await send({"type": "lifespan.startup.failed", "message": "the database is away"})
                return
            await send({"type": "lifespan.startup.complete"})
        else:
            say("lifespan shutdown")
            await send({"type": "lifespan.shutdown.complete"})
            return


async def http(scope, receive, send):
    path = scope["path"]
    if path == "/slow":
        await asyncio.sleep(float(scope["query_string"].decode() or 1))
    elif path == "/block":
        block_here(float(scope["query_string"].decode() or 1))
    elif path == "/fail":
        raise ValueError("as asked")
    elif path == "/events":
        await events(send, b"text/event-stream")
        return
    elif path == "/forever":
        await events(send, b"application/json")
        return
    elif path == "/wait":
        say("waiting")
        await asyncio.sleep(3600)
    elif path == "/body":
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await respond(send, 201, str(len(body)).encode())
        return
    elif path == "/missing":
        await respond(send, 404, b"no")
        return
    await respond(send, 200, f"pid {os.getpid()}".encode())


def block_here(seconds):
    time.sleep(seconds)


async def respond(send, status, body):
    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def events(send, content_type):
    headers = [(b"content-type", content_type)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    number = 0
    try:
        while True:
            await send(
                {"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True}
            )
            number += 1
            await asyncio.sleep(0.05)
    finally:
        say("events ended")


async def websocket(scope, receive, send):
    try:
        await receive()
        if scope["path"] == "/rejected":
            await send({"type": "websocket.close", "code": 4003})
            return
        if scope["path"] == "/late":
            say("late connect")
            await asyncio.sleep(float(scope["query_string"].decode() or 1))
        accept: dict[str, Any] = {"type": "websocket.accept"}
        if scope["path"] == "/headers":
            cookies = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
            accept["headers"] = [(b"x-name", "Zoë".encode()), *cookies]
        if scope["path"] == "/split":
            accept["headers"] = [(b"x-name", b"a\r\nset-cookie: evil=1")]
        await send(accept)
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                say(f"disconnect {message.get('code')}")
                if scope["path"] == "/talkative":
                    await send({"type": "websocket.send", "text": "one more thing"})
                    await send({"type": "websocket.close", "code": 1000})
                    say("sent on")
                return
            text = message.get("text")
            if text == "close 4001":
                await send({"type": "websocket.close", "code": 4001})
                say("closed 4001")
                continue
            if text == "raise":
                raise ValueError("as asked")
            await send({"type": "websocket.send", "text": text})
    finally:
        say("websocket ended")
