"""What happened between two looks at the channel workers, by pool and channel."""

from fnmatch import fnmatchcase

import msgspec

from chansup.cli.latency.verdict import Situation, Verdict, judge
from chansup.protocol.channel_report import ChannelCounts
from chansup.protocol.histogram import Histogram
from chansup.protocol.hub_report import DEFAULT_PATTERN, HubReport
from chansup.protocol.status import ConsumerPool, Consumption

NO_WAITS = (
    "How long messages wait is not told by this channel layer. chansup's own tells it, and the core"
    " layer of channels_redis."
)
NO_DEPTH = "How many messages wait is not told by this channel layer."
_TROUBLES = ("full", "expired", "memory")  # why the hub drops what should have been handled
_WORDS = {
    "full": "were refused, because the channel was full",
    "expired": "expired before anybody took them",
    "memory": "were refused, because the hub holds as much as it may",
}


class Times(msgspec.Struct, frozen=True):
    """How long something took, in seconds, exact to 8 %."""

    p50: float
    p90: float
    p99: float
    max: float


class ChannelLatency(msgspec.Struct, frozen=True):
    """One channel, and one pool that consumes it."""

    pool: str
    channel: str  # "" where no process of the pool has told its channels yet
    messages: int  # that the pool was done with in the time, those that failed included
    per_second: float
    failed: int
    wait: Times | None  # in the queue
    handling: Times | None
    in_flight: int
    capacity: int  # messages that the ready processes can have in hand
    depth: int | None  # messages that wait, at the end
    depth_change: int | None
    oldest: float | None  # seconds that the first of them waits already
    verdict: Verdict
    words: str


class Latency(msgspec.Struct, frozen=True):
    """All that was measured."""

    seconds: float
    channels: list[ChannelLatency]
    notes: list[str]

    @property
    def is_well(self) -> bool:
        """Whether workers keep up with all channels, as far as can be told."""
        return not any(one.verdict in ("falls_behind", "not_consumed") for one in self.channels)


class _Course:
    """What one pool did with one channel."""

    def __init__(
        self, pool: ConsumerPool, before: ChannelCounts, after: ChannelCounts, seconds: float
    ) -> None:
        self.pool = pool
        self.after = after
        self.capacity = pool.ready * pool.concurrency
        self.failed = max(0, after.failed - before.failed)
        self.done = max(0, after.handled - before.handled) + self.failed
        self.lost = max(0, after.lost - before.lost)
        self.taken = after.in_flight - before.in_flight
        self.handling = after.handling.since(before.handling)
        self.wait = after.wait
        if after.wait is not None and before.wait is not None:
            self.wait = after.wait.since(before.wait)
        self.change = None
        if after.depth is not None and before.depth is not None:
            self.change = after.depth - before.depth
        self.stood = bool(before.depth and after.depth)  # some waited all the time, it seems
        self.was_idle = not before.in_flight and not after.in_flight
        recent = self.handling if self.handling.count else after.handling
        self.mean = recent.total / recent.count if recent.count else None
        self.seconds = seconds


def compare(before: Consumption, after: Consumption, channel: str | None = None) -> Latency:
    """Return what happened in between; with `channel`, what happened to that one."""
    seconds = max(after.taken - before.taken, 1e-3)
    former = {pool.name: pool for pool in before.pools}
    courses: dict[tuple[str, str], list[_Course]] = {}  # by layer and channel
    for pool in after.pools:
        known = former[pool.name].channels if pool.name in former else {}
        for name, counts in pool.channels.items():
            course = _Course(pool, known.get(name, ChannelCounts()), counts, seconds)
            courses.setdefault((pool.layer, name), []).append(course)
    dropped = _dropped(before.hub, after.hub)
    rows = []
    for (layer, name), together in courses.items():
        if channel in (None, name):
            drops = dropped if layer == "default" else {}
            rows += _rows(name, together, courses, drops, seconds)
    if channel is None:
        rows += [_silent(pool) for pool in after.pools if not pool.channels]
    rows.sort(key=lambda row: (row.pool, row.channel))
    return Latency(seconds, rows, _notes(rows, dropped))


