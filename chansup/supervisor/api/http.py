"""A small HTTP server inside the supervisor: uvicorn's HTTP protocol on sockets already bound.

uvicorn's own `Server` is left out: it installs signal handlers and wakes ten times a second. What
it does beyond that, for an application without lifespan, is what `Server` here does in its stead.
"""

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from email.utils import formatdate
from types import TracebackType
from typing import Any, Self

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from chansup.protocol.peer import credentials
from chansup.supervisor.api.malformed import MalformedRequests

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_CONNECTIONS = 64  # open at a time; then the one that has waited longest makes room
REQUEST_TIMEOUT = 10.0  # seconds in which a connection must have sent a request
KEEP_ALIVE_TIMEOUT = 5  # seconds that an idle connection stays open
MAX_HEAD = 16 * 1024  # bytes of request line and headers
BACKLOG = 128


async def respond(
    send: Send,
    status: int,
    body: bytes,
    content_type: bytes = b"application/json",
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send one whole response."""
    head = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


class _State(ServerState):
    """What the connections of one server share."""

    def __init__(
        self,
        peers: frozenset[int] | None,
        stall_timeout: float | None,
        max_connections: int,
        malformed: MalformedRequests,
    ) -> None:
        super().__init__()
        self.malformed = malformed
        self.peers = peers
        self.stall_timeout = stall_timeout
        self.max_connections = max_connections
        self.empty = asyncio.Event()
        self.empty.set()
        self._second = 0

    def admits(self, transport: asyncio.BaseTransport) -> bool:
        """Say whether a new connection may stay."""
        try:
            known = (
                self.peers is None
                or credentials(transport.get_extra_info("socket")).uid in self.peers
            )
        except OSError:
            return False
        return known and (len(self.connections) < self.max_connections or self._makes_room())

    def _makes_room(self) -> bool:
        """Close the connection that has waited longest for a whole request, if one waits.

        A probe sends its request at once, so it is never the one while others keep theirs open.
        """
        waiting = [one for one in self.connections if isinstance(one, _Connection) and one.waits]
        if not waiting:
            return False
        longest = min(waiting, key=lambda one: one.waits_since)
        self.connections.discard(longest)
        longest.transport.abort()
        return True

    def refresh_date(self) -> None:
        """Keep the Date header right without a timer."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self.default_headers = [(b"date", formatdate(second, usegmt=True).encode())]


class _Connection(H11Protocol):
    """One connection, with a time limit for everything a peer can keep us waiting for."""

    server_state: _State

    def __init__(self, config: uvicorn.Config, state: _State, shared: dict[str, Any]) -> None:
        super().__init__(config, state, shared)
        self.waits_since = self.loop.time()
        self._refused = False
        self._deaf = False  # what comes after this is ignored, and the connection ends
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if not self.server_state.admits(transport):
            self._refused = True
            transport.abort()
            return
        super().connection_made(transport)
        self.server_state.empty.clear()
        self._abort_after(REQUEST_TIMEOUT)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._refused:
            return
        self._abort_after(None)
        super().connection_lost(exc)
        if not self.connections:
            self.server_state.empty.set()

    @property
    def waits(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        if self._refused or self._deaf:
            return
        self.server_state.refresh_date()
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            # A request has begun and is not whole yet; the limit runs from its first byte.
            if self._deadline is None:
                self._abort_after(REQUEST_TIMEOUT)
        elif not self.flow.write_paused:
            self._abort_after(None)

    def on_response_complete(self) -> None:
        self.waits_since = self.loop.time()
        super().on_response_complete()
        self._limit_stall()

    def send_400_response(self, msg: str) -> None:
        """Refuse anything but HTTP; a response under way ends first, and the connection with it.

        What follows a request that asked for the end is ignored (RFC 9112, section 9.6).
        """
        self._deaf = True
        cycle = self.cycle if not self.waits else None
        if cycle is None or cycle.more_body or not _asks_for_end(self.scope):
            self.server_state.malformed.take(self.client[0] if self.client else "")
        if cycle is not None:
            cycle.keep_alive = False
        elif self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
            self._limit_stall()
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._limit_stall()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._abort_after(None)

    def _limit_stall(self) -> None:
        """Give a peer that does not read what was sent a limited time."""
        if self.server_state.stall_timeout is not None and self.transport.get_write_buffer_size():
            self._abort_after(self.server_state.stall_timeout)

    def _abort_after(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self.transport.abort)


def _asks_for_end(scope: Any) -> bool:
    """Whether the connection ends with a request."""
    said = [value.lower() for name, value in scope["headers"] if name == b"connection"]
    tokens = {token.strip() for value in said for token in value.split(b",")}
    return b"close" in tokens or (scope["http_version"] == "1.0" and b"keep-alive" not in tokens)


def _guarded(app: Application, stopping: asyncio.Event) -> Application:
    """Return `app` behind a check that the request has no body: no endpoint takes one."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "CONNECT":  # 2xx would make a tunnel of it: RFC 9110, section 9.3.6
            body = b'{"error":"This is not a proxy."}'
            await respond(send, 405, body, headers=[(b"connection", b"close"), (b"allow", b"GET")])
            return
        for name, value in scope["headers"]:
            if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
                body = b'{"error":"This endpoint takes no request body."}'
                await respond(send, 413, body, headers=[(b"connection", b"close")])
                return
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            if not stopping.is_set():  # uvicorn would print a traceback when it stops
                raise

    return checked


class Server:
    """Serves an ASGI application on listening sockets until `stop`, which closes them.

    With `peers`, only Unix peers with one of these user ids are let in. `stall_timeout` is how
    many seconds a peer may leave a response unread; None: for ever. An application finds in
    ``scope["state"]["stopping"]`` an event that is set when the server begins to stop.
    """

    def __init__(
        self,
        app: Application,
        listeners: Sequence[socket.socket],
        *,
        peers: Iterable[int] | None = None,
        stall_timeout: float | None = 10.0,
        max_connections: int = MAX_CONNECTIONS,
        malformed: MalformedRequests | None = None,
    ) -> None:
        self._listeners = list(listeners)
        self._servers: list[asyncio.Server] = []
        self._stopping = asyncio.Event()
        allowed = None if peers is None else frozenset(peers)
        counted = malformed or MalformedRequests()
        self._state = _State(allowed, stall_timeout, max_connections, counted)
        self._config = uvicorn.Config(
            _guarded(app, self._stopping),
            http=_Connection,
            ws="none",
            loop="none",
            lifespan="off",
            interface="asgi3",
            workers=1,  # or uvicorn would read WEB_CONCURRENCY
            log_config=None,
            log_level="error",  # not a line for each scanner that sends garbage
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_TIMEOUT,
            h11_max_incomplete_event_size=MAX_HEAD,
        )

    async def start(self) -> None:
        """Begin to accept connections. Raises OSError when a listener cannot be used."""
        self._config.load()
        self._state.refresh_date()
        for listener in self._listeners:
            await self.listen(listener)

    async def listen(self, listener: socket.socket) -> None:
        """Serve on one more listening socket. Raises OSError when it cannot be used."""
        shared = {"stopping": self._stopping}
        self._servers.append(
            await asyncio.get_running_loop().create_server(
                lambda: _Connection(self._config, self._state, shared),
                sock=listener,
                backlog=BACKLOG,
            )
        )

    async def stop(self, grace: float = 1.0) -> None:
        """Close the listeners, let responses finish for `grace` seconds, then cut the rest."""
        self._stopping.set()
        for server in self._servers:
            server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if await self._is_empty_within(grace):
            return
        for connection in list(self._state.connections):
            connection.transport.abort()
        await self._is_empty_within(grace)
        tasks = list(self._state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=grace)

    async def _is_empty_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._state.empty.wait()
        except TimeoutError:
            return False
        return True

    @property
    def malformed(self) -> MalformedRequests:
        """What came that is not HTTP."""
        return self._state.malformed

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._state.connections)

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
    return Server(app, [listener], peers={os.geteuid(), 0}, stall_timeout=None)


def admin_server(
    app: Application,
    listeners: Sequence[socket.socket],
    malformed: MalformedRequests | None = None,
) -> Server:
    """Return the server of `[admin] bind`: for whoever can reach it, and so with every limit."""
    return Server(app, listeners, malformed=malformed)
