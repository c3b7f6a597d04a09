"""Those with whom two workers have died: each gets its third attempt alone.

When a worker dies, all that it had in hand are suspects, and only one of them is poison. Tried
together again and again, the innocent would be given up with the guilty.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable

MAX_DEATHS = 3  # of workers in a row: what they had in hand then is not tried again
SUSPICIOUS = 2
_LONGEST = 5.0  # seconds after which one that has killed nobody lets the next one continue


class Quarantine:
    """The suspects of one pool, as one interface process knows them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tried: Hashable = None
        self._waiting: deque[tuple[Hashable, Callable[[], None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, suspect: Hashable, go_on: Callable[[], None]) -> None:
        """Call `go_on` as soon as no other suspect is tried."""
        self._waiting.append((suspect, go_on))
        if self._tried is None:
            self._next()

    def leave(self, suspect: Hashable) -> None:
        """Take notice that a suspect was cleared, has killed again, or is gone."""
        if self._tried is not None and suspect == self._tried:
            self._next()
        elif self._waiting:
            self._waiting = deque(one for one in self._waiting if one[0] != suspect)

    def _next(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._tried = None
        if self._waiting:
            self._tried, go_on = self._waiting.popleft()
            self._timer = self._loop.call_later(_LONGEST, self._next)
            self._loop.call_soon(go_on)
