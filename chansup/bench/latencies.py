"""Durations of a run, counted in finer buckets than those of a site, with their extremes."""

import math
from typing import ClassVar

from chansup.protocol.histogram import Histogram


class Latencies(Histogram):
    """How long things took. Durations are seconds; quantiles are right to 0.5 %."""

    fineness: ClassVar[float] = 100.0
    smallest: float = math.inf
    largest: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        if seconds > self.largest:
            self.largest = seconds
        if seconds < self.smallest:
            self.smallest = seconds
        super().add(seconds)

    @property
    def mean(self) -> float | None:
        """The arithmetic mean."""
        return self.total / self.count if self.counts else None

    def quantile(self, share: float) -> float | None:
        """Return what that share (0 to 1) of all took at most; None if nothing was counted."""
        found = super().quantile(share)
        return None if found is None else min(max(found, self.smallest), self.largest)
