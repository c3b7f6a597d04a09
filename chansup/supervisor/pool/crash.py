"""What the end of a process that nobody asked for means, and when the next one is tried."""

import asyncio
import time
from collections.abc import Callable

from chansup.backoff import Backoff
from chansup.supervisor.process.process import Process

_CONFIGURATION = 78  # EX_CONFIG of sysexits.h: a launcher says that its options are wrong
_TOLD = {
    "boot": "did not become ready",
    "hang": "hung and was killed",
    "exit": "ended by itself",
    "crash": "crashed",
}


def reason(process: Process) -> str:
    """Return the reason of the restart that follows."""
    if process.hung:
        return "hang"
    if not process.ready.is_set():
        return "boot"
    return "exit" if process.exit is not None and process.exit.code == 0 else "crash"


def told(process: Process) -> str:
    """Return for people what happened."""
    return f"{_TOLD[reason(process)]} ({process.exit})"


def is_final(process: Process) -> bool:
    """Whether the next one would end in the same way, until the config changes."""
    if not process.specification.launcher or process.ready.is_set() or process.exit is None:
        return False
    return process.exit.code == _CONFIGURATION


def went_into_the_background(process: Process) -> bool:
    """Whether it ended well and what it had started runs on."""
    return process.remains is not None and process.exit is not None and process.exit.code == 0


class Retry:
    """The pauses between attempts to fill one slot: they grow from crash to crash."""

    def __init__(self) -> None:
        self.at: float | None = None  # time.time() of the next attempt
        self._backoff = Backoff()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waits(self) -> bool:
        """Whether an attempt is to come."""
        return self._timer is not None

    def begin(self, healthy_for: float, attempt: Callable[[], None]) -> None:
        """Call `attempt` after a pause. The last process was healthy for so many seconds."""
        delay = self._backoff.next_delay(healthy_for)
        self.at = time.time() + delay
        self._timer = asyncio.get_running_loop().call_later(delay, self._end, attempt)

    def _end(self, attempt: Callable[[], None]) -> None:
        self._timer = self.at = None
        attempt()

    def hasten(self, attempt: Callable[[], None]) -> None:
        """Make an attempt that is to come now."""
        if self._timer is not None:
            self._timer.cancel()
            self._end(attempt)

    def cancel(self) -> None:
        """Forget the attempt."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self.at = None

    def reset(self) -> None:
        """Begin with short pauses: what crashed was replaced."""
        self._backoff.reset()

    def when(self) -> str:
        """Return, for people, when the attempt is made."""
        pause = max(0.0, self.at - time.time()) if self.at is not None else 0.0
        return f"in {pause:.1f} s" if pause >= 0.05 else "now"
