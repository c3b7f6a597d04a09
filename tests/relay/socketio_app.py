"""Socket.IO by long polling: one process knows a client's session, and no other one does."""

import os

import socketio

sio = socketio.AsyncServer(async_mode="asgi", client_manager=None, ping_interval=20)
app = socketio.ASGIApp(sio)


@sio.event
async def ask(sid: str, number: int) -> list[int]:
    return [os.getpid(), number]
