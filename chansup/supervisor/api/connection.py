"""One HTTP/1.1 connection: h11 reads and writes, and everything a peer can delay has a limit.

h11 knows the protocol (RFC 9112) and its states, and does no I/O. This adds the transport, the
time limits, and one `Exchange` after the other. Pipelined requests wait until their turn, with
the transport paused.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import h11

from chansup.background import BackgroundTasks
from chansup.supervisor.api.exchange import (
    CLOSE,
    Application,
    Exchange,
    Receive,
    Scope,
    Send,
    respond,
)
from chansup.supervisor.api.malformed import MalformedRequests
from chansup.unix import credentials

MALFORMED = b"Invalid HTTP request received."


@dataclass(frozen=True)
class Limits:
    """What a peer may use up."""

    connections: int = 64  # open at a time; then the one that has waited longest makes room
    head: int = 16 * 1024  # bytes of request line and headers
    request: float = 10.0  # seconds in which a connection must have sent a request
    keep_alive: float = 5.0  # seconds that an idle connection stays open
    stall: float | None = 10.0  # seconds that a response may stay unread; None: for ever


@dataclass(eq=False)
class Shared:
    """What the connections of one server share."""

    app: Application
    limits: Limits
    malformed: MalformedRequests
    peers: frozenset[int] | None  # user ids that Unix peers may have; None: any
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    empty: asyncio.Event = field(default_factory=asyncio.Event)  # no connection is open
    connections: set["Connection"] = field(default_factory=set)
    tasks: BackgroundTasks = field(default_factory=BackgroundTasks)

    def __post_init__(self) -> None:
        self.empty.set()

    def admits(self, transport: asyncio.BaseTransport) -> bool:
        """Say whether a new connection may stay."""
        try:
            known = (
                self.peers is None
                or credentials(transport.get_extra_info("socket")).uid in self.peers
            )
        except OSError:
            return False
        return known and (len(self.connections) < self.limits.connections or self._makes_room())

    def _makes_room(self) -> bool:
        """Close the connection that has waited longest for a whole request, if one waits.

        A probe sends its request at once, so it is never the one while others keep theirs open.
        """
        waiting = [one for one in self.connections if one.waits]
        if not waiting:
            return False
        longest = min(waiting, key=lambda one: one.waits_since)
        self.connections.discard(longest)
        longest.abort()
        return True


class Connection(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self.waits_since = self._loop.time()
        self._http = h11.Connection(h11.SERVER, shared.limits.head)
        self._exchange: Exchange | None = None
        self._transport: asyncio.Transport
        self._refused = False
        self._ends = False  # what comes is ignored; the connection ends with the response
        self._idle = False  # between two requests
        self._timer: asyncio.TimerHandle | None = None
        self._drained = asyncio.Event()
        self._drained.set()

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the peer in, or cut it."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not self._shared.admits(transport):
            self._refused = True
            transport.abort()
            return
        self._shared.connections.add(self)
        self._shared.empty.clear()
        self._limit(self._shared.limits.request, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let what answers know that the client has left."""
        if self._refused:
            return
        self._ends = True
        self._lift_limit()
        self._shared.connections.discard(self)
        if not self._shared.connections:
            self._shared.empty.set()
        if self._exchange is not None:
            self._exchange.client_left()
        self._drained.set()

    def data_received(self, data: bytes) -> None:
        """Read what came; after the last request nothing is read."""
        if self._ends or self._refused:
            return
        self._http.receive_data(data)
        self._read()

    def eof_received(self) -> bool:
        """Let a response end that is under way; tell an endless one, whose reader may be gone."""
        if self.waits:
            return False
        assert self._exchange is not None
        self._ends = True
        self._exchange.client_finished()
        return True

    def pause_writing(self) -> None:
        """Hear that the client reads more slowly than is sent."""
        self._drained.clear()
        self._limit_stall()

    def resume_writing(self) -> None:
        """Hear that it has caught up."""
        self._drained.set()
        self._lift_limit()
        if self._transport.is_closing():
            self._limit_stall()
        elif self._idle:
            self._limit(self._shared.limits.keep_alive, self._transport.close)

    # Requests

    @property
    def waits(self) -> bool:
        """Whether no request is being answered."""
        return self._exchange is None or self._exchange.complete

    def _read(self) -> None:
        """Take what h11 makes of the bytes so far, up to the end of one request."""
        if self._idle:  # the limit runs from the first byte of a request
            self._idle = False
            self._limit(self._shared.limits.request, self.abort)
        try:
            while (event := self._http.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Request):
                    self._begin(event)
                elif isinstance(event, h11.EndOfMessage):
                    # What follows a request that asked for the end is ignored: RFC 9112, 9.6.
                    self._ends = self._http.their_state is h11.MUST_CLOSE
                elif event is h11.PAUSED:
                    self._transport.pause_reading()
                    return
                if self._ends:
                    return
        except h11.RemoteProtocolError:
            self._refuse()

    def _begin(self, request: h11.Request) -> None:
        raw_path, _, query = request.target.partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": request.http_version.decode("ascii"),
            "server": _address(self._transport, "sockname"),
            "client": _address(self._transport, "peername"),
            "scheme": "http",
            "method": request.method.decode("ascii"),
            "root_path": "",
            "path": unquote(raw_path.decode("ascii")),
            "raw_path": raw_path,
            "query_string": query,
            "headers": list(request.headers),  # with names in lower case
            "state": {"stopping": self._shared.stopping},
        }
        self._exchange = Exchange(scope, self)
        if self._drained.is_set():
            self._lift_limit()
        app = refusal(scope) or self._shared.app
        self._shared.tasks.start(self._exchange.run(app))

    def _refuse(self) -> None:
        """Refuse anything but HTTP; a response under way ends first, and the connection with it."""
        self._ends = True
        client = _address(self._transport, "peername")
        self._shared.malformed.take(client[0] if client else "")
        if not self.waits:
            return
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [(b"content-type", b"text/plain; charset=utf-8"), CLOSE]
            self.write_head(400, headers)
            self._write(h11.Data(data=MALFORMED))
            self._write(h11.EndOfMessage())
            self._limit_stall()
        self._transport.close()

    # Responses: what an Exchange asks for

    async def drained(self) -> None:
        """Wait until the client has read enough of what was sent."""
        await self._drained.wait()

    def write_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head of the response, with the date."""
        date = formatdate(time.time(), usegmt=True).encode()
        if self._ends and CLOSE not in headers:
            headers = [*headers, CLOSE]
        head = h11.Response(
            status_code=status,
            headers=[(b"date", date), *headers],
            reason=HTTPStatus(status).phrase.encode(),
        )
        self._write(head)

    def write_body(self, data: bytes) -> None:
        """Send a part of the body: none for HEAD."""
        if self._exchange is None or self._exchange.scope["method"] != "HEAD":
            self._write(h11.Data(data=data))

    def end_response(self) -> None:
        """Send the end of the body; then close, or read the next request."""
        self._write(h11.EndOfMessage())
        self.waits_since = self._loop.time()
        if self._ends or self._http.our_state is h11.MUST_CLOSE:
            self._ends = True
            self._limit_stall()
            self._transport.close()
            return
        self._idle = True
        self._limit(self._shared.limits.keep_alive, self._transport.close)
        self._limit_stall()
        if self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._transport.resume_reading()
            if self._http.trailing_data[0]:  # pipelined
                self._read()

    def give_up(self) -> None:
        """End the connection after what was written: the response cannot be completed."""
        self._ends = True
        self._limit_stall()
        self._transport.close()

    def _write(self, event: h11.Event) -> None:
        if data := self._http.send(event):
            self._transport.write(data)

    # The end

    def end(self) -> None:
        """End the connection as soon as no response is under way."""
        self._ends = True
        if self.waits:
            self._transport.close()

    def abort(self) -> None:
        """End the connection now."""
        self._transport.abort()

    def _limit_stall(self) -> None:
        """Give a peer that does not read what was sent a limited time."""
        if self._shared.limits.stall is not None and self._transport.get_write_buffer_size():
            self._limit(self._shared.limits.stall, self._end_stalled)

    def _end_stalled(self) -> None:
        if self._transport.get_write_buffer_size():
            self.abort()
        else:
            self._transport.close()

    def _limit(self, seconds: float, end: Callable[[], None]) -> None:
        """Let `end` follow in so many seconds, instead of what was to follow."""
        self._lift_limit()
        self._timer = self._loop.call_later(seconds, end)

    def _lift_limit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _address(transport: asyncio.BaseTransport, end: str) -> Any:
    """Return host and port of one end, or None: a Unix socket has none."""
    name = transport.get_extra_info(end)
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else None


def refusal(scope: Scope) -> Application | None:
    """Return what answers a request that no application here takes: CONNECT, or one with a body."""
    if scope["method"] == "CONNECT":  # 2xx would make a tunnel of it: RFC 9110, section 9.3.6
        return _refusing(405, b'{"error":"This is not a proxy."}', (b"allow", b"GET"))
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return _refusing(413, b'{"error":"This endpoint takes no request body."}')
    return None


def _refusing(status: int, body: bytes, *headers: tuple[bytes, bytes]) -> Application:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, status, body, headers=[CLOSE, *headers])

    return refuse
