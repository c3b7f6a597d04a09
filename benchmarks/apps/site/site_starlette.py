"""The same answers from Starlette: what people actually run, routing and middleware included."""

import asyncio
import os

from site_version import BODY
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

SLOW_SECONDS = float(os.environ.get("SITE_SLOW_SECONDS", "3"))


async def hello(request: Request) -> Response:
    return Response(BODY, media_type="text/plain")


async def slow(request: Request) -> Response:
    await asyncio.sleep(SLOW_SECONDS)
    return await hello(request)


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for message in websocket.iter_text():
        await websocket.send_text(message)


application = Starlette(
    routes=[Route("/", hello), Route("/slow", slow), WebSocketRoute("/echo", echo)]
)
