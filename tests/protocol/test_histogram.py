"""Durations in buckets: what can be said of them, and what becomes of them on the way."""

import math

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from chansup.protocol import channel_report
from chansup.protocol.channel_report import ChannelCounts, ChannelReport
from chansup.protocol.histogram import Histogram

seconds = st.floats(1e-6, 1e6)
many = st.lists(seconds, min_size=1, max_size=60)


def histogram(durations: list[float]) -> Histogram:
    found = Histogram()
    for duration in durations:
        found.add(duration)
    return found


@given(many, st.floats(0, 1))
def test_quantiles_are_exact_to_8_percent(durations: list[float], share: float) -> None:
    found = histogram(durations).quantile(share)
    place = max(0, math.ceil(share * len(durations)) - 1)
    assert found is not None
    exact = sorted(durations)[place]
    assert exact / 1.08 <= found <= exact * 1.08


@given(many, many)
def test_two_histograms_add_up_and_differ(first: list[float], second: list[float]) -> None:
    sum_of_both = histogram(first)
    sum_of_both.merge(histogram(second))
    both = histogram(first + second)
    assert sum_of_both.counts == both.counts
    assert sum_of_both.count == len(first) + len(second)
    assert math.isclose(sum_of_both.total, both.total)
    since = sum_of_both.since(histogram(first))
    assert since.counts == histogram(second).counts
    assert math.isclose(since.total, sum(second), rel_tol=1e-6, abs_tol=1e-6 * sum(first))


@given(many)
def test_what_took_at_most_so_long(durations: list[float]) -> None:
    bounds = [1e-5, 1e-3, 0.1, 10, 1e7]
    found = histogram(durations).below(bounds)
    assert found[-1] == len(durations)
    assert found == sorted(found)
    for bound, count in zip(bounds, found, strict=True):
        surely = sum(duration * 1.08 <= bound for duration in durations)
        perhaps = sum(duration <= bound * 1.08 for duration in durations)
        assert surely <= count <= perhaps


def test_an_empty_one_says_nothing() -> None:
    assert Histogram().quantile(0.5) is None
    assert Histogram().below([1.0]) == [0]
    assert Histogram().since(Histogram()) == Histogram()


def test_what_is_beyond_all_buckets_counts_as_the_last() -> None:
    found = histogram([0.0, -1.0, 1e-9, 1e9, math.inf])
    assert found.count == 5
    assert len(found.counts) == 2
    assert found.total < 3e6
    assert len(msgspec.json.encode(found)) < 100


def test_a_worker_that_began_anew_gives_no_negative_counts() -> None:
    assert histogram([1.0]).since(histogram([1.0, 1.0, 2.0])) == Histogram()


@given(many)
def test_it_is_the_same_after_a_journey(durations: list[float]) -> None:
    given_ = ChannelReport({"mail": ChannelCounts(handled=1, handling=histogram(durations))})
    assert channel_report.decode(channel_report.encode(given_)) == given_
