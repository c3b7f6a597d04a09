"""What the hub and channel workers say of themselves, as far as it can be believed.

A document that is broken, or that nothing of ours would write, counts as none: the one before it
stays in use.
"""

import math
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Protocol

import msgspec

from chansup.config import schema
from chansup.protocol import channel_report, hub_report
from chansup.protocol.channel_report import ChannelCounts, ChannelReport
from chansup.protocol.histogram import Histogram
from chansup.protocol.hub_report import HubReport, Queue

MAX_CHANNELS = 200  # of one pool that consumes what the project's router names
MAX_PATTERNS = 100  # of channel_capacity; the others count together, as OTHERS
OTHERS = "(others)"
_MAX_NUMBER = 2**53  # a float tells no two larger ones apart
_MAX_BUCKET = 120  # either side of 1 second; what is beyond no histogram counts
_MAX_EPOCH = 100  # characters
_CHANNEL = re.compile(r"[a-zA-Z0-9\-_.]{1,100}")
_BROKEN = (msgspec.DecodeError, ValueError, OverflowError, RecursionError)


class Readable(Protocol):
    """A bulletin, as its reader sees it."""

    def read(self) -> bytes | None:
        """Return the newest document, or None."""


def read_channels(bulletin: Readable, settings: schema.Workers) -> ChannelReport | None:
    """Return what a channel worker of a pool with these settings says."""
    document = bulletin.read()
    if document is None:
        return None
    try:
        report = channel_report.decode(document)
    except _BROKEN:
        return None
    if not all(map(_is_sound, report.channels.values())):
        return None
    admitted = [name for name in report.channels if may_consume(settings, name)]
    channels = {name: report.channels[name] for name in admitted[:MAX_CHANNELS]}
    return ChannelReport(report.concurrency, channels)


def may_consume(settings: schema.Workers, channel: str) -> bool:
    """Whether a pool with these settings can have anything to do with a channel."""
    if settings.channels:
        return channel in settings.channels
    if not _CHANNEL.fullmatch(channel) or _fits(channel, settings.exclude_channels):
        return False
    return not settings.only_channels or _fits(channel, settings.only_channels)


def _fits(channel: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(channel, glob) for glob in globs)


def read_hub(bulletin: Readable) -> HubReport | None:
    """Return what the hub says."""
    document = bulletin.read()
    if document is None:
        return None
    try:
        report = hub_report.decode(document)
    except _BROKEN:
        return None
    numbers: list[float] = [
        report.messages_sent, report.group_messages_sent, report.messages_delivered,
        report.messages_redelivered, report.connections, report.channels, report.groups,
        report.memberships, report.parked, report.memory, report.memory_limit,
        *(number for patterns in report.dropped.values() for number in patterns.values()),
    ]  # fmt: skip
    for queue in (*report.pending.values(), *report.observed.values()):
        numbers += (queue.channels, queue.messages, queue.oldest)
    if not all(map(_is_number, numbers)) or len(report.epoch) > _MAX_EPOCH:
        return None
    report.dropped = {reason: _bounded(known) for reason, known in report.dropped.items()}
    report.pending = _bounded_queues(report.pending)
    return report


def _bounded(counts: dict[str, int]) -> dict[str, int]:
    if len(counts) <= MAX_PATTERNS:
        return counts
    kept = sorted(counts)[:MAX_PATTERNS]
    return {name: counts[name] for name in kept} | {
        OTHERS: sum(number for name, number in counts.items() if name not in kept)
    }


def _bounded_queues(queues: dict[str, Queue]) -> dict[str, Queue]:
    if len(queues) <= MAX_PATTERNS:
        return queues
    kept = sorted(queues)[:MAX_PATTERNS]
    others = [queue for name, queue in queues.items() if name not in kept]
    together = Queue(
        sum(queue.channels for queue in others),
        sum(queue.messages for queue in others),
        max(queue.oldest for queue in others),
    )
    return {name: queues[name] for name in kept} | {OTHERS: together}


def _is_sound(counts: ChannelCounts) -> bool:
    numbers: list[float] = [
        counts.handled, counts.failed, counts.returned, counts.lost, counts.redelivered,
        counts.dead, counts.listener_failures, counts.in_flight, counts.looked,
        counts.depth or 0, counts.oldest or 0.0,
    ]  # fmt: skip
    histograms = [counts.handling, *([counts.wait] if counts.wait is not None else [])]
    return all(map(_is_number, numbers)) and all(map(_is_histogram, histograms))


def _is_histogram(histogram: Histogram) -> bool:
    return _is_number(histogram.total) and all(
        abs(bucket) <= _MAX_BUCKET and _is_number(count)
        for bucket, count in histogram.counts.items()
    )


def _is_number(value: float) -> bool:
    return 0 <= value <= _MAX_NUMBER and math.isfinite(value)
