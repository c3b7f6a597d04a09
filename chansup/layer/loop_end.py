"""The end of an event loop, as far as it tells: asyncio.run and Channels' do."""

import contextlib
import weakref
from collections.abc import AsyncGenerator, Awaitable
from typing import Protocol


class Closable(Protocol):
    """Closes with the event loop."""

    def close(self) -> None:
        """End for good."""


class LoopEnd:
    """Closes something when the running event loop ends, unless it is told to forget it."""

    def __init__(self, closable: Closable) -> None:
        self._closable = weakref.ref(closable)
        self._waiting: AsyncGenerator[None, None] | None = _until_shutdown(weakref.ref(self))
        _step(self._waiting.__anext__())

    def has_come(self) -> None:
        """Close it: the loop ends."""
        self._waiting = None  # it is the one that runs
        closable = self._closable()
        if closable is not None:
            closable.close()

    def forget(self) -> None:
        """Wait for it no more."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            _step(waiting.aclose())


async def _until_shutdown(end: "weakref.ref[LoopEnd]") -> AsyncGenerator[None, None]:
    """Wait for the end of the event loop: it closes all asynchronous generators then."""
    try:
        yield
    finally:
        found = end()
        if found is not None:
            found.has_come()


def _step(awaitable: Awaitable[None]) -> None:
    """Run what does not wait, without a task."""
    with contextlib.suppress(StopIteration, StopAsyncIteration):
        awaitable.__await__().__next__()
