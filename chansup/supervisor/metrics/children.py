"""Rows of what processes count that the supervisor started: each as it is declared in protocol."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from chansup.protocol import documents, relay_board, scoreboard
from chansup.protocol.counters import Row
from chansup.protocol.hub_report import DEFAULT_PATTERN, DROPPED, Drop, HubReport, Queue
from chansup.protocol.status import ConsumerPool, Measurement

NO_POOL = ""  # of requests that no route fits
_OF_ALL = (scoreboard.OUT_OF_DESCRIPTORS, scoreboard.LOOP_LAG)  # of pools without requests, too


def request_rows(measurements: Iterable[Measurement]) -> Iterator[Row]:
    """Return what launchers count, by slot; of requests only in pools that count any."""
    pools: dict[str, list[Measurement]] = {}
    for one in measurements:
        pools.setdefault(one.pool, []).append(one)
        beats = one.pid is not None and one.cells[scoreboard.BEATS] > 0
        shown = _OF_ALL if beats else _OF_ALL[:1]
        yield from scoreboard.LAYOUT.rows([_cells(one)], shown.__contains__)
    for slots in pools.values():
        if any(any(one.cells) for one in slots):
            together = [_cells(one) for one in slots]
            yield from scoreboard.LAYOUT.rows(together, lambda place: place not in _OF_ALL)


def _cells(one: Measurement) -> tuple[list[str], list[float]]:
    return [one.pool, one.slot], one.cells


def relay_rows(relayed: Mapping[str, Sequence[float]]) -> Iterator[Row]:
    """Return what relays count, by pool of app workers; "no_route" is of no pool."""
    for pool, cells in relayed.items():
        for row in relay_board.LAYOUT.rows([([pool], cells)]):
            if ("no_route" in row.labels[1:]) == (pool == NO_POOL):
                yield row


def layer_rows(report: HubReport) -> Iterator[Row]:
    """Return what the hub counts; by patterns of `channel_capacity`, as far as it goes."""
    yield from documents.rows(report, [])
    dropped = [pattern for counts in report.dropped.values() for pattern in counts]
    for pattern in sorted({DEFAULT_PATTERN, *report.pending, *dropped}):
        yield from documents.rows(report.pending.get(pattern, Queue()), [pattern])
        for reason in Drop:
            count = report.dropped.get(reason, {}).get(pattern, 0)
            yield Row(DROPPED, [pattern, reason], count)


def channel_rows(pools: Iterable[ConsumerPool]) -> Iterator[Row]:
    """Return what channel workers count, by pool and channel."""
    for pool in pools:
        for channel, counts in pool.channels.items():
            yield from documents.rows(counts, [pool.name, channel])