def _rows(
    name: str,
    together: list[_Course],
    courses: dict[tuple[str, str], list[_Course]],
    dropped: dict[tuple[str, str], int],
    seconds: float,
) -> list[ChannelLatency]:
    change = next((one.change for one in together if one.change is not None), None)
    depth = next((one.after.depth for one in together if one.after.depth is not None), None)
    done = sum(one.done for one in together)
    refused = sum(count for (_, pattern), count in dropped.items() if _names(pattern, name))
    arrived = done + sum(one.lost + one.taken for one in together) + (change or 0)
    arrived = max(0, arrived) + refused
    pools = {one.pool.name: one.pool for one in together}
    busiest = max(together, key=lambda one: one.done)
    situation = Situation(
        seconds=seconds,
        arrived=arrived,
        done=done,
        depth=depth,
        change=change,
        stood=any(one.stood for one in together),
        idle=all(one.was_idle for one in together),
        refused=refused,
        refused_anywhere=sum(
            count for (_, pattern), count in dropped.items() if pattern == DEFAULT_PATTERN
        ),
        ready=sum(pool.ready for pool in pools.values()),
        pools=[(pool.name, pool.desired) for pool in pools.values()],
        busy=_busy(list(pools), courses),
        enough=lambda arriving: _enough(busiest, arriving / done if done else 1.0, courses),
        advised=busiest.pool.name,
        advised_ready=busiest.pool.ready,
    )
    verdict, words = judge(situation)
    return [
        ChannelLatency(
            pool=one.pool.name,
            channel=name,
            messages=one.done,
            per_second=one.done / seconds,
            failed=one.failed,
            wait=_times(one.wait),
            handling=_times(one.handling),
            in_flight=one.after.in_flight,
            capacity=one.capacity,
            depth=depth,
            depth_change=change,
            oldest=one.after.oldest,
            verdict=verdict,
            words=words,
        )
        for one in together
    ]


def _names(pattern: str, channel: str) -> bool:
    return pattern != DEFAULT_PATTERN and fnmatchcase(channel, pattern)


def _silent(pool: ConsumerPool) -> ChannelLatency:
    """Return the row of a pool that has told no channels."""
    consumed = pool.ready > 0
    words = "no process has named a channel yet"
    if not consumed:
        words = f"nobody consumes it: 0 of {pool.desired} processes are ready"
    capacity = pool.ready * pool.concurrency
    verdict: Verdict = "unclear" if consumed else "not_consumed"
    return ChannelLatency(
        pool.name, "", 0, 0.0, 0, None, None, 0, capacity, None, None, None, verdict, words
    )


def _of_pool(name: str, courses: dict[tuple[str, str], list[_Course]]) -> list[_Course]:
    return [one for together in courses.values() for one in together if one.pool.name == name]


def _busy(names: list[str], courses: dict[tuple[str, str], list[_Course]]) -> float:
    """Return which share of what pools can do they did, with all their channels."""
    worked = possible = 0.0
    for name in names:
        of_pool = _of_pool(name, courses)
        worked += sum(one.handling.total for one in of_pool)
        possible += of_pool[0].capacity * of_pool[0].seconds
    return min(1.0, worked / possible) if possible else 0.0


def _enough(
    busiest: _Course, factor: float, courses: dict[tuple[str, str], list[_Course]]
) -> int | None:
    """Return how many processes of a pool would do if `factor` as much of a channel were done."""
    if busiest.mean is None or not busiest.done:
        return None
    needed = 0.0  # messages in hand at a time, on average
    stood = False
    for one in _of_pool(busiest.pool.name, courses):
        stood = stood or one.stood
        growth = factor if one is busiest else 1.0
        if one.mean is not None:
            needed += one.done * growth * one.mean / one.seconds
    if stood:  # they did all they could: what is missing in `busy` is taking and forgetting
        needed /= max(_busy([busiest.pool.name], courses), 0.01)
    return int(needed / busiest.pool.concurrency) + 1


def _times(histogram: Histogram | None) -> Times | None:
    if histogram is None or not histogram.count:
        return None
    found = [histogram.quantile(share) or 0.0 for share in (0.5, 0.9, 0.99, 1.0)]
    return Times(*found)


def _dropped(before: HubReport | None, after: HubReport | None) -> dict[tuple[str, str], int]:
    """Return by reason and pattern what the hub dropped in the time."""
    found = {}
    for reason in _TROUBLES if after is not None else ():
        assert after is not None
        former = before.dropped.get(reason, {}) if before is not None else {}
        for pattern, count in after.dropped.get(reason, {}).items():
            if count > former.get(pattern, 0):
                found[reason, pattern] = count - former.get(pattern, 0)
    return found


def _notes(rows: list[ChannelLatency], dropped: dict[tuple[str, str], int]) -> list[str]:
    notes = []
    if any(row.messages and row.wait is None for row in rows):
        notes.append(NO_WAITS)
    if any(row.depth is None and row.channel and row.verdict != "not_consumed" for row in rows):
        notes.append(NO_DEPTH)
    for (reason, pattern), count in sorted(dropped.items()):
        messages = "1 message" if count == 1 else f"{count} messages"
        if count == 1:
            words = _WORDS[reason].replace("were", "was").replace("took them", "took it")
        else:
            words = _WORDS[reason]
        notes.append(f'{messages} for channels of the pattern "{pattern}" {words}.')
    return notes
