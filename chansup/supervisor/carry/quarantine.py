"""WebSockets with which processes died: two in a row, and it is tried alone; three, and it ends.

When a process dies, all that it had begun to adopt are suspects, and only one of them is poison.
"""

from chansup.supervisor.carry.held import Held

MAX_DEATHS = 3  # of processes in a row: nobody is given it then
SUSPICIOUS = 2
LONGEST = 5.0  # seconds after which one that has killed nobody lets the next one continue


class Quarantine:
    """The suspects of one site. Free of I/O, with no clock of its own."""

    def __init__(self) -> None:
        self._tried: Held | None = None
        self._until = 0.0

    def admits(self, held: Held, now: float) -> bool:
        """Say whether it may be tried now (loop time); if it is a suspect, it is then."""
        if not SUSPICIOUS <= held.deaths < MAX_DEATHS:
            return True
        if self._tried is not None and self._tried is not held and now < self._until:
            return False
        self._tried, self._until = held, now + LONGEST
        return True

    def leave(self, held: Held) -> None:
        """Take notice that it was cleared, has killed again, or is gone."""
        if self._tried is held:
            self._tried = None

    def again_at(self) -> float | None:
        """Return when the next one may be tried, if one is tried now (loop time)."""
        return self._until if self._tried is not None else None
