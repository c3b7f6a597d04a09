"""Load on a server, from clients that say how each request and each WebSocket ended.

Three loads: `FreshConnections` (one connection per request), `KeepAlive` (one connection for many)
and `WebSockets` (echo of numbered messages). All of them run in one event loop, and are cheap
enough to share a core with the server under test. Every failure is told apart by its `Failure`,
for "2 requests failed" helps nobody to find out why.

In asyncio code::

    async with FreshConnections("127.0.0.1:8000", rate=150) as load:
        ...  # reload the server
    assert load.result.failed == 0, load.result.summary()

In a synchronous test, with the same loads in a thread of their own::

    with in_background(FreshConnections(address), WebSockets(address, 100)) as (fresh, sockets):
        ...
    assert not fresh.result.failures
"""

import asyncio
import contextlib
import enum
import errno
import random
import ssl as tls
import statistics
import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Generic, Self, TypeVar, cast

import httptools
import websockets
from websockets.asyncio.client import ClientConnection, connect, unix_connect

UNIX_PREFIX = "unix:"
MAX_DETAILS = 10_000  # failures remembered one by one; past that they are only counted
MAX_BODIES = 1_000  # different bodies told apart; past that they are counted under b"..."
RETRY_DELAY = 0.05  # seconds before a client that was not let in tries again

# websockets 15 and later would ask the environment for a proxy, even for loopback.
_NO_PROXY: dict[str, Any] = (
    {"proxy": None} if int(version("websockets").partition(".")[0]) >= 15 else {}
)


class Failure(enum.StrEnum):
    """How a request failed, as the client saw it."""

    REFUSED = "refused"  # nothing listens at the address
    RESET = "reset"  # the connection was thrown away before any byte of the response
    EOF = "eof"  # the connection was closed in good order, before any byte of the response
    SHORT = "short"  # the response began and did not end
    TIMEOUT = "timeout"  # the response was not there in time
    STATUS = "status"  # a whole response, but not 200
    MALFORMED = "malformed"  # not HTTP
    CLIENT = "client"  # this side ran out of ports or descriptors: the measurement is void


class RequestError(Exception):
    """One request had no good answer."""

    def __init__(self, kind: Failure, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else str(kind))
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response."""

    status: int
    headers: dict[bytes, bytes]  # names in lower case
    body: bytes
    keep_alive: bool  # False: the server said that it closes this connection


@dataclass(frozen=True, slots=True)
class FailedRequest:
    """One request that failed. Times are those of time.monotonic()."""

    kind: Failure
    detail: str
    connected: float | None  # when its connection was established; None: it never was
    started: float  # when it was sent, or when its connection was begun if it never was
    ended: float
    reused: bool  # an earlier request on the same connection had succeeded


@dataclass
class HttpResult:
    """What a load of HTTP requests saw."""

    started: float = 0.0  # time.monotonic()
    ended: float = 0.0
    sent: int = 0  # requests begun, whatever became of them
    succeeded: int = 0
    skipped: int = 0  # not sent, because too many were waiting for an answer
    connections: int = 0
    told_to_close: int = 0  # connections that ended with the server's "Connection: close"
    cut_while_idle: int = 0  # kept-alive connections closed with no word, between two requests
    failures: Counter[Failure] = field(default_factory=Counter)
    details: list[FailedRequest] = field(default_factory=list)
    bodies: Counter[bytes] = field(default_factory=Counter)  # of the successful
    latencies: "array[float]" = field(default_factory=lambda: array("d"))  # of the successful

    @property
    def failed(self) -> int:
        """How many requests failed, in whatever way."""
        return sum(self.failures.values())

    def latency(self, quantile: float) -> float:
        """Return a quantile of the successful requests' durations, in seconds."""
        return _quantile(self.latencies, quantile)

    def summary(self) -> str:
        """Return one line for people."""
        failures = ", ".join(f"{count} {kind}" for kind, count in self.failures.most_common())
        return (
            f"{self.sent} sent, {self.succeeded} answered, {self.failed} failed"
            f"{f' ({failures})' if failures else ''}, {self.skipped} skipped, "
            f"{self.connections} connections, {self.told_to_close} told to close, "
            f"{self.cut_while_idle} cut while idle"
        )


