"""The last lines of each slot, kept for who asks later."""

import time
from collections import deque
from collections.abc import Sequence

from chansup.protocol.status import LogLine

_LAST_WORDS = 60  # lines
RECENT_SIZE = 128 * 1024  # characters kept per slot, however many lines that are


class RecentLines:
    """The last lines of one slot, bounded by their number and by their size in characters."""

    def __init__(self, lines: int = 200, size: int = RECENT_SIZE) -> None:
        self._lines: deque[LogLine] = deque()
        self._most = lines
        self._limit = size
        self._size = 0

    def append(self, slot: str, pid: int, lines: Sequence[str], now: float | None = None) -> None:
        """Keep the end of `lines`, which process `pid` printed at the Unix time `now`."""
        now = time.time() if now is None else now
        kept = self._lines
        for text in lines[-self._most :]:
            kept.append(LogLine(now, slot, pid, text))
            self._size += len(text)
        while len(kept) > self._most or (self._size > self._limit and len(kept) > 1):
            self._size -= len(kept.popleft().text)

    def resize(self, lines: int) -> None:
        """Keep so many lines from the next one on."""
        self._most = lines

    def last_words(self, pid: int) -> list[str]:
        """Return the end of what process `pid` printed, for whoever hears of its failure."""
        return [line.text for line in self.tail(_LAST_WORDS, pid)]

    def tail(self, count: int, pid: int | None = None) -> list[LogLine]:
        """Return the last `count` lines, of one process or of all, oldest first."""
        if count <= 0:
            return []
        lines = [line for line in self._lines if pid is None or line.pid == pid]
        return lines[-count:]
