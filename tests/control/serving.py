"""Runs a real server in a thread with an event loop of its own, and speaks to it by hand."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx

from chansup.supervisor.api.exchange import Application
from chansup.supervisor.api.http import Server

Result = TypeVar("Result")


class Serving:
    """A server that runs, and the loop it runs in."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop, address: Any) -> None:
        self.server = server
        self.loop = loop
        self.address = address

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function in the loop."""

        async def called() -> Result:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(called(), self.loop).result(10)

    def stop(self, grace: float = 1.0) -> None:
        asyncio.run_coroutine_threadsafe(self.server.stop(grace), self.loop).result(10)

    def connect(self) -> socket.socket:
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.settimeout(10)
        connection.connect(self.address)
        return connection

    def client(self) -> httpx.Client:
        if isinstance(self.address, str):
            transport = httpx.HTTPTransport(uds=self.address)
            return httpx.Client(transport=transport, base_url="http://chansup", timeout=10)
        return httpx.Client(base_url=f"http://127.0.0.1:{self.address[1]}", timeout=10)


@contextlib.contextmanager
def serving(build: Callable[[socket.socket], Server], listener: socket.socket) -> Iterator[Serving]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> Server:
        server = build(listener)
        await server.start()
        return server

    try:
        address = listener.getsockname()
        server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        played = Serving(server, loop, address)
        try:
            yield played
        finally:
            played.stop(0.2)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(_cancel_all())
        loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def received(connection: socket.socket) -> bytes:
    """Return everything up to the end of the connection, however it ends."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            data += piece
    return data


def unix_listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    return listener


def tcp_listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def answering(body: bytes) -> Application:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app
