"""Thousands of WebSockets from one process, cheap enough to share two cores with the servers.

Each sends a burst of numbered messages, waits until all are back, pauses, and goes on, so that the
load is bounded and a message that is lost, repeated, swapped or another socket's cannot hide. One
that has to wait sends more, at growing intervals: the echo of a later message is how it learns
that one was lost. One that is closed connects again at once. There is no library between: frames
are short, and made and read here. The masking key is fixed, and not zero, which servers make a
special case of.
"""

import asyncio
import base64
import random
import statistics
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Self, cast

OPENING = 100  # handshakes under way at a time in the beginning
RETRY_DELAY = 0.05  # seconds before one that was closed or refused tries again, to twice that
PATIENCE = 10.0  # seconds without an echo until a message counts as lost
IMPATIENCE = 0.05  # seconds without an echo until a socket sends another message, at least
MOST_DUE = 8  # messages of one socket without an echo
PORTS_PER_SOURCE = 15_000  # sockets from one loopback address: the kernel has about 28,000 ports

DIGITS = 16  # of a message: 6 of the socket, 10 of the message
MASK = 0x5A3CC3A5
_FRAME = bytes([0x81, 0x80 | DIGITS]) + MASK.to_bytes(4)
_MASK = int.from_bytes(MASK.to_bytes(4) * (DIGITS // 4))
_ECHO = bytes([0x81, DIGITS])

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def handshake(address: str, path: str) -> bytes:
    """Return the request that opens a WebSocket."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return a short masked frame."""
    assert len(payload) < 126
    mask = MASK.to_bytes(4)
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked


@dataclass
class Result:
    """What happened to all sockets together. Times are those of time.monotonic(), in seconds."""

    opened: int = 0  # handshakes that succeeded, reconnections included
    reconnected: int = 0
    refused: int = 0  # attempts to connect that failed
    sent: int = 0
    echoed: int = 0
    repeated: int = 0  # echoes of what had been echoed
    disordered: int = 0  # echoes that came after a later message's
    foreign: int = 0  # messages of another socket, or of nobody
    stalled: int = 0  # messages with no echo in PATIENCE on an open socket
    closes: Counter[int] = field(default_factory=Counter)  # by code, 1006 without a close frame
    close_times: list[float] = field(default_factory=list)
    lost: Counter[int] = field(default_factory=Counter)  # messages, by socket
    lag: float = 0.0  # the longest that this process itself came late: part of each pause
    absent: int = 0  # sockets that were not open when it ended

    @property
    def closed(self) -> int:
        """How many times a socket was closed that this side wanted open."""
        return sum(self.closes.values())

    def summary(self) -> str:
        """Return one line for people."""
        codes = ", ".join(f"{count} with {code}" for code, count in self.closes.most_common())
        return (
            f"{self.opened} opened, {self.closed} closed{f' ({codes})' if codes else ''}, "
            f"{self.reconnected} reconnected, {self.refused} refused, {self.echoed} of {self.sent} "
            f"echoed, {self.lost.total()} lost, {self.repeated} repeated, {self.disordered} out of "
            f"order, {self.foreign} foreign, {self.stalled} stalled, client {self.lag * 1000:.0f} "
            "ms late at most"
        )


class EchoSockets:
    """`count` WebSockets that send `rate` messages per second in all; 0: one burst, then silence.

    In asyncio code::

        async with EchoSockets(address, 1000) as sockets:
            ordinary = sockets.take_waits()
            ...  # reload the server
            waits = sockets.take_waits()
        assert sockets.result.closed == 0, sockets.result.summary()
    """

    def __init__(
        self, address: str, count: int, *, rate: float = 5000, burst: int = 2, path: str = "/echo"
    ) -> None:
        self.address = address
        self.count = count
        self.burst = burst
        self.period = count * burst / rate if rate else None  # seconds, of one socket's bursts
        self.impatience = max(IMPATIENCE, 1.0 if self.period is None else self.period / 4)
        self.result = Result()
        self.stopping = False
        self.request = handshake(address, path)
        self.longest = array("d", bytes(8 * count))  # wait for an echo, by socket
        self._clients = [_Client(self, number) for number in range(count)]
        self._background: list[asyncio.Task[None]] = []

    @property
    def open(self) -> int:
        """How many are open now."""
        return sum(client.is_open for client in self._clients)

    async def start(self, within: float = 120.0) -> Self:
        """Open all, and return when each has been answered. Raises TimeoutError."""
        gate = asyncio.Semaphore(OPENING)

        async def begin(client: "_Client") -> None:
            async with gate:
                await client.begin()

        self._background = [asyncio.create_task(self._sweep()), asyncio.create_task(self._watch())]
        try:
            async with asyncio.timeout(within), asyncio.TaskGroup() as group:
                for client in self._clients:
                    group.create_task(begin(client))
        except TimeoutError as error:
            await self.stop()
            raise TimeoutError(f"{self.address}: not all open: {self.result.summary()}") from error
        self.take_waits()  # of the handshakes
        return self

    async def stop(self) -> Result:
        """Wait for what is under way, close all, and return what happened."""
        self.stopping = True
        deadline = time.monotonic() + PATIENCE + 1
        while any(client.due for client in self._clients) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for task in self._background:
            task.cancel()
        for client in self._clients:
            client.end()
        await asyncio.sleep(0.05)
        return self.result

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def take_waits(self) -> list[float]:
        """Return how long each socket waited for an echo of anything, at most, since the last call.

        A socket that was closed waits until the first echo on its next connection.
        """
        now = time.monotonic()
        for client in self._clients:
            if client.since is not None:
                client.waited(now)
        waits = list(self.longest)
        self.longest = array("d", bytes(8 * self.count))
        return waits

    async def ask_all(self, within: float = 30.0) -> int:
        """Send one more burst on every idle socket; return how many answered in time."""
        asked = [client for client in self._clients if client.is_open and not client.due]
        for number, client in enumerate(asked):
            client.turn()
            if number % OPENING == OPENING - 1:
                await asyncio.sleep(0.01)
        deadline = time.monotonic() + within
        while any(client.due for client in asked) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        return sum(client.is_open and not client.due for client in asked)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.impatience / 2)
            now = time.monotonic()
            for client in self._clients:
                if client.since is not None and client.is_open and client.due:
                    client.wait(now)

    async def _watch(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            self.result.lag = max(self.result.lag, time.monotonic() - before - 0.005)


class _Client:
    """One socket, through all of its connections."""

    __slots__ = (
        "_connection", "_first_answer", "_missing", "_next", "_patience", "_timer", "_was_open",
        "due", "load", "number", "sent_at", "since",
    )  # fmt: skip

    def __init__(self, load: EchoSockets, number: int) -> None:
        self.load = load
        self.number = number
        self.due: list[int] = []  # sent and not back
        self.since: float | None = None  # when this socket began to wait for an echo
        self.sent_at = 0.0
        self._missing: set[int] = set()  # overtaken or given up: counted as lost
        self._next = 0
        self._connection: _Connection | None = None
        self._was_open = False
        self._first_answer: asyncio.Future[None] | None = None
        self._patience = load.impatience
        self._timer: asyncio.TimerHandle | None = None  # of the next burst

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    async def begin(self) -> None:
        """Connect, and return with the first answer."""
        self._first_answer = asyncio.get_running_loop().create_future()
        await self._connect()
        await self._first_answer

    async def _connect(self) -> None:
        host, _, port = self.load.address.rpartition(":")
        source = self.number // PORTS_PER_SOURCE
        loop = asyncio.get_running_loop()
        while not self.load.stopping:
            try:
                await loop.create_connection(
                    lambda: _Connection(self),
                    host,
                    int(port),
                    local_addr=(f"127.0.0.{source + 1}", 0) if source else None,
                )
                return
            except OSError:
                self.load.result.refused += 1
                await asyncio.sleep(random.uniform(1, 2) * RETRY_DELAY)

    def opened(self, connection: "_Connection") -> None:
        self._connection = connection
        self.load.result.opened += 1
        self.load.result.reconnected += self._was_open
        self._was_open = True
        self.turn()

    def turn(self) -> None:
        """Begin a burst."""
        if self._connection is not None and not self.load.stopping:
            self._send(self.load.burst)

    def wait(self, now: float) -> None:
        """Do what a socket does that has waited for a while."""
        assert self.since is not None
        if now - self.since > PATIENCE:
            self.load.result.stalled += len(self.due)
            self._lose_all()
            self.turn()
        elif now - self.sent_at > self._patience and len(self.due) < MOST_DUE:
            self._patience *= 2  # it may be the server that is busy
            self._send(1)

    def _send(self, number: int) -> None:
        assert self._connection is not None
        first, self._next = self._next, self._next + number
        self.due.extend(range(first, self._next))
        self.sent_at = time.monotonic()
        if self.since is None:
            self.since = self.sent_at
        self.load.result.sent += number
        frames = b""
        for sequence in range(first, self._next):
            payload = int.from_bytes(b"%06d%010d" % (self.number, sequence))
            frames += _FRAME + (payload ^ _MASK).to_bytes(DIGITS)
        self._connection.transport.write(frames)

    def received(self, payload: bytes) -> None:
        result = self.load.result
        if len(payload) != DIGITS or not payload.isdigit() or int(payload[:6]) != self.number:
            result.foreign += 1
            return
        sequence = int(payload[6:])
        if sequence in self.due:
            place = self.due.index(sequence)
            for overtaken in self.due[:place]:
                self._lose(overtaken)
            del self.due[: place + 1]
        elif sequence in self._missing:
            self._missing.discard(sequence)
            result.lost[self.number] -= 1
            result.disordered += 1
        elif sequence < self._next:
            result.repeated += 1
            return
        else:
            result.foreign += 1
            return
        result.echoed += 1
        now = time.monotonic()
        if self.since is not None:
            self.waited(now)
        self.since = now if self.due else None
        if not self.due:
            self._answered()

    def closed(self, code: int, was_open: bool) -> None:
        """The connection is gone, whoever ended it."""
        self._connection = None
        if self._timer is not None:
            self._timer.cancel()
        if self.load.stopping:
            return
        now = time.monotonic()
        if was_open:
            self.load.result.closes[code] += 1
            self.load.result.close_times.append(now)
        else:
            self.load.result.refused += 1
        self._lose_all()
        self.since = self.since or now
        loop = asyncio.get_running_loop()
        delay = random.uniform(1, 2) * RETRY_DELAY
        loop.call_later(delay, lambda: loop.create_task(self._connect()))

    def waited(self, now: float) -> None:
        assert self.since is not None
        waited = now - self.since
        if waited > self.load.longest[self.number]:
            self.load.longest[self.number] = waited

    def end(self) -> None:
        self._lose_all()
        if self._connection is not None:
            self._connection.transport.abort()
        else:
            self.load.result.absent += 1

    def _lose(self, sequence: int) -> None:
        self._missing.add(sequence)
        self.load.result.lost[self.number] += 1

    def _lose_all(self) -> None:
        for sequence in self.due:
            self._lose(sequence)
        self.due.clear()

    def _answered(self) -> None:
        self._patience = self.load.impatience
        if self._first_answer is not None:
            if not self._first_answer.done():
                self._first_answer.set_result(None)
            self._first_answer = None
        if self.load.period is not None and not self.load.stopping:
            delay = random.uniform(0.5, 1.5) * self.load.period
            self._timer = asyncio.get_running_loop().call_later(delay, self.turn)


class _Connection(asyncio.Protocol):
    """One connection: the handshake, and frames in and out."""

    __slots__ = ("_client", "_code", "_is_open", "_rest", "transport")

    transport: asyncio.Transport

    def __init__(self, client: _Client) -> None:
        self._client = client
        self._rest = b""
        self._is_open = False
        self._code = 1006

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses of it
        self.transport.write(self._client.load.request)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if not self._is_open:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            if b" 101 " not in head.partition(b"\r\n")[0]:
                self.transport.abort()  # an honest no is a refusal as well
                return
            self._is_open = True
            self._client.opened(self)
        position = 0
        while True:
            end = position + 2 + DIGITS
            if data[position : position + 2] == _ECHO and len(data) >= end:
                self._client.received(data[position + 2 : end])
                position = end
                continue
            size = self._other_frame(data, position)
            if size == 0:
                break
            position += size
        self._rest = data[position:]

    def _other_frame(self, data: bytes, position: int) -> int:
        """Take a frame that is no ordinary echo; return its size, 0 if it is incomplete."""
        if len(data) < position + 2:
            return 0
        length, header = data[position + 1] & 0x7F, 2
        if length >= 126:
            header = 4 if length == 126 else 10
            if len(data) < position + header:
                return 0
            length = int.from_bytes(data[position + 2 : position + header])
        end = position + header + length
        if len(data) < end:
            return 0
        payload = data[position + header : end]
        opcode = data[position] & 0x0F
        if opcode == PING:
            self.transport.write(frame(payload, PONG))
        elif opcode == CLOSE:
            self._code = int.from_bytes(payload[:2]) if len(payload) >= 2 else 1005
            self.transport.write(frame(payload[:2], CLOSE))
            self.transport.close()
        elif opcode != PONG:
            self._client.received(payload)
        return header + length

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.closed(self._code, self._is_open)


def quantiles(values: list[float]) -> tuple[float, float, float]:
    """Return p50, p99 and the largest."""
    if len(values) < 2:
        return (values * 3 or [0.0] * 3)[0:3]  # type: ignore[return-value]
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[98], max(values)
