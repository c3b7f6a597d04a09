"""Apps whose clients have a session, each under a path of its own; and one that has none."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import socketio
import strawberry
from strawberry.asgi import GraphQL

sio = socketio.AsyncServer(async_mode="asgi")


@sio.event
async def say(sid: str, text: str) -> str:
    async with sio.session(sid) as session:
        session["said"] = session.get("said", 0) + 1
        return f"{os.getpid()} {session['said']} {text}"


@strawberry.type
class Query:
    pid: int = 0


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self) -> AsyncIterator[int]:
        while True:
            yield os.getpid()
            await asyncio.sleep(0.05)


graphql: Any = GraphQL(strawberry.Schema(Query, subscription=Subscription))
socket_io = socketio.ASGIApp(sio)


async def echo(receive: Any, send: Any, path: str) -> None:
    """Answer what is said; under /hello only to who said hello first; under /greets after a greeting."""
    await receive()
    await send({"type": "websocket.accept"})
    name = None
    if path == "/greets":
        await send({"type": "websocket.send", "text": "welcome"})
    while (message := await receive())["type"] == "websocket.receive":
        text = message["text"]
        if path == "/silent":
            continue
        if path in ("/hello", "/mute") and name is None:
            if not text.startswith("hello "):
                if path == "/hello":
                    await send({"type": "websocket.send", "text": '{"error": "who are you?"}'})
                continue
            name = text
        answer = f'{{"text": "{text}", "process": {os.getpid()}}}'
        await send({"type": "websocket.send", "text": answer})


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    elif scope["path"].startswith("/socket.io/"):
        await socket_io(scope, receive, send)
    elif scope["path"] == "/graphql":
        await graphql(scope, receive, send)
    elif scope["type"] == "websocket":
        await echo(receive, send, scope["path"])
