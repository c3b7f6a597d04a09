"""When the next request is due.

Without a rate, a connection asks again as soon as it has its answer. With one, requests are due at
fixed times, whether the server keeps up or not, and what they take is counted from then: a server
that stalls for a second is seen by all the requests of that second, and not by one for each
connection.
"""

import math
from collections import deque
from typing import Protocol

TICK = 0.0002  # seconds: requests of a higher rate than one per tick leave together


class Asker(Protocol):
    """A connection that asks."""

    def ask(self, due: float, now: float) -> None:
        """Ask, for a request that was due then."""


class Pace:
    """Each connection asks again at once."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._given = 0
        self.is_over = False

    def start(self, now: float) -> None:
        """Begin now."""

    def end(self, now: float) -> None:
        """Let nothing be due any more."""
        self.is_over = True

    def take(self, now: float) -> float | None:
        """Return when the next request was due, or None if none is."""
        if self.is_over or self._given == self._limit:
            return None
        self._given += 1
        return now

    def wait(self, asker: Asker) -> None:
        """Remember a connection that has nothing to do."""

    def leave(self, asker: Asker) -> None:
        """Forget a connection that is gone."""

    def overdue(self, now: float) -> int:
        """Return how many are due and were not taken."""
        return 0

    def drop(self, before: float) -> int:
        """Forget what was due before that time; return how many they were."""
        return 0


class FixedRate(Pace):
    """Requests are due at fixed times."""

    def __init__(self, limit: int | None, rate: float) -> None:
        super().__init__(limit)
        self._together = max(1, math.ceil(rate * TICK))
        self.interval = self._together / rate  # seconds between two ticks
        self._begun = math.inf
        self._last = math.inf
        self._idle: deque[Asker] = deque()

    def start(self, now: float) -> None:
        """Begin now."""
        self._begun = now

    def end(self, now: float) -> None:
        """Let nothing be due any more that is not due by now."""
        self._last = now

    def take(self, now: float) -> float | None:
        """Return when the next request was due, or None if none is."""
        if self._given == self._limit:
            return None
        due = self._next()
        if due > now or due > self._last:
            return None
        self._given += 1
        return due

    def wait(self, asker: Asker) -> None:
        """Remember a connection that has nothing to do."""
        self._idle.append(asker)

    def leave(self, asker: Asker) -> None:
        """Forget a connection that is gone."""
        if asker in self._idle:
            self._idle.remove(asker)

    def tick(self, now: float) -> None:
        """Let idle connections send the requests that are due."""
        while self._idle and (due := self.take(now)) is not None:
            self._idle.popleft().ask(due, now)

    def overdue(self, now: float) -> int:
        """Return how many are due and were not taken."""
        until = min(now, self._last)
        if until < self._begun:
            return 0
        due = (math.floor((until - self._begun) / self.interval) + 1) * self._together
        return max(0, (due if self._limit is None else min(due, self._limit)) - self._given)

    def drop(self, before: float) -> int:
        """Forget what was due before that time; return how many they were."""
        dropped = self.overdue(before)
        self._given += dropped
        return dropped

    def _next(self) -> float:
        return self._begun + self._given // self._together * self.interval
