import asyncio

import presence
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute

done: list[str] = []


async def events(request):
    return StreamingResponse(presence.news(), media_type="text/event-stream")


async def ticks(request):
    return StreamingResponse(presence.ticks(), media_type="text/event-stream")


async def count(request):
    return PlainTextResponse(presence.count())


async def reads(request):
    presence.waiting += 1
    try:
        return PlainTextResponse(str(len(await request.body())))
    finally:
        presence.waiting -= 1


def blocks(request):
    presence.block()


async def late(request):
    """Answer when the client has left, and do something after that."""

    async def afterwards():
        await asyncio.sleep(0.5)
        done.append("afterwards")

    presence.waiting += 1
    while not await request.is_disconnected():
        await asyncio.sleep(0.05)
    presence.waiting -= 1
    return PlainTextResponse("nobody reads this", background=BackgroundTask(afterwards))


async def report(request):
    return PlainTextResponse(",".join(done))


async def listens(websocket):
    await websocket.accept()
    presence.waiting += 1
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    finally:
        presence.waiting -= 1


async def pass_on(request, call_next):
    return await call_next(request)


wrapped = Starlette(
    routes=[
        Route("/events", events),
        Route("/ticks", ticks),
    ],
    middleware=[Middleware(BaseHTTPMiddleware, dispatch=pass_on)],
)
app = Starlette(
    routes=[
        Mount("/starlette/wrapped", wrapped),
        Route("/starlette/events", events),
        Route("/starlette/ticks", ticks),
        Route("/starlette/count", count),
        Route("/starlette/reads", reads, methods=["POST"]),
        Route("/starlette/blocks", blocks),
        Route("/starlette/late", late),
        Route("/starlette/report", report),
        WebSocketRoute("/starlette/listens", listens),
    ],
)
