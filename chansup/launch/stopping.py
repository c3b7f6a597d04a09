"""How a worker that chansup serves itself is told to end, and shares out the time for that."""

import asyncio
import signal
import time
from types import FrameType

from chansup.launch import retirement
from chansup.launch.child import Child

_RESERVE = 2.0  # seconds of the timeout that are kept for what cannot be finished
_SHARE = 0.4  # of the timeout, at most


class Stopping:
    """A first SIGTERM or SIGINT asks the process to end, a second one asks it to hurry."""

    def __init__(self, child: Child, loop: asyncio.AbstractEventLoop) -> None:
        """Listen to the signals from now on, in the main thread."""
        self._child = child
        self._loop = loop
        self._timeout = child.launch.drain.timeout
        self._asked = asyncio.Event()
        self._hurried = asyncio.Event()
        self._asked_at = 0.0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    async def asked(self) -> None:
        """Return when the process shall end. From then on the last resort is armed."""
        await self._asked.wait()
        late = time.monotonic() - self._asked_at  # the app may have kept the loop to itself
        retirement.arm_last_resort(self._child, late)
        self._timeout = max(0.0, self._timeout - late)

    @property
    def reserve(self) -> float:
        """How many seconds are kept for cancelling what does not finish, and for last words."""
        return min(_RESERVE, self._timeout * _SHARE)

    def left(self) -> float:
        """Return how many seconds are left until the process is killed."""
        return self._asked_at + self._child.launch.drain.timeout - time.monotonic()

    async def until(self, empty: asyncio.Event) -> bool:
        """Wait for `empty`, but not into the reserve, nor when in a hurry; whether it is set."""
        waiting = [asyncio.create_task(event.wait()) for event in (empty, self._hurried)]
        patience = self._timeout - self.reserve
        await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        return empty.is_set()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._asked_at = self._asked_at or time.monotonic()
        event = self._hurried if self._asked.is_set() else self._asked
        self._loop.call_soon_threadsafe(event.set)
