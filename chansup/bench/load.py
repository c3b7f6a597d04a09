"""One run: as many connections as wanted, until the time is up or everything is asked."""

import asyncio
import contextlib
import gc
import itertools
import resource
import signal
import socket
import ssl
from collections.abc import Callable
from time import perf_counter
from typing import Any

from chansup.backoff import Backoff
from chansup.bench.connection import (
    CLOSED,
    OVERDUE,
    REFUSED,
    TIMEOUT,
    TLS,
    ConnectError,
    Connection,
    Work,
    kind_of,
)
from chansup.bench.counters import Counters
from chansup.bench.errors import BenchError
from chansup.bench.http import HttpConnection
from chansup.bench.pace import FixedRate, Pace
from chansup.bench.target import Options, Target, request_bytes
from chansup.bench.ticks import Ticks
from chansup.bench.websocket import WebSocket

CONNECTING = 128  # connections that are opened at a time: a server's backlog is not larger, often
SPARE = 64  # descriptors for everything else
LONGEST_DRAIN = 2.0  # seconds, at most, for what is under way at the end
GOODBYE = 1.0  # seconds for the closing handshakes


class Load:
    """Asks a server again and again, and counts."""

    def __init__(self, target: Target, options: Options) -> None:
        self.target = target
        self.options = options
        self.counters = Counters()
        self.pace = (
            FixedRate(options.requests, options.rate) if options.rate else Pace(options.requests)
        )
        self.interrupted = False
        self.unfinished = 0  # asked, and neither answered nor failed at the end
        self.begun: float | None = None  # when all connections were open
        self.ended: float | None = None
        self.kept_pace: float | None = None  # seconds at a fixed rate, if the server kept up
        self._kind = WebSocket if target.is_websocket else HttpConnection
        self._work = Work(
            target,
            options,
            request_bytes(target, options),
            itertools.count(1),
            self.pace,
            self.counters,
            self._finished,
        )
        self._connections: set[Connection] = set()
        self._tried = 0  # clients that have tried to connect
        self._address: tuple[Any, ...] = ()
        self._tls = _tls(options) if target.is_secure else None

    @property
    def seconds(self) -> float:
        """How long it has run, or ran."""
        if self.begun is None:
            return 0.0
        return (self.ended or perf_counter()) - self.begun

    @property
    def unanswered(self) -> bool:
        """Whether it asked, and nobody ever answered."""
        return self.unfinished > 0 and not self.counters.answers

    @property
    def connecting(self) -> int | None:
        """How many connections are yet to be opened before it begins; None once it has begun."""
        return None if self.begun is not None else self.options.connections - self._tried

    def _finished(self, count: int) -> None:
        """Count requests that were answered or have failed."""
        self.counters.finished += count
        if self.counters.finished == self.options.requests:
            self._end.set()

    # The run

    async def run(self) -> None:
        """Run to the end. Raises BenchError if the server cannot be reached at all."""
        loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._all_tried = asyncio.Event()
        self._gate = asyncio.Semaphore(CONNECTING)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        _allow_descriptors(self.options.connections + SPARE)
        gc.freeze()  # what is there now stays: looking through it again would stall requests
        clients: list[asyncio.Task[None]] = []
        watch = asyncio.create_task(self._watch())
        try:
            if not await self._until_interrupted(self._try_once()):
                return
            clients = [asyncio.create_task(self._client()) for _ in range(self.options.connections)]
            if await self._until_interrupted(self._all_tried.wait()):
                await self._measure()
        finally:
            self.ended = perf_counter()
            watch.cancel()
            for client in clients:
                client.cancel()
            await asyncio.gather(watch, *clients, return_exceptions=True)
            await self._say_goodbye()
            gc.unfreeze()

    async def _measure(self) -> None:
        self.begun = now = perf_counter()
        self.pace.start(now)
        ticks = None
        if isinstance(self.pace, FixedRate):
            pace = self.pace
            ticks = Ticks(pace.interval, lambda: pace.tick(perf_counter()))
        try:
            if not self.options.idle:
                for connection in list(self._connections):
                    if connection.is_usable:
                        connection.go_on(perf_counter())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.options.seconds):
                    await self._end.wait()
            now = perf_counter()
            self.pace.end(now)
            if self.options.rate and not self._end.is_set() and not self.pace.overdue(now):
                self.kept_pace = now - self.begun
            await self._drain()
        finally:
            if ticks is not None:
                ticks.close()

    async def _drain(self) -> None:
        """Wait for requests under way, but not for long."""
        deadline = perf_counter() + min(self.options.timeout, LONGEST_DRAIN)
        while not self.interrupted and perf_counter() < deadline:
            if not self._asked() and not self.pace.overdue(perf_counter()):
                break
            await asyncio.sleep(0.005)
        self.unfinished = self._asked()
        if missed := self.pace.drop(perf_counter()):
            if self.interrupted:
                self.unfinished += missed
            else:
                self._miss(missed)

    def _asked(self) -> int:
        return sum(connection.sent is not None for connection in self._connections)

    def _miss(self, count: int) -> None:
        self.counters.failed[OVERDUE] += count
        self._finished(count)

    async def _say_goodbye(self) -> None:
        left = list(self._connections)
        for connection in left:
            connection.hang_up()
        if left:
            await asyncio.wait([connection.over for connection in left], timeout=GOODBYE)
        for connection in left:
            connection.give_up()

    def _interrupt(self) -> None:
        self.interrupted = True
        self._end.set()

    async def _until_interrupted(self, waiting: Any) -> bool:
        """Wait for it; return whether it came before the end."""
        task, end = asyncio.ensure_future(waiting), asyncio.ensure_future(self._end.wait())
        try:
            await asyncio.wait([task, end], return_when=asyncio.FIRST_COMPLETED)
        finally:
            end.cancel()
            if not task.done():
                task.cancel()
        if task.done():
            task.result()
        return not self.interrupted and task.done()

    async def _watch(self) -> None:
        """Give up what takes too long."""
        timeout = self.options.timeout
        while True:
            await asyncio.sleep(min(0.25, timeout / 10))
            before = perf_counter() - timeout
            for connection in list(self._connections):
                if connection.sent is not None and connection.sent < before:
                    connection.fail(TIMEOUT)
            if missed := self.pace.drop(before):
                self._miss(missed)

    # Connections

    async def _client(self) -> None:
        """Keep one connection open."""
        backoff = Backoff(0.1, cap=1.0, jitter=0)  # after a connection that was of no use
        pause, tried = 0.0, False
        while True:
            await asyncio.sleep(pause)
            connection = None
            try:
                async with self._gate:
                    connection = await self._connect()
            except ConnectError as error:
                self._connect_failed(str(error))
            if not tried:
                tried = True
                self._tried += 1
                if self._tried == self.options.connections:
                    self._all_tried.set()
            if connection is not None:
                if self.begun is not None and not self.options.idle and connection.is_usable:
                    connection.go_on(perf_counter())
                await asyncio.shield(connection.over)  # cancelled at the end: it stays in the set
                self._connections.discard(connection)
                self._over(connection)
            if connection is not None and connection.answered:
                backoff.reset()
                pause = 0.0
            else:
                pause = backoff.next_delay()

    def _over(self, connection: Connection) -> None:
        """Count a connection that was of no use as a request that failed: or -n has no end."""
        if connection.asked or self.begun is None or self.options.rate or self.options.idle:
            return
        if self.pace.take(perf_counter()) is not None:
            if not connection.has_failed:
                self.counters.failed[CLOSED] += 1
            self._finished(1)

    def _connect_failed(self, kind: str) -> None:
        self.counters.failed[kind] += 1
        if self.begun is not None and self.pace.take(perf_counter()) is not None:
            self._finished(1)  # it was to carry this one

    async def _connect(self) -> Connection:
        connection = self._kind(self._work)
        began = perf_counter()
        try:
            async with asyncio.timeout(self.options.timeout):
                await self._open(lambda: connection)
                self._connections.add(connection)
                await connection.usable
        except ConnectError:
            self._abandon(connection)
            raise
        except (OSError, TimeoutError) as error:
            self._abandon(connection)
            raise ConnectError(kind_of(error)) from error
        except asyncio.CancelledError:
            self._abandon(connection)
            raise
        self.counters.opened(perf_counter() - began)
        return connection

    def _abandon(self, connection: Connection) -> None:
        self._connections.discard(connection)
        connection.give_up()
        if connection.usable.done() and not connection.usable.cancelled():
            connection.usable.exception()  # looked at, so that nobody complains

    async def _open(self, make: Callable[[], asyncio.BaseProtocol]) -> None:
        family, kind, protocol, _, address = self._address
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.create_connection(
                make,
                sock=sock,
                ssl=self._tls,
                server_hostname=self.target.host if self._tls else None,
            )
        except BaseException:
            sock.close()
            raise

    async def _try_once(self) -> None:
        """See whether somebody answers, and remember at which of the host's addresses."""
        target = self.target
        try:
            addresses = await asyncio.get_running_loop().getaddrinfo(
                target.host, target.port, type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BenchError(f"{target.url}: the host {target.host!r}: {reason}") from None
        problem: BaseException | None = None
        for address in addresses:
            self._address = address
            opened = _Opened()
            try:
                async with asyncio.timeout(self.options.timeout):
                    await self._open(lambda opened=opened: opened)  # type: ignore[misc]
                opened.close()
                return
            except (OSError, TimeoutError) as error:
                problem = problem or error
        assert problem is not None
        raise BenchError(f"{target.url}: {_explain(problem, target, self.options)}") from None


class _Opened(asyncio.Protocol):
    """A connection that only shows that there is one."""

    def __init__(self) -> None:
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _explain(error: BaseException, target: Target, options: Options) -> str:
    kind = kind_of(error)
    if kind == REFUSED:
        return f"refused: nothing listens on port {target.port} of {target.host}"
    if kind == TIMEOUT:
        return f"no connection within {options.timeout:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({error.verify_message});"
            " --insecure measures without looking at it"
        )
    if kind == TLS:
        return f"TLS failed ({getattr(error, 'reason', None) or error}): does it speak TLS there?"
    return f"cannot be reached: {getattr(error, 'strerror', None) or error or kind}"


def _tls(options: Options) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _allow_descriptors(number: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= number:
        return
    if hard != unlimited and hard < number:
        raise BenchError(
            f"{number - SPARE:,} connections take {number:,} open files, and {hard:,} are allowed"
            " here (ulimit -Hn): raise that, or take fewer connections"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