@dataclass
class WebSocketResult:
    """What a load of WebSockets saw."""

    started: float = 0.0  # time.monotonic()
    ended: float = 0.0
    opened: int = 0  # handshakes that succeeded, reconnections included
    reconnected: int = 0
    sent: int = 0
    echoed: int = 0
    unanswered: int = 0  # sent, and the WebSocket closed before the echo
    disordered: int = 0  # an echo that is not the one that was due: lost, doubled or swapped
    stalled: int = 0  # no echo in time on an open WebSocket; the client then closed it
    open_at_stop: int = 0
    closes: Counter[int] = field(default_factory=Counter)  # by code, 1006 without a close frame
    cut_while_sending: int = 0  # of those with 1006: the server had closed, and a send found out
    close_times: list[float] = field(default_factory=list)  # time.monotonic()
    handshake_failures: Counter[Failure] = field(default_factory=Counter)

    @property
    def dropped(self) -> int:
        """How many times a WebSocket was closed that the client wanted open."""
        return sum(self.closes.values())

    def summary(self) -> str:
        """Return one line for people."""
        closes = ", ".join(f"{count} with {code}" for code, count in self.closes.most_common())
        refusals = ", ".join(f"{count} {kind}" for kind, count in self.handshake_failures.items())
        return (
            f"{self.opened} opened, {self.dropped} dropped{f' ({closes})' if closes else ''}, "
            f"{self.reconnected} reconnected, failed handshakes: {refusals or 'none'}, "
            f"{self.echoed} of {self.sent} echoed, {self.unanswered} unanswered, "
            f"{self.disordered} out of order, {self.stalled} stalled"
        )


Result = TypeVar("Result", HttpResult, WebSocketResult)


class Load(Generic[Result]):
    """Clients at work between `start` and `stop`."""

    def __init__(self, address: str, result: Result, timeout: float) -> None:
        self.address = address  # "127.0.0.1:8000", "[::1]:8000" or "unix:/path"
        self.result: Result = result
        self.timeout = timeout  # seconds for one request or one echo
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._waiters: set[tuple[Callable[[Result], bool], asyncio.Future[None]]] = set()

    def clients(self) -> Sequence[Coroutine[Any, Any, None]]:
        """Return what runs until `_stopping` is set."""
        raise NotImplementedError

    def is_warm(self, result: Result) -> bool:
        """Say whether every client has been served at least once."""
        raise NotImplementedError

    async def start(self, warm_within: float = 30.0) -> Self:
        """Start the clients, and return when each of them has been served once.

        Raises TimeoutError when that takes longer than `warm_within` seconds.
        """
        self.result.started = time.monotonic()
        self._tasks = [asyncio.create_task(client) for client in self.clients()]
        try:
            await self.until(self.is_warm, warm_within)
        except TimeoutError as error:
            await self.stop()
            raise TimeoutError(f"{self.address} did not serve: {self.result.summary()}") from error
        return self

    async def stop(self) -> Result:
        """Let the clients finish the request they are at, and return what they saw."""
        self._stopping.set()
        await self._finish()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        self.result.ended = time.monotonic()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome  # a client that broke has not measured anything
        return self.result

    async def until(self, condition: Callable[[Result], bool], timeout: float) -> None:
        """Wait until the result so far satisfies `condition`; raises TimeoutError."""
        if condition(self.result):
            return
        waiter = (condition, asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout):
                await waiter[1]
        finally:
            self._waiters.discard(waiter)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _finish(self) -> None:
        """End what is not a task of its own."""

    def _progressed(self) -> None:
        for condition, future in self._waiters:
            if not future.done() and condition(self.result):
                future.set_result(None)

    async def _pause(self, seconds: float) -> None:
        """Wait that long, or until the load is stopped."""
        if seconds <= 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


class HttpLoad(Load[HttpResult]):
    """What the two HTTP loads have in common."""

    def __init__(
        self,
        address: str,
        *,
        path: str = "/",
        timeout: float = 10.0,
        ssl: tls.SSLContext | None = None,
    ) -> None:
        super().__init__(address, HttpResult(), timeout)
        self.path = path
        self.ssl = ssl

    async def _connect(self) -> "_HttpConnection | None":
        """Open a connection, or count why there is none."""
        begun = time.monotonic()
        try:
            connection = await _open(self.address, self.timeout, self.ssl)
        except RequestError as failure:
            self.result.sent += 1
            self._failed(failure, None, begun)
            return None
        self.result.connections += 1
        return connection

    async def _exchange(self, connection: "_HttpConnection", request: bytes) -> Answer | None:
        """Send one request and count how it ends."""
        begun = time.monotonic()
        self.result.sent += 1
        try:
            answer = await connection.exchange(request, self.timeout)
            if answer.status != 200:
                raise RequestError(Failure.STATUS, f"{answer.status} {answer.body[:200]!r}")
        except RequestError as failure:
            self._failed(failure, connection, begun)
            return None
        result = self.result
        result.succeeded += 1
        result.latencies.append(time.monotonic() - begun)
        known = answer.body in result.bodies or len(result.bodies) < MAX_BODIES
        result.bodies[answer.body if known else b"..."] += 1
        self._progressed()
        return answer

    def _failed(
        self, failure: RequestError, connection: "_HttpConnection | None", begun: float
    ) -> None:
        self.result.failures[failure.kind] += 1
        if len(self.result.details) < MAX_DETAILS:
            self.result.details.append(
                FailedRequest(
                    kind=failure.kind,
                    detail=failure.detail,
                    connected=connection.opened if connection else None,
                    started=begun,
                    ended=time.monotonic(),
                    reused=connection is not None and connection.answered > 0,
                )
            )
        self._progressed()


