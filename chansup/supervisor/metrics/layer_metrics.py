"""What the hub counts, as metrics: messages, what became of them, and what it holds.

Labels are the patterns of `channel_capacity`, and reasons from a fixed list: never the name of an
instance's channel, nor of a group.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from chansup.protocol.hub_report import DEFAULT_PATTERN, HubReport, Queue

if TYPE_CHECKING:
    from prometheus_client import Metric

# Why a message reached nobody
REASONS = ("full", "expired", "memory", "gone", "moved", "left", "flushed", "lost", "late")

_COUNTERS = (
    ("messages_sent", "Messages sent to a channel."),
    ("group_messages_sent", "Messages sent to a group."),
    ("messages_delivered", "Messages given to a process: one for each member of a group."),
    ("messages_redelivered", "Messages given to a process after another one had them in hand."),
)
_GAUGES = (
    ("connections", "connections", "Connections of processes."),
    ("channels", "channels", "Channels that hold something, are in a group or have a reader."),
    ("groups", "groups", "Groups that have members."),
    ("memberships", "memberships", "Memberships of all channels in all groups."),
    ("parked", "parked_channels", "Channels that wait for the end of a handover."),
    ("memory", "memory_bytes", "What messages, channels and groups take up."),
    ("memory_limit", "memory_limit_bytes", "What they may take up: [channel_layer] memory."),
)


def layer_families(report: HubReport | None) -> Iterator["Metric"]:
    """Return the metrics of the hub; nothing where there is none."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    if report is None:
        return
    for name, documentation in _COUNTERS:
        value = getattr(report, name)
        yield CounterMetricFamily(f"chansup_layer_{name}", documentation, value=value)
    for field, name, documentation in _GAUGES:
        value = getattr(report, field)
        yield GaugeMetricFamily(f"chansup_layer_{name}", documentation, value=value)
    refused = [pattern for counts in report.dropped.values() for pattern in counts]
    patterns = sorted({DEFAULT_PATTERN, *report.pending, *refused})
    dropped = CounterMetricFamily(
        "chansup_layer_messages_dropped",
        "Messages that reached nobody, by the pattern of the channel and by reason.",
        labels=["pattern", "reason"],
    )
    messages = GaugeMetricFamily(
        "chansup_layer_queue_messages", "Messages that wait in the hub.", labels=["pattern"]
    )
    oldest = GaugeMetricFamily(
        "chansup_layer_queue_oldest_seconds", "Age of the oldest of them.", labels=["pattern"]
    )
    for pattern in patterns:
        for reason in REASONS:
            count = report.dropped.get(reason, {}).get(pattern, 0)
            dropped.add_metric([pattern, reason], count)
        queue = report.pending.get(pattern, Queue())
        messages.add_metric([pattern], queue.messages)
        oldest.add_metric([pattern], queue.oldest)
    yield from (dropped, messages, oldest)
