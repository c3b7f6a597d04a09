"""What waits, by pattern and by name: for statistics, and for the supervisor's bulletin."""

import time
from collections.abc import Iterable, Mapping

from chansup.layer.frames import MAX_OBSERVED
from chansup.layer.hub.channel import Channel
from chansup.layer.hub.store import Store
from chansup.protocol import hub_report
from chansup.protocol.bulletin import Bulletin
from chansup.protocol.hub_report import HubReport, Queue
from chansup.protocol.versions import LAYER

_SHARE = 0.02  # of the time that may be spent on reports
_MAX_PATTERNS = (200, 50, 10)  # that are reported: fewer if the document were too large


def observe(store: Store, names: Iterable[bytes]) -> dict[str, Queue]:
    """Return what waits in these channels, and keep reporting the last thousand asked about."""
    observed = store.observed
    for name in names:
        observed.pop(name, None)
        observed[name] = None
    while len(observed) > MAX_OBSERVED:
        del observed[next(iter(observed))]
    return {name.decode("ascii", "replace"): _queue(store, name) for name in names}


def by_name(store: Store) -> dict[str, Queue]:
    """Return what waits in each channel that was asked about."""
    return {name.decode("ascii", "replace"): _queue(store, name) for name in store.observed}


def _queue(store: Store, name: bytes) -> Queue:
    found = Queue(channels=1)
    channel = store.channels.get(name)
    if channel is not None:
        store.expire(channel)
        found.messages = len(channel.entries)
        found.oldest = _age(store, channel)
    return found


def by_pattern(store: Store) -> dict[str, Queue]:
    """Return what waits in the channels of each pattern."""
    found: dict[str, Queue] = {}
    for name, channel in store.channels.items():
        if channel.entries and channel.name == name:  # and not one of its former names
            queue = found.setdefault(channel.pattern, Queue())
            queue.channels += 1
            queue.messages += len(channel.entries)
            queue.oldest = max(queue.oldest, _age(store, channel))
    return found


def _age(store: Store, channel: Channel) -> float:
    return round(store.now - channel.entries[0].born, 3) if channel.entries else 0.0


def statistics(store: Store) -> dict[str, object]:
    """Return what can be counted."""
    patterns = by_pattern(store)
    return {
        "messages_sent": store.sent,
        "group_messages_sent": store.group_sent,
        "messages_delivered": store.delivered,
        "messages_redelivered": store.redelivered,
        "messages_pending": sum(found.messages for found in patterns.values()),
        "oldest_pending": max((found.oldest for found in patterns.values()), default=0.0),
        "pending": patterns,
        "dropped": store.drops.as_dict(),
        "channels": len(store.channels),
        "groups": len(store.groups),
        "memberships": store.memberships,
        "processes": len(store.processes),
        "parked": store.parking.count(),
        "memory": store.memory.used,
        "memory_limit": store.memory.limit,
    }


class Reporter:
    """Writes the bulletin when something has changed, and not so often that it costs much."""

    def __init__(self, store: Store, bulletin: Bulletin, epoch: str) -> None:
        self._store = store
        self._epoch = epoch
        self._bulletin = bulletin
        self._last = b""
        self._not_before = 0.0

    def write(self, connections: int, *, at_once: bool = False) -> None:
        """Tell the supervisor how things are."""
        began = time.monotonic()
        if began < self._not_before and not at_once:
            return
        report = self._report(connections)
        dropped, pending = report.dropped, report.pending
        for limit in _MAX_PATTERNS:
            report.dropped, report.pending = _most_dropped(dropped, limit), _fullest(pending, limit)
            document = hub_report.encode(report)
            if document == self._last or self._bulletin.write(document):
                self._last = document
                self._store.drops.reported = self._store.drops.total
                break
        ended = time.monotonic()
        self._not_before = ended + (ended - began) / _SHARE

    def _report(self, connections: int) -> HubReport:
        store = self._store
        return HubReport(
            epoch=self._epoch,
            speaks=(LAYER.oldest, LAYER.newest),
            messages_sent=store.sent,
            group_messages_sent=store.group_sent,
            messages_delivered=store.delivered,
            messages_redelivered=store.redelivered,
            dropped=store.drops.as_dict(),
            pending=by_pattern(store),
            observed=by_name(store),
            connections=connections,
            channels=len(store.channels),
            groups=len(store.groups),
            memberships=store.memberships,
            parked=store.parking.count(),
            memory=store.memory.used,
            memory_limit=store.memory.limit,
        )


def _fullest(pending: Mapping[str, Queue], limit: int) -> dict[str, Queue]:
    if len(pending) <= limit:
        return dict(pending)
    order = sorted(pending, key=lambda pattern: pending[pattern].messages, reverse=True)
    return {pattern: pending[pattern] for pattern in order[:limit]}


def _most_dropped(dropped: dict[str, dict[str, int]], limit: int) -> dict[str, dict[str, int]]:
    if sum(map(len, dropped.values())) <= limit:
        return dropped
    rows = [
        (count, reason, pattern)
        for reason, patterns in dropped.items()
        for pattern, count in patterns.items()
    ]
    found: dict[str, dict[str, int]] = {}
    for count, reason, pattern in sorted(rows, reverse=True)[:limit]:
        found.setdefault(reason, {})[pattern] = count
    return found
