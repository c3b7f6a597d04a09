"""Durations, counted in buckets that grow by a fixed ratio: small, mergeable, and exact enough.

Worker processes count in them, the supervisor adds them up, and what came in a while is the
difference of two. Durations are seconds.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated, ClassVar

import msgspec

from chansup.protocol.counters import Count, Seconds

_SMALLEST, _LARGEST = 1e-7, 1e6  # seconds; what is beyond counts as these


class Histogram(msgspec.Struct):
    """How often durations of which order came, exact to 8 %."""

    # Buckets for a factor of e: bucket i ends at e ** (i / fineness) seconds.
    fineness: ClassVar[float] = 1 / math.log(1.15)

    counts: dict[Annotated[int, msgspec.Meta(ge=-120, le=120)], Count] = {}
    total: Seconds = 0.0  # of all durations

    def add(self, seconds: float) -> None:
        """Count one duration."""
        if not _SMALLEST <= seconds <= _LARGEST:
            seconds = min(max(seconds, _SMALLEST), _LARGEST)
        bucket = math.ceil(math.log(seconds) * self.fineness)
        counts = self.counts
        counts[bucket] = counts.get(bucket, 0) + 1
        self.total += seconds

    def merge(self, other: "Histogram") -> None:
        """Add everything that `other` counted."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.total += other.total

    def since(self, earlier: "Histogram") -> "Histogram":
        """Return what came after `earlier`, a former state of this."""
        counts = {
            bucket: count - earlier.counts.get(bucket, 0)
            for bucket, count in self.counts.items()
            if count > earlier.counts.get(bucket, 0)
        }
        return Histogram(counts, max(0.0, self.total - earlier.total))

    def _middle(self, bucket: int) -> float:
        return math.exp((bucket - 0.5) / self.fineness)

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self.counts.values())

    def quantile(self, share: float) -> float | None:
        """Return what that share (0 to 1) of all took at most; None if nothing was counted."""
        needed = share * self.count
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= needed and seen:
                return self._middle(bucket)
        return None

    def below(self, bounds: Sequence[float]) -> list[int]:
        """Return for each bound (seconds, ascending) how many took at most that long."""
        found = [0] * len(bounds)
        for bucket, count in self.counts.items():
            middle = self._middle(bucket)
            for place, bound in enumerate(bounds):
                if middle <= bound:
                    found[place] += count
        return found


def at_most(share: float, bounds: Sequence[float], counts: Sequence[float]) -> float | None:
    """Return the bound that this share of all kept to, of durations counted by fixed bounds.

    `counts` has one number more than there are bounds, for longer ones. None: it needs those.
    """
    enough = share * sum(counts)
    below = zip(bounds, accumulate(counts), strict=False)
    return next((bound for bound, seen in below if seen >= enough), None)
