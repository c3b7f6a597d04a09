"""What the hub and channel workers say of themselves, as far as it can be believed.

A document that is broken, or that nothing of ours would write, counts as none: the one before it
stays in use.
"""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Protocol

import msgspec

from chansup.config import schema
from chansup.protocol import channel_report, hub_report
from chansup.protocol.channel_report import ChannelReport
from chansup.protocol.hub_report import HubReport, Queue

MAX_CHANNELS = 200  # of one pool that consumes what the project's router names
MAX_PATTERNS = 100  # of channel_capacity; the others count together, as OTHERS
OTHERS = "(others)"
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
    admitted = [name for name in report.channels if may_consume(settings, name)]
    channels = {name: report.channels[name] for name in admitted[:MAX_CHANNELS]}
    return ChannelReport(channels)


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
