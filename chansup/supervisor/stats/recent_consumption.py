"""What channel workers and the hub did in the last minute: for `chansup status`."""

from collections import deque

from chansup.protocol.channel_report import ChannelCounts
from chansup.protocol.hub_report import HubReport
from chansup.protocol.status import ChannelStatus, Consumption, LayerStatus

SAMPLE_EVERY = 5.0  # seconds
WINDOW = 60.0  # seconds
SHARE = 0.95  # of the messages that waited at most as long as is said
_TROUBLES = ("full", "expired", "memory")  # that somebody should do something about


class RecentConsumption:
    """Remembers the counters of a minute ago, to see what came since."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Consumption]] = deque()

    def is_due(self, now: float) -> bool:
        """Whether it wants another sample; `now` is a time of any clock that only moves forward."""
        return not self._samples or now - self._samples[-1][0] >= SAMPLE_EVERY

    def sample(self, consumption: Consumption, now: float) -> None:
        """Take the counters as they are now."""
        self._samples.append((now, consumption))
        while now - self._samples[0][0] > WINDOW:
            self._samples.popleft()

    def channels(self, present: Consumption) -> dict[str, list[ChannelStatus]]:
        """Return how channels are, by pool."""
        before: dict[tuple[str, str], ChannelCounts] = {}
        if self._samples:
            pools = self._samples[0][1].pools
            before = {
                (pool.name, name): counts
                for pool in pools
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
        before = self._samples[0][1].hub if self._samples else None
        queues = report.pending.values()
        return LayerStatus(
            messages=sum(queue.messages for queue in queues),
            oldest=max((queue.oldest for queue in queues), default=0.0),
            memory=report.memory,
            memory_limit=report.memory_limit,
            dropped=max(0, _troubles(report) - (_troubles(before) if before else 0)),
        )


def _channel(name: str, present: ChannelCounts, before: ChannelCounts) -> ChannelStatus:
    at_most = None
    if present.wait is not None:
        waits = present.wait.since(before.wait) if before.wait is not None else present.wait
        at_most = waits.quantile(SHARE)
    failed = max(0, present.failed - before.failed)
    return ChannelStatus(
        name=name,
        waiting=present.depth,
        oldest=present.oldest,
        in_flight=present.in_flight,
        handled=max(0, present.handled - before.handled) + failed,
        failed=failed,
        at_most=at_most,
    )


def _troubles(report: HubReport) -> int:
    return sum(sum(report.dropped.get(reason, {}).values()) for reason in _TROUBLES)
