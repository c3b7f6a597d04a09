"""Which WebSocket that has lost its process goes to which other one, and when.

Free of I/O, with no clock of its own: whoever owns it calls `run` when something has changed, and
again after the seconds that it returns.
"""

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Generic, Protocol, TypeVar

from chansup.supervisor.carry.held import Held
from chansup.supervisor.carry.quarantine import Quarantine

MOST_UNDER_WAY = 256  # adoptions that one process has not answered
LOOK_AGAIN = 0.25  # seconds, while something waits that may have waited too long


class Adopter(Protocol):
    """A process that may be given WebSockets."""

    @property
    def load(self) -> int:
        """How many it has, with those that are under way to it."""

    @property
    def under_way(self) -> int:
        """How many it was given and has not answered."""


To = TypeVar("To", bound=Adopter)


class Adoptions(Generic[To]):
    """Those that wait, and where they may go."""

    def __init__(
        self,
        quarantine: Quarantine,
        give: Callable[[Held, To], bool],
        end: Callable[[Held], None],
    ) -> None:
        """`give` gives one away, or says False if that process cannot be told anything now.

        `end` lets one end that nobody takes.
        """
        self.adopters: Sequence[To] = ()
        self.is_hopeful = True  # somebody will come, if there is nobody
        self.timeout = 15.0  # seconds that one may wait
        self._quarantine = quarantine
        self._give = give
        self._end = end
        self._later: list[tuple[float, int, Held]] = []  # a heap, by the time of each
        self._waiting: deque[Held] = deque()  # whose time has come
        self._numbers = count()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._later) + len(self._waiting)

    def put(self, orphans: Sequence[Held], now: float, spread: float = 0.0) -> None:
        """Have all of them go elsewhere, within `spread` seconds from `now` (loop time) on."""
        for place, held in enumerate(orphans):
            due = now + place / len(orphans) * spread
            heapq.heappush(self._later, (due, next(self._numbers), held))

    def take_all(self) -> list[Held]:
        """Return all that wait, and forget them."""
        found = [*self._waiting, *(held for _, _, held in sorted(self._later))]
        self._waiting.clear()
        self._later.clear()
        return found

    def run(self, now: float) -> float | None:
        """Give away what can be; return after how many seconds to look again, if at all."""
        while self._later and self._later[0][0] <= now:
            self._waiting.append(heapq.heappop(self._later)[2])
        if not self.adopters and not self.is_hopeful:
            for held in self.take_all():
                self._end(held)
            return None
        self._give_away(now)
        self._end_what_waited_too_long(now)
        return self._wanted(now)

    def _give_away(self, now: float) -> None:
        free = [one for one in self.adopters if one.under_way < MOST_UNDER_WAY]
        put_aside: list[Held] = []
        while self._waiting and free:
            held = self._waiting.popleft()
            if not self._quarantine.admits(held, now):
                put_aside.append(held)
                continue
            emptiest = min(free, key=lambda one: one.load)
            if not self._give(held, emptiest):
                self._quarantine.leave(held)
                self._waiting.appendleft(held)
                free.remove(emptiest)
            elif emptiest.under_way >= MOST_UNDER_WAY:
                free.remove(emptiest)
        self._waiting.extendleft(reversed(put_aside))

    def _end_what_waited_too_long(self, now: float) -> None:
        late = {held for held in self._waiting if held.orphaned_at + self.timeout <= now}
        if late:
            self._waiting = deque(held for held in self._waiting if held not in late)
            for held in late:
                self._end(held)

    def _wanted(self, now: float) -> float | None:
        moments: list[float] = [now + LOOK_AGAIN] if self._waiting else []
        if self._later:
            moments.append(self._later[0][0])
        return max(0.0, min(moments) - now) if moments else None