class FreshConnections(HttpLoad):
    """Requests at a fixed rate, each over a connection of its own, however slow the answers are."""

    def __init__(
        self, address: str, rate: float = 150.0, *, max_waiting: int = 2_000, **options: Any
    ) -> None:
        super().__init__(address, **options)
        self.rate = rate  # requests per second
        self.max_waiting = max_waiting
        self._request = _request(self.path, address, close=True)
        self._waiting: set[asyncio.Task[None]] = set()

    def clients(self) -> Sequence[Coroutine[Any, Any, None]]:
        return [self._send_at_rate()]

    def is_warm(self, result: HttpResult) -> bool:
        return result.succeeded > 0

    async def _send_at_rate(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            late = time.monotonic() - due
            if late < 0:
                await self._pause(-late)
                continue
            # After a pause of this process itself, a burst to catch up would measure the burst.
            due = due + 1 / self.rate if late < 1 else time.monotonic()
            if len(self._waiting) >= self.max_waiting:
                self.result.skipped += 1
                continue
            task = asyncio.create_task(self._send_one())
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    async def _send_one(self) -> None:
        connection = await self._connect()
        if connection is not None:
            await self._exchange(connection, self._request)
            connection.close()

    async def _finish(self) -> None:
        if self._waiting:
            await asyncio.wait(set(self._waiting))  # each ends within its own timeout


class KeepAlive(HttpLoad):
    """Clients that use one connection again and again, as browsers and proxies do.

    "Connection: close" in an answer is honoured with a new connection. A connection that the
    server closes without that word, while no request is under way, is counted in `cut_while_idle`:
    no request failed, but only by luck. A request that met the close half way has failed.
    """

    def __init__(
        self, address: str, clients: int = 20, *, interval: float = 0.02, **options: Any
    ) -> None:
        super().__init__(address, **options)
        self.count = clients
        self.interval = interval  # mean seconds between an answer and the next request; 0: none
        self._request = _request(self.path, address, close=False)
        self._served: set[int] = set()

    def clients(self) -> Sequence[Coroutine[Any, Any, None]]:
        return [self._client(number) for number in range(self.count)]

    def is_warm(self, result: HttpResult) -> bool:
        return len(self._served) == self.count

    async def _client(self, number: int) -> None:
        while not self._stopping.is_set():
            connection = await self._connect()
            if connection is None:
                await self._pause(RETRY_DELAY)
                continue
            try:
                await self._use(connection, number)
            finally:
                connection.close()

    async def _use(self, connection: "_HttpConnection", number: int) -> None:
        while not self._stopping.is_set():
            if connection.is_lost:
                self.result.cut_while_idle += 1
                return
            answer = await self._exchange(connection, self._request)
            if answer is None:
                return
            if number not in self._served:
                self._served.add(number)
                self._progressed()
            if not answer.keep_alive:
                self.result.told_to_close += 1
                return
            # From 0 to twice the mean: requests meet a closing server at any moment.
            await self._pause(random.uniform(0, 2 * self.interval))
            await asyncio.sleep(0)  # without a pause too, every client has its turn


class _Connection(ClientConnection):
    """Remembers what it was lost for."""

    lost: Exception | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc
        super().connection_lost(exc)


class WebSockets(Load[WebSocketResult]):
    """Clients that send numbered messages, want each back in order, and reconnect when dropped."""

    def __init__(
        self,
        address: str,
        count: int = 100,
        *,
        path: str = "/echo",
        interval: float = 0.5,
        timeout: float = 10.0,
    ) -> None:
        super().__init__(address, WebSocketResult(), timeout)
        self.count = count
        self.path = path
        self.interval = interval  # mean seconds between two messages of one client
        self._open: set[ClientConnection] = set()
        self._given_up: set[ClientConnection] = set()  # stalled
        self._served: set[int] = set()

    def clients(self) -> Sequence[Coroutine[Any, Any, None]]:
        return [self._client(number) for number in range(self.count)]

    def is_warm(self, result: WebSocketResult) -> bool:
        return len(self._served) == self.count

    async def _client(self, number: int) -> None:
        was_open = False
        while not self._stopping.is_set():
            connection = await self._connect()
            if connection is None:
                await self._pause(RETRY_DELAY)
                continue
            if self._stopping.is_set():  # `_finish` has not seen this one
                await connection.close()
                return
            self.result.opened += 1
            self.result.reconnected += was_open
            was_open = True
            self._open.add(connection)
            try:
                await self._echo(connection, number)
            finally:
                self._open.discard(connection)
                self._progressed()
                await connection.close()

    async def _connect(self) -> ClientConnection | None:
        options: dict[str, Any] = {
            "compression": None,
            "ping_interval": None,
            "open_timeout": self.timeout,
            "close_timeout": 1.0,
            "create_connection": _Connection,
            **_NO_PROXY,
        }
        try:
            if self.address.startswith(UNIX_PREFIX):
                path = self.address.removeprefix(UNIX_PREFIX)
                return await unix_connect(path, f"ws://localhost{self.path}", **options)
            return await connect(f"ws://{self.address}{self.path}", **options)
        except (OSError, EOFError, websockets.WebSocketException) as error:
            self.result.handshake_failures[_handshake_failure(error)] += 1
            self._progressed()
            return None

    async def _echo(self, connection: ClientConnection, number: int) -> None:
        due: deque[tuple[str, float]] = deque()  # what was sent and has not come back, and when
        sender = asyncio.create_task(self._send(connection, number, due))
        try:
            async for message in connection:
                expected = due.popleft()[0] if due else None
                if message == expected:
                    self.result.echoed += 1
                else:
                    self.result.disordered += 1
                if number not in self._served:
                    self._served.add(number)
                self._progressed()
        except websockets.ConnectionClosed:
            pass  # as is the end of the iteration: what counts is in close_code
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        self.result.unanswered += len(due)
        if connection in self._given_up or self._stopping.is_set():
            self._given_up.discard(connection)
            return  # this side closed it
        self.result.closes[connection.close_code or 1006] += 1
        if isinstance(connection, _Connection) and isinstance(connection.lost, BrokenPipeError):
            self.result.cut_while_sending += 1
        self.result.close_times.append(time.monotonic())

    async def _send(
        self, connection: ClientConnection, number: int, due: deque[tuple[str, float]]
    ) -> None:
        """Send until the connection is gone; return only if the server stalled."""
        sequence = 0
        while True:
            if due and time.monotonic() - due[0][1] > self.timeout:
                self.result.stalled += 1
                self._given_up.add(connection)
                await connection.close()
                return
            message = f"{number}:{sequence}"
            due.append((message, time.monotonic()))
            await connection.send(message)
            self.result.sent += 1
            sequence += 1
            await asyncio.sleep(random.uniform(0.5, 1.5) * self.interval)

    async def _finish(self) -> None:
        self.result.open_at_stop = len(self._open)
        await asyncio.gather(*(each.close() for each in self._open), return_exceptions=True)


async def get(
    address: str, path: str = "/", timeout: float = 10.0, ssl: tls.SSLContext | None = None
) -> Answer:
    """Make one request over a connection of its own; raises RequestError, not for the status."""
    connection = await _open(address, timeout, ssl)
    try:
        return await connection.exchange(_request(path, address, close=True), timeout)
    finally:
        connection.close()


async def burst(
    address: str, connections: int, path: str = "/", timeout: float = 10.0
) -> list[Answer | Failure]:
    """Open many connections at once, ask on each when all are open, and close them together.

    Which process answers says which one accepted the connection.
    """
    opened = await asyncio.gather(
        *(_open(address, timeout) for _ in range(connections)), return_exceptions=True
    )
    request = _request(path, address, close=False)

    async def ask(connection: "_HttpConnection | BaseException") -> Answer | Failure:
        if isinstance(connection, RequestError):
            return connection.kind
        if isinstance(connection, BaseException):
            raise connection
        try:
            return await connection.exchange(request, timeout)
        except RequestError as failure:
            return failure.kind

    try:
        return await asyncio.gather(*(ask(each) for each in opened))
    finally:
        for each in opened:
            if isinstance(each, _HttpConnection):
                each.close()


@contextlib.contextmanager
def in_background(*loads: Load[Any], warm_within: float = 30.0) -> Iterator[tuple[Load[Any], ...]]:
    """Run loads in an event loop of a thread of their own; leaving the block stops them."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="load", daemon=True)
    thread.start()

    async def each(method: Callable[[Load[Any]], Coroutine[Any, Any, Any]]) -> None:
        await asyncio.gather(*(method(load) for load in loads))

    def run(coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    try:
        run(each(lambda load: load.start(warm_within)))
        try:
            yield loads
        finally:
            run(each(lambda load: load.stop()))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _HttpConnection(asyncio.Protocol):
    """One client connection, one request at a time."""

    def __init__(self) -> None:
        self.opened = 0.0  # time.monotonic()
        self.answered = 0
        self.is_lost = False
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._reset()

    async def exchange(self, request: bytes, timeout: float) -> Answer:
        """Send a request and return the whole response; raises RequestError."""
        if self.is_lost or self._transport is None:
            raise RequestError(Failure.EOF, "closed before the request was written")
        self._reset()
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        deadline = loop.call_later(timeout, self._fail, Failure.TIMEOUT, f"{timeout} s")
        self._transport.write(request)
        try:
            answer = await self._answer
        finally:
            deadline.cancel()
            self._answer = None
        self.answered += 1
        return answer

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.opened = time.monotonic()

    def data_received(self, data: bytes) -> None:
        self._begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(Failure.MALFORMED, repr(error))

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        if self._begun and self._ends_with_connection and error is None:
            self.on_message_complete()
        elif self._begun:
            self._fail(Failure.SHORT, repr(error) if error else "closed inside the response")
        elif error is not None:
            self._fail(Failure.RESET, repr(error))
        else:
            self._fail(Failure.EOF, "closed before the response")

    # httptools calls these

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        framed = b"content-length" in self._headers or b"transfer-encoding" in self._headers
        self._ends_with_connection = not framed and self._status not in (204, 304)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._status < 200:  # 100 Continue, 103 Early Hints: the response is yet to come
            self._headers.clear()
            return
        if self._answer is not None and not self._answer.done():
            keep_alive = not self._ends_with_connection and self._parser.should_keep_alive()
            self._answer.set_result(
                Answer(self._status, self._headers, bytes(self._body), keep_alive)
            )

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._begun = False  # a byte of the response has come
        self._ends_with_connection = False
        self._status = 0
        self._headers: dict[bytes, bytes] = {}
        self._body = bytearray()

    def _fail(self, kind: Failure, detail: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(RequestError(kind, detail))


async def _open(address: str, timeout: float, ssl: tls.SSLContext | None = None) -> _HttpConnection:
    """Connect; raises RequestError."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            if address.startswith(UNIX_PREFIX):
                path = address.removeprefix(UNIX_PREFIX)
                _, connection = await loop.create_unix_connection(_HttpConnection, path)
            else:
                host, _, port = address.rpartition(":")
                _, connection = await loop.create_connection(
                    _HttpConnection, host.strip("[]"), int(port), ssl=ssl
                )
    except OSError as error:  # TimeoutError is one
        raise RequestError(_connect_failure(error), repr(error)) from error
    return connection


def _connect_failure(error: OSError) -> Failure:
    if isinstance(error, TimeoutError):
        return Failure.TIMEOUT
    if isinstance(error, ConnectionRefusedError | FileNotFoundError):
        return Failure.REFUSED
    if isinstance(error, ConnectionError):
        return Failure.RESET
    if error.errno == errno.EAGAIN:  # a Unix socket's queue is full
        return Failure.REFUSED
    return Failure.CLIENT


def _handshake_failure(error: Exception) -> Failure:
    if isinstance(error, websockets.InvalidStatus):
        return Failure.STATUS
    cause = error.__cause__ if isinstance(error, websockets.InvalidMessage) else error
    if isinstance(cause, EOFError):
        return Failure.EOF
    if isinstance(cause, OSError):
        return _connect_failure(cause)
    if isinstance(cause, websockets.ConnectionClosed):
        return Failure.EOF
    return Failure.MALFORMED


def _request(path: str, address: str, *, close: bool) -> bytes:
    host = "localhost" if address.startswith(UNIX_PREFIX) else address
    connection = "close" if close else "keep-alive"
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: {connection}\r\n\r\n".encode()


def _quantile(values: Sequence[float], quantile: float) -> float:
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=1000, method="inclusive")[
        min(998, max(0, round(quantile * 1000) - 1))
    ]
