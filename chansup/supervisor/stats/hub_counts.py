"""What the hub counts, over all hubs that ever were.

A planned replacement takes its predecessor's counters over, and says so by the same epoch. After a
crash they begin at 0, with a new epoch: those of the epochs before are added, so that exported
counters only ever grow.
"""

from collections.abc import Iterable
from typing import Protocol
from weakref import WeakKeyDictionary

import msgspec

from chansup.protocol.bulletin import Bulletin
from chansup.protocol.hub_report import HubReport
from chansup.supervisor.plan.specification import PoolSpecification
from chansup.supervisor.stats.bulletins import MAX_PATTERNS, OTHERS, read_hub

_MAX_EPOCHS = 8  # more than can be told apart at a time; older ones are summed up


class Reporting(Protocol):
    """A process that may write a bulletin."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def specification(self) -> PoolSpecification:
        """What it runs."""

    @property
    def bulletin(self) -> Bulletin | None:
        """The memory that it reports in."""


class HubCounts:
    """Counters by epoch, and the gauges of the hub that lives."""

    def __init__(self) -> None:
        self._epochs: dict[str, HubReport] = {}  # counters alone; the oldest first
        self._before = HubReport()  # sums of epochs that are long over
        self._heard: WeakKeyDictionary[Reporting, HubReport] = WeakKeyDictionary()

    def keep(self, process: Reporting) -> None:
        """Take over what a hub counted that has ended."""
        if process.specification.kind == "hub":
            self._take(process)

    def look(self, living: Iterable[Reporting]) -> HubReport | None:
        """Return how it is now; None before the first hub. Without one, gauges are 0."""
        present = None
        for process in living:
            if process.specification.kind == "hub":
                present = self._take(process) or present
        if present is None and not self._epochs:
            return None
        sums = HubReport()
        for report in (self._before, *self._epochs.values()):
            _add(sums, report)
        if present is None:
            return sums
        return msgspec.structs.replace(
            present,
            messages_sent=sums.messages_sent,
            group_messages_sent=sums.group_messages_sent,
            messages_delivered=sums.messages_delivered,
            messages_redelivered=sums.messages_redelivered,
            dropped=sums.dropped,
        )

    def _take(self, process: Reporting) -> HubReport | None:
        report = read_hub(process.bulletin) if process.bulletin is not None else None
        if report is None:
            return self._heard.get(process)
        self._heard[process] = report
        epoch = report.epoch or f"process {process.pid}"
        # During a replacement two tell of the same epoch: the one that is further is right.
        self._epochs[epoch] = _further(self._epochs.get(epoch), report)
        while len(self._epochs) > _MAX_EPOCHS:
            _add(self._before, self._epochs.pop(next(iter(self._epochs))))
        return report


def _further(known: HubReport | None, report: HubReport) -> HubReport:
    """Return the greater ones of the counters of both."""
    furthest = HubReport()
    for one in (known, report):
        if one is None:
            continue
        furthest.messages_sent = max(furthest.messages_sent, one.messages_sent)
        furthest.group_messages_sent = max(furthest.group_messages_sent, one.group_messages_sent)
        furthest.messages_delivered = max(furthest.messages_delivered, one.messages_delivered)
        furthest.messages_redelivered = max(furthest.messages_redelivered, one.messages_redelivered)
        for reason, patterns in one.dropped.items():
            counts = furthest.dropped.setdefault(reason, {})
            for pattern, number in patterns.items():
                counts[pattern] = max(counts.get(pattern, 0), number)
    return furthest


def _add(sums: HubReport, report: HubReport) -> None:
    sums.messages_sent += report.messages_sent
    sums.group_messages_sent += report.group_messages_sent
    sums.messages_delivered += report.messages_delivered
    sums.messages_redelivered += report.messages_redelivered
    for reason, patterns in report.dropped.items():
        counts = sums.dropped.setdefault(reason, {})
        for pattern, number in patterns.items():
            place = pattern if pattern in counts or len(counts) < MAX_PATTERNS else OTHERS
            counts[place] = counts.get(place, 0) + number
