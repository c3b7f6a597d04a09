"""Quantiles are right to half a percent, whatever is counted."""

import random

import pytest

from chansup.bench.latencies import Latencies
from chansup.bench.pace import FixedRate


def test_nothing() -> None:
    latencies = Latencies()
    assert latencies.quantile(0.5) is None
    assert latencies.mean is None


@pytest.mark.parametrize("scale", [1e-5, 1e-3, 1.0, 500.0])
def test_quantiles(scale: float) -> None:
    numbers = random.Random(7)
    values = sorted(scale * numbers.lognormvariate(0, 0.7) for _ in range(20_000))
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    for share in (0.01, 0.5, 0.9, 0.99, 0.999):
        exact = values[round(share * len(values)) - 1]
        assert latencies.quantile(share) == pytest.approx(exact, rel=0.006)
    assert latencies.quantile(1.0) == pytest.approx(values[-1], rel=0.006)
    assert latencies.largest == values[-1]
    assert latencies.mean == pytest.approx(sum(values) / len(values))


def test_extremes() -> None:
    latencies = Latencies()
    for value in (0.0, 1e-9, 1e12):
        latencies.add(value)
    assert latencies.count == 3
    assert latencies.largest == 1e12


class Asker:
    def __init__(self) -> None:
        self.asked: list[float] = []

    def ask(self, due: float, now: float) -> None:
        self.asked.append(due)


def test_requests_are_due_at_fixed_times() -> None:
    pace, asker = FixedRate(None, 10.0), Asker()
    assert pace.take(100.0) is None  # it has not begun
    pace.start(100.0)
    assert pace.take(100.0) == 100.0
    assert pace.take(100.05) is None
    for _ in range(2):
        pace.wait(asker)
    pace.tick(100.15)
    assert asker.asked == [pytest.approx(100.1)]
    pace.tick(101.0)  # late: what was due stays due
    assert asker.asked[1:] == [pytest.approx(100.2)]
    assert pace.overdue(101.0) == 8
    assert pace.drop(100.55) == 3
    assert pace.take(101.0) == pytest.approx(100.6)
    pace.end(101.0)
    assert pace.overdue(200.0) == 4


def test_a_high_rate_leaves_in_groups() -> None:
    pace = FixedRate(1000, 50_000.0)
    pace.start(0.0)
    taken = 0
    while pace.take(0.0101) is not None:
        taken += 1
    assert 495 <= taken <= 520
    assert pace.drop(10.0) == 1000 - taken
