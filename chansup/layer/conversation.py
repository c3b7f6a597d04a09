"""Requests to the hub, their answers, and whether these come in time."""

import asyncio
import math
from collections import deque
from typing import Protocol

from chansup.layer.errors import HubLost
from chansup.layer.frames import Kind, pack
from chansup.layer.greetings import Welcome
from chansup.layer.outbox import Outbox
from chansup.layer.requests import GONE, RefusedError, Request, Requests
from chansup.layer.waiters import fail, wake

_AGAIN = 0.1  # seconds between two looks at a hub that says something, but no answer


class Hearing(Protocol):
    """The connection, as far as answers come by it."""

    @property
    def patience(self) -> float:
        """Seconds that an answer may take."""

    def read(self) -> None:
        """Take what has come."""

    def lose(self, problem: str, why: str = GONE) -> None:
        """Take notice that the connection is of no use any more."""


class Conversation:
    """What one event loop asks the hub."""

    def __init__(self, outbox: Outbox, hearing: Hearing) -> None:
        self.is_heard = False  # something has come since the last look
        self._outbox = outbox
        self._hearing = hearing
        self._loop = outbox.loop
        self._requests = Requests()
        self._watching: asyncio.TimerHandle | None = None  # over the oldest request
        self._flushes: deque[asyncio.Future[None]] = deque()  # that are not over everywhere

    @property
    def is_unsure(self) -> bool:
        """Whether somebody waits for what only the next hub can say."""
        return self._requests.oldest_unsure() is not None

    # What is asked

    def request(self, frame: bytes) -> "asyncio.Future[bytes]":
        """Send a request, and return its answer to be."""
        outbox, loop = self._outbox, self._loop
        future: asyncio.Future[bytes] = loop.create_future()
        self._requests.add(Request(frame, loop.time(), future))
        if self._watching is None:
            self._watch(self._hearing.patience)
        if outbox.taken:  # before the request, which may be for the very room that it makes
            outbox.emit_taken()
        outbox.emit(frame)
        return future

    def notify(self, frame: bytes) -> None:
        """Send a request whose answer does not matter; nothing, if there is no connection."""
        if self._outbox.ready:
            self._requests.add(Request(frame, 0.0))
            self._outbox.emit(frame)

    async def flush_all(self) -> None:
        """Let the hub and all its clients forget all messages and groups. Raises HubLost."""
        everywhere: asyncio.Future[None] = self._loop.create_future()
        self._flushes.append(everywhere)
        request = self.request(pack(Kind.FLUSH))
        late = HubLost("the hub has not said in time that all is forgotten everywhere")
        timer = self._loop.call_later(2 * self._hearing.patience, fail, everywhere, late)
        try:
            await request
            await everywhere
        finally:
            timer.cancel()
            for future in (request, everywhere):  # the other one fails for the same reason
                if future.done() and not future.cancelled():
                    future.exception()

    # What is answered

    def succeeded(self, count: int) -> None:
        """Take notice that so many requests have succeeded."""
        for _ in range(count):
            self._requests.answered().succeed()

    def result(self, payload: bytes) -> None:
        """Take the answer to a request."""
        self._requests.answered().succeed(payload)

    def refused(self, payload: bytes) -> None:
        """Take notice that a request was refused."""
        self._requests.answered().fail(RefusedError(payload[0], payload[1:].decode()))

    def is_clean(self) -> None:
        """Take notice that all is forgotten everywhere."""
        wake(self._flushes.popleft())

    # Whether it is answered in time

    def _watch(self, seconds: float) -> None:
        if self._watching is None:
            self._watching = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Give up the connection if nothing comes from the hub, and an answer is overdue.

        What has waited too long for another hub is given up, too.
        """
        patience = self._hearing.patience
        self._watching = None
        self._requests.fail_overdue(self._loop.time() - patience, GONE)
        remaining = self._remaining(patience)
        if remaining <= 0:
            self.is_heard = False
            self._hearing.read()  # this process may be the one that stood still
            remaining = self._remaining(patience)
            if remaining <= 0 and not self.is_heard:
                self._outbox.emit(pack(Kind.QUIET))  # the messages in hand here stays
                self._outbox.flush_once()
                silent = f"the hub has not answered for {patience:g} s"
                self._hearing.lose(f"it has not answered for {patience:g} s", silent)
                self._requests.fail_overdue(self._loop.time() - patience, silent)
                remaining = math.inf
        since = self._requests.oldest_unsure()
        if since is not None:
            remaining = min(remaining, since + patience - self._loop.time())
        if remaining < math.inf:
            self._watch(max(remaining, _AGAIN))

    def _remaining(self, patience: float) -> float:
        """Return how long the hub may still take for the oldest request that somebody waits for."""
        since = self._requests.oldest()
        return math.inf if since is None else since + patience - self._loop.time()

    # The connection

    def ask_again(self, welcome: Welcome) -> None:
        """Settle what the hub knows to be done, and ask it the rest."""
        for request in self._requests.settle(welcome, self._loop.time()):
            self._requests.add(request)
            self._outbox.emit(request.frame)
            self._watch(self._hearing.patience)

    def lost(self, why: str) -> None:
        """Take notice that the connection is lost."""
        self._requests.lose(why)
        for flush in self._flushes:
            fail(flush, HubLost(why))
        self._flushes.clear()

    def fail_all(self, error: Exception) -> None:
        """Let everybody who waits know that there is no answer."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        self._requests.fail_all(error)
        for flush in self._flushes:
            fail(flush, error)

    def clear(self) -> None:
        """Forget everything."""
        self._requests.clear()
        self._flushes.clear()
