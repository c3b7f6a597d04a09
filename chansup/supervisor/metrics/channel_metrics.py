"""What channel workers count, as metrics by pool and channel, over all processes there ever were.

Channels are those that the pool names, or that the project's router does: few, and known.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from chansup.protocol.channel_report import ChannelCounts
from chansup.protocol.histogram import Histogram
from chansup.protocol.status import ConsumerPool

if TYPE_CHECKING:
    from prometheus_client import Metric

BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 1800.0,
)  # seconds  # fmt: skip
RESULTS = ("handled", "failed", "returned", "lost", "dead")
_LABELS = ["pool", "channel"]


def channel_families(pools: Sequence[ConsumerPool]) -> Iterator["Metric"]:
    """Return the metrics of channels; nothing where there are no channel workers."""
    if not pools:
        return
    rows = [
        ([pool.name, channel], counts)
        for pool in pools
        for channel, counts in pool.channels.items()
    ]
    yield from _gauges(rows)
    yield from _counters(rows)
    yield from _histograms(rows)


def _gauges(rows: Sequence[tuple[list[str], ChannelCounts]]) -> Iterator["Metric"]:
    from prometheus_client.core import GaugeMetricFamily

    depth = GaugeMetricFamily("chansup_channel_depth", "Messages that wait.", labels=_LABELS)
    oldest = GaugeMetricFamily(
        "chansup_channel_oldest_seconds", "Age of the oldest of them.", labels=_LABELS
    )
    in_flight = GaugeMetricFamily(
        "chansup_channel_in_flight", "Messages that workers have in hand.", labels=_LABELS
    )
    for names, counts in rows:
        in_flight.add_metric(names, counts.in_flight)
        if counts.depth is not None:
            depth.add_metric(names, counts.depth)
        if counts.oldest is not None:
            oldest.add_metric(names, counts.oldest)
    yield from (depth, oldest, in_flight)


def _counters(rows: Sequence[tuple[list[str], ChannelCounts]]) -> Iterator["Metric"]:
    from prometheus_client.core import CounterMetricFamily

    messages = CounterMetricFamily(
        "chansup_channel_messages", "Messages, by what became of them.", labels=[*_LABELS, "result"]
    )
    redelivered = CounterMetricFamily(
        "chansup_channel_redelivered",
        "Messages that came again, after a failure or a crash.",
        labels=_LABELS,
    )
    failures = CounterMetricFamily(
        "chansup_channel_listener_failures",
        "Times that receiving failed and was tried again.",
        labels=_LABELS,
    )
    for names, counts in rows:
        for result in RESULTS:
            messages.add_metric([*names, result], getattr(counts, result))
        redelivered.add_metric(names, counts.redelivered)
        failures.add_metric(names, counts.listener_failures)
    yield from (messages, redelivered, failures)


def _histograms(rows: Sequence[tuple[list[str], ChannelCounts]]) -> Iterator["Metric"]:
    from prometheus_client.core import HistogramMetricFamily

    wait = HistogramMetricFamily(
        "chansup_channel_wait_seconds", "How long messages waited in the queue.", labels=_LABELS
    )
    handling = HistogramMetricFamily(
        "chansup_channel_handling_seconds", "How long consumers took for them.", labels=_LABELS
    )
    for names, counts in rows:
        if counts.wait is not None:  # the layer tells
            wait.add_metric(names, _buckets(counts.wait), counts.wait.total)
        handling.add_metric(names, _buckets(counts.handling), counts.handling.total)
    yield from (wait, handling)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    below = zip(map(str, BOUNDS), map(float, histogram.below(BOUNDS)), strict=True)
    return [*below, ("+Inf", float(histogram.count))]
