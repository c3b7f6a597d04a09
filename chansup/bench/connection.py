"""One connection that asks, waits for the answer, and asks again.

Everything happens in callbacks: a coroutine for each request would take longer than the request.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from chansup.bench.counters import Counters
from chansup.bench.pace import Pace
from chansup.bench.target import Options, Target

REFUSED = "refused"
RESET = "reset"
CLOSED = "closed before the answer"
SHORT = "closed inside the answer"
MALFORMED = "malformed answer"
TIMEOUT = "timeout"
OVERDUE = "not sent in time"
TLS = "TLS"

_NAMES = {
    errno.EMFILE: "too many open files",
    errno.EADDRNOTAVAIL: "no free local port",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
}


class ConnectError(Exception):
    """A connection could not be used; the message is the kind of failure."""


@dataclass(frozen=True)
class Work:
    """What connections are to do, and where they count it."""

    target: Target
    options: Options
    request: bytes  # over HTTP
    numbers: Iterator[int]  # of messages
    pace: Pace
    counters: Counters
    finished: Callable[[int], None]  # is called with a number of requests that are over


class Connection(asyncio.Protocol):
    """What HTTP connections and WebSockets have in common."""

    def __init__(self, work: Work) -> None:
        loop = asyncio.get_running_loop()
        self.usable: asyncio.Future[None] = loop.create_future()  # raises ConnectError
        self.over: asyncio.Future[None] = loop.create_future()
        self.sent: float | None = None  # when the question under way left
        self.asked = 0
        self.answered = 0
        self.has_failed = False
        self._work = work
        self._counters = work.counters
        self._pace = work.pace
        self._due = 0.0  # when it was due, with a fixed rate
        self._given_up = False  # by this side
        self._transport: Any = None

    @property
    def is_usable(self) -> bool:
        """Whether something can be asked here."""
        return self.usable.done() and not self._given_up and not self.over.done()

    # What differs

    def write_question(self) -> None:
        """Write a request or message."""
        raise NotImplementedError

    # Questions and answers

    def go_on(self, now: float) -> None:
        """Ask, if something is due, or wait for that."""
        due = self._pace.take(now)
        if due is None:
            self._pace.wait(self)
        else:
            self.ask(due, now)

    def ask(self, due: float, now: float) -> None:
        """Ask now what was due then."""
        self._due = due
        self.sent = now
        self.asked += 1
        self.write_question()

    def take_answer(self, status: int | None = None) -> float:
        """Count the answer as complete; return the time."""
        now = perf_counter()
        counters = self._counters
        counters.latencies.add(now - self._due)
        counters.last_answer = now
        self.sent = None
        self.answered += 1
        if status is not None:
            counters.statuses[status] += 1
            if status >= 400:
                counters.failed[f"status {status}"] += 1
        self._work.finished(1)
        return now

    def fail(self, kind: str) -> None:
        """Give the question under way up, if there is one, and the connection with it."""
        self.has_failed = True
        if self.sent is not None:
            self.sent = None
            self._counters.failed[kind] += 1
            self._work.finished(1)
        elif self.usable.done() and not self._given_up:
            self._counters.failed[kind] += 1
        if not self.usable.done():
            self.usable.set_exception(ConnectError(kind))
        self.give_up()

    def give_up(self) -> None:
        """Close at once."""
        self._given_up = True
        self._pace.leave(self)
        if self._transport is not None:
            self._transport.abort()

    def hang_up(self) -> None:
        """Close in an orderly way, where there is one."""
        self.give_up()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write to."""
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Tell who waits for it."""
        self._pace.leave(self)
        if not self.usable.done():
            self.usable.set_exception(ConnectError(CLOSED if error is None else kind_of(error)))
        if not self.over.done():
            self.over.set_result(None)


def kind_of(error: BaseException) -> str:
    """Return the kind of failure that an exception means."""
    if isinstance(error, TimeoutError):
        return TIMEOUT
    if isinstance(error, ssl.SSLError):
        return TLS
    if isinstance(error, socket.gaierror):
        return "unknown host"
    if isinstance(error, ConnectionRefusedError):
        return REFUSED
    if isinstance(error, ConnectionError):
        return RESET
    if isinstance(error, OSError) and error.errno is not None:
        return _NAMES.get(error.errno, errno.errorcode.get(error.errno, "error"))
    return "error"
