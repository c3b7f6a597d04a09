"""Durations, counted in buckets of 1 %: any number of them takes the same memory."""

import math

_PER_LOG = 100  # buckets per factor e: each is 1 % wider than the one before
_BUCKETS = 2600  # from 1 µs to days


class Latencies:
    """How long things took. Durations are seconds; quantiles are right to 0.5 %."""

    __slots__ = ("_counts", "count", "largest", "smallest", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.smallest = math.inf
        self.largest = 0.0
        self._counts = [0] * _BUCKETS

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.count += 1
        self.total += seconds
        if seconds > self.largest:
            self.largest = seconds
        if seconds < self.smallest:
            self.smallest = seconds
        bucket = int(math.log(seconds * 1e6) * _PER_LOG) if seconds > 1e-6 else 0
        self._counts[bucket if bucket < _BUCKETS else -1] += 1

    @property
    def mean(self) -> float | None:
        """The arithmetic mean."""
        return self.total / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """Return what that share (0 to 1) of all took at most; None if nothing was counted."""
        if not self.count:
            return None
        needed, seen = share * self.count, 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if count and seen >= needed:
                if bucket == _BUCKETS - 1:
                    return self.largest
                middle = math.exp((bucket + 0.5) / _PER_LOG) / 1e6
                return min(max(middle, self.smallest), self.largest)
        return self.largest
