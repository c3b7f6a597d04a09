"""Waking those who wait in a coroutine, from a callback or from another task."""

import asyncio
from collections import deque

Waiter = asyncio.Future[None] | None


def wake(waiter: Waiter) -> None:
    """Let whoever waits for `waiter` continue, if somebody does."""
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


class Waiters(list[asyncio.Future[None]]):
    """Those who wait for the same thing, most often nobody or one."""

    __slots__ = ()

    async def wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for `wake_all`. Who is cancelled is forgotten."""
        waiter = loop.create_future()
        self.append(waiter)
        try:
            await waiter
        finally:
            self.remove(waiter)

    def wake_all(self) -> None:
        """Let all of them continue: each looks itself whether there is something for it."""
        for waiter in self:
            wake(waiter)


class Turns:
    """Lets tasks go one after the other, in the order in which they came."""

    __slots__ = ("_queue", "is_taken")

    def __init__(self) -> None:
        self._queue: deque[asyncio.Future[None]] | None = None
        self.is_taken = False

    async def take(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for the turn. Whoever has it calls `give`, whatever happens."""
        if not self.is_taken:
            self.is_taken = True
            return
        if self._queue is None:
            self._queue = deque()
        waiter = loop.create_future()
        self._queue.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._queue:
                self._queue.remove(waiter)
            elif not waiter.cancelled():  # it was its turn already
                self.give()
            raise

    def give(self) -> None:
        """End the turn: whoever waits longest has it now."""
        queue = self._queue
        while queue:
            waiter = queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.is_taken = False
