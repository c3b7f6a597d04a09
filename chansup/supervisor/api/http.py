"""A small HTTP server inside the supervisor, on sockets that are already bound.

It runs an ASGI application without lifespan, and installs no signal handlers. A request with a body
is refused: no endpoint takes one.
"""

import asyncio
import os
import socket
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from chansup.supervisor.api.connection import Connection, Limits, Shared
from chansup.supervisor.api.exchange import Application
from chansup.supervisor.api.malformed import MalformedRequests

BACKLOG = 128


class Server:
    """Serves an ASGI application on listening sockets until `stop`, which closes them.

    With `peers`, only Unix peers with one of these user ids are let in. An application finds in
    ``scope["state"]["stopping"]`` an event that is set when the server begins to stop.
    """

    def __init__(
        self,
        app: Application,
        listeners: Sequence[socket.socket],
        *,
        peers: Iterable[int] | None = None,
        limits: Limits | None = None,
        malformed: MalformedRequests | None = None,
    ) -> None:
        self._listeners = list(listeners)
        self._servers: list[asyncio.Server] = []
        allowed = None if peers is None else frozenset(peers)
        self._shared = Shared(app, limits or Limits(), malformed or MalformedRequests(), allowed)

    async def start(self) -> None:
        """Begin to accept connections. Raises OSError when a listener cannot be used."""
        for listener in self._listeners:
            await self.listen(listener)

    async def listen(self, listener: socket.socket) -> None:
        """Serve on one more listening socket. Raises OSError when it cannot be used."""
        loop = asyncio.get_running_loop()
        self._servers.append(
            await loop.create_server(
                lambda: Connection(self._shared), sock=listener, backlog=BACKLOG
            )
        )

    async def listen_instead(self, listener: socket.socket) -> None:
        """Serve on `listener` and no other one. Raises OSError when it cannot be used."""
        former = self._servers.copy()
        await self.listen(listener)
        for server in former:
            server.close()
            self._servers.remove(server)

    async def stop(self, grace: float = 1.0) -> None:
        """Close the listeners, let responses finish for `grace` seconds, then cut the rest."""
        self._shared.stopping.set()
        for server in self._servers:
            server.close()
        for connection in list(self._shared.connections):
            connection.end()
        if await self._is_empty_within(grace):
            return
        for connection in list(self._shared.connections):
            connection.abort()
        await self._is_empty_within(grace)
        self._shared.tasks.cancel()
        await self._shared.tasks.wait(grace)

    async def _is_empty_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._shared.empty.wait()
        except TimeoutError:
            return False
        return True

    @property
    def malformed(self) -> MalformedRequests:
        """What came that is not HTTP."""
        return self._shared.malformed

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._shared.connections)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()


def control_server(app: Application, listener: socket.socket) -> Server:
    """Return the server of the control socket: for the supervisor's own user and root alone.

    Its readers may be slow, such as a pager on ``chansup logs -f``.
    """
    return Server(app, [listener], peers={os.geteuid(), 0}, limits=Limits(stall=None))


def admin_server(
    app: Application,
    listeners: Sequence[socket.socket],
    malformed: MalformedRequests | None = None,
) -> Server:
    """Return the server of `[admin] bind`: for whoever can reach it, and so with every limit."""
    return Server(app, listeners, malformed=malformed)
