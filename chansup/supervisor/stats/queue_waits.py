"""How long requests waited for app workers in the last minute, by pool: for `chansup status`."""

from collections import deque
from collections.abc import Mapping, Sequence

from chansup.protocol.relay_board import WAIT_BOUNDS, WAITING, WAITS
from chansup.protocol.status import QueueStatus

SAMPLE_EVERY = 5.0  # seconds
WINDOW = 60.0  # seconds
SHARE = 0.95  # of the requests that waited at most as long as is said
_CELLS = slice(WAITS, WAITS + len(WAIT_BOUNDS) + 1)


class QueueWaits:
    """Remembers the histograms of a minute ago, to see what came since."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[str, list[float]]]] = deque()

    def is_due(self, now: float) -> bool:
        """Whether it wants another sample; `now` is a time of any clock that only moves forward."""
        return not self._samples or now - self._samples[-1][0] >= SAMPLE_EVERY

    def sample(self, rows: Mapping[str, Sequence[float]], now: float) -> None:
        """Take the rows of the relay board as they are now."""
        self._samples.append((now, {name: list(row[_CELLS]) for name, row in rows.items()}))
        while now - self._samples[0][0] > WINDOW:
            self._samples.popleft()

    def status(self, name: str, row: Sequence[float]) -> QueueStatus:
        """Return how the queue of a pool is, whose row is `row` now."""
        before = self._samples[0][1].get(name) if self._samples else None
        waits = [now - then for now, then in zip(row[_CELLS], before or [0.0] * 99, strict=False)]
        return QueueStatus(int(row[WAITING]), int(sum(waits)), _bound(waits))


def _bound(waits: Sequence[float]) -> float | None:
    """Return what nearly all waited at most; None if that is more than the greatest bound."""
    enough, seen = sum(waits) * SHARE, 0.0
    for bound, count in zip(WAIT_BOUNDS, waits, strict=False):
        seen += count
        if seen >= enough:
            return bound
    return None
