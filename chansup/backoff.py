"""How long to wait before what failed is tried again."""

import math
import random as _random
from collections.abc import Callable

BASE = 0.1  # seconds before the first retry
FACTOR = 2.0  # by which every further failure lengthens the wait
CAP = 30.0  # seconds, however often it failed
JITTER = 0.25  # the part of the wait that is random, so that many slots do not retry together
PROMPT_AFTER = 1.0  # seconds of good work after which the first failure is retried at once
HEALTHY_AFTER = 10.0  # seconds of good work after which earlier failures are forgotten


def delay(
    attempt: int,
    base: float = BASE,
    factor: float = FACTOR,
    cap: float = CAP,
    jitter: float = JITTER,
    random: Callable[[], float] = _random.random,
) -> float:
    """Return the seconds to wait after failure number `attempt` in a row, counted from 0.

    They grow by `factor` each time and never exceed `cap`; `random` returns numbers in [0, 1)
    and takes away at most the part `jitter` of them.
    """
    # In logarithms, because factor ** attempt overflows after a day of failures.
    steps_to_cap = math.log(cap / base) / math.log(factor)
    longest = cap if attempt >= steps_to_cap else min(cap, base * factor**attempt)
    return longest * (1.0 - jitter * random())


class Backoff:
    """Counts failures in a row; a healthy spell ends the row."""

    def __init__(
        self,
        base: float = BASE,
        factor: float = FACTOR,
        cap: float = CAP,
        jitter: float = JITTER,
        healthy_after: float = HEALTHY_AFTER,
        random: Callable[[], float] = _random.random,
    ) -> None:
        if not (0 < base <= cap and factor > 1 and 0 <= jitter < 1):
            raise ValueError("expected 0 < base <= cap, factor > 1 and 0 <= jitter < 1")
        self.failures = 0  # in a row
        self._base = base
        self._factor = factor
        self._cap = cap
        self._jitter = jitter
        self._healthy_after = healthy_after
        self._random = random

    def next_delay(self, healthy_for: float = 0.0) -> float:
        """Count one failure and return the seconds to wait after it: none, if it comes alone.

        `healthy_for` is how long it worked before, in seconds of a monotonic clock.
        """
        if healthy_for >= self._healthy_after:
            self.reset()
        attempt = self.failures
        self.failures += 1
        if attempt == 0 and healthy_for >= PROMPT_AFTER:
            return 0.0
        return delay(attempt, self._base, self._factor, self._cap, self._jitter, self._random)

    def reset(self) -> None:
        """Forget the failures so far."""
        self.failures = 0
