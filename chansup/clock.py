"""Moments that outlive a jump of the wall clock.

A machine that starts with a wrong clock, or whose clock is set, must not show a process as started
in the future, or years ago. Source: CLOCK_BOOTTIME in clock_gettime(2).
"""

import time
from dataclasses import dataclass, field

_TOLERANCE = 1.0  # seconds that the wall clock may drift before a moment moves with it


def since_boot() -> float:
    """Return the seconds since the machine started, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Moment:
    """One moment: now, when it is made."""

    _wall: float = field(default_factory=time.time)
    _since_boot: float = field(default_factory=since_boot)

    def wall(self) -> float:
        """Return it as time.time() would have it by the clock of the present."""
        by_now = time.time() - (since_boot() - self._since_boot)
        return self._wall if abs(by_now - self._wall) < _TOLERANCE else by_now
