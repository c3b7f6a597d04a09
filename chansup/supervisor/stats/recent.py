"""What relays, channel workers and the hub did in the last minute: for `chansup status`."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from chansup.protocol.channel_report import ChannelCounts
from chansup.protocol.histogram import at_most
from chansup.protocol.hub_report import Drop, HubReport
from chansup.protocol.relay_board import CELLS, WAIT_BOUNDS, WAITING, WAITS
from chansup.protocol.status import ChannelStatus, Consumption, LayerStatus, QueueStatus

SAMPLE_EVERY = 5.0  # seconds
WINDOW = 60.0  # seconds
SHARE = 0.95  # of what waited at most as long as is said
_WAITS = slice(WAITS, WAITS + len(WAIT_BOUNDS) + 1)
_TROUBLES = (Drop.FULL, Drop.EXPIRED, Drop.MEMORY)  # that somebody should do something about


class _Sample(NamedTuple):
    taken: float
    relayed: Mapping[str, Sequence[float]]
    consumption: Consumption


class Recent:
    """Remembers the counters of a minute ago, to see what came since."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque()

    def is_due(self, now: float) -> bool:
        """Whether it wants another sample; `now` is a time of any clock that only moves forward."""
        return not self._samples or now - self._samples[-1].taken >= SAMPLE_EVERY

    def sample(
        self, relayed: Mapping[str, Sequence[float]], consumption: Consumption, now: float
    ) -> None:
        """Take the counters as they are now."""
        self._samples.append(_Sample(now, relayed, consumption))
        while now - self._samples[0].taken > WINDOW:
            self._samples.popleft()

    @property
    def _before(self) -> _Sample:
        return self._samples[0] if self._samples else _Sample(0.0, {}, Consumption(0.0))

    def queue(self, name: str, row: Sequence[float]) -> QueueStatus:
        """Return how the queue of a pool is, whose cells are `row` now."""
        before = self._before.relayed.get(name, [0.0] * CELLS)
        waits = [now - then for now, then in zip(row[_WAITS], before[_WAITS], strict=True)]
        return QueueStatus(int(row[WAITING]), int(sum(waits)), at_most(SHARE, WAIT_BOUNDS, waits))

    def channels(self, present: Consumption) -> dict[str, list[ChannelStatus]]:
        """Return how channels are, by pool."""
        before = {
            (pool.name, name): counts
            for pool in self._before.consumption.pools
            for name, counts in pool.channels.items()
        }
        return {
            pool.name: [
                _channel(name, counts, before.get((pool.name, name), ChannelCounts()))
                for name, counts in pool.channels.items()
            ]
            for pool in present.pools
        }

    def layer(self, present: Consumption) -> LayerStatus | None:
        """Return how the hub is; None where there is none."""
        report = present.hub
        if report is None:
            return None
        queues = report.pending.values()
        return LayerStatus(
            messages=sum(queue.messages for queue in queues),
            oldest=max((queue.oldest for queue in queues), default=0.0),
            memory=report.memory,
            memory_limit=report.memory_limit,
            dropped=max(0, _troubles(report) - _troubles(self._before.consumption.hub)),
        )


def _channel(name: str, present: ChannelCounts, before: ChannelCounts) -> ChannelStatus:
    longest = None
    if present.wait is not None:
        waits = present.wait.since(before.wait) if before.wait is not None else present.wait
        longest = waits.quantile(SHARE)
    failed = max(0, present.failed - before.failed)
    return ChannelStatus(
        name=name,
        waiting=present.depth,
        oldest=present.oldest,
        in_flight=present.in_flight,
        handled=max(0, present.handled - before.handled) + failed,
        failed=failed,
        at_most=longest,
    )


def _troubles(report: HubReport | None) -> int:
    dropped = report.dropped if report is not None else {}
    return sum(sum(dropped.get(reason, {}).values()) for reason in _TROUBLES)
