"""What relays count, as metrics: queues, handovers and crashes, by pool of app workers.

The rows are those of `protocol.relay_board`, summed over all interface processes there ever were.
Pool "" is that of requests that no route fits.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from chansup.protocol import relay_board as board

if TYPE_CHECKING:
    from prometheus_client import Metric

NO_POOL = ""
_OF_NO_POOL = ("no_route",)  # the reasons that a request of no pool is rejected for

_GAUGES = (
    ("queue_depth", board.WAITING, "Requests and WebSocket opens that wait for a worker."),
    ("requests_in_flight", board.IN_FLIGHT, "Requests that a worker works on."),
    ("websockets_attached", board.ATTACHED, "WebSockets that a worker works on."),
    ("websockets_paused", board.PAUSED, "WebSockets between two workers."),
    ("messages_held", board.HELD, "Messages of clients that wait for the end of a handover."),
)
_COUNTERS = (
    ("retries", board.RETRIES, "Requests given to another worker after theirs died."),
    ("failed", board.FAILED, "Requests that ended in a 502, or broken, as their worker died."),
    ("messages_lost", board.LOST, "Messages that were in hand when a worker died."),
    (
        "messages_redelivered",
        board.REDELIVERED,
        "Messages given to another worker after theirs died.",
    ),
    ("poison", board.POISON, "What was given up after three workers had died of it."),
    ("sessions_learned", board.SESSIONS_LEARNED, "Sessions that responses told of, with `sticky`."),
    (
        "sessions_displaced",
        board.SESSIONS_DISPLACED,
        "Sessions that were forgotten within a minute of their use, because there was no room.",
    ),
)
_BY_DIRECTION = (
    ("credits_exhausted", board.EXHAUSTED, "Times that a sender had to wait for credit."),
    ("bytes", board.BYTES, "Bytes between interface and workers."),
)


def relay_families(rows: Mapping[str, Sequence[float]]) -> Iterator["Metric"]:
    """Return the metrics of the relay; nothing outside relay mode."""
    if not rows:
        return
    pools = [(name, cells) for name, cells in rows.items() if name != NO_POOL]
    yield from _histograms(pools)
    yield from _gauges(pools)
    yield from _counters(pools)
    yield _sticky(pools)
    yield _rejected(rows)
    yield _handovers(pools)


def _histograms(pools: Iterable[tuple[str, Sequence[float]]]) -> Iterator["Metric"]:
    from prometheus_client.core import HistogramMetricFamily

    wait = HistogramMetricFamily(
        "chansup_relay_queue_wait_seconds",
        "How long requests and WebSocket opens waited for a worker.",
        labels=["pool"],
    )
    pause = HistogramMetricFamily(
        "chansup_relay_handover_pause_seconds",
        "How long WebSockets that moved were without a worker.",
        labels=["pool"],
    )
    for pool, cells in pools:
        wait.add_metric(
            [pool], _buckets(cells, board.WAITS, board.WAIT_BOUNDS), cells[board.WAIT_SUM]
        )
        pauses = _buckets(cells, board.PAUSES, board.PAUSE_BOUNDS)
        pause.add_metric([pool], pauses, cells[board.PAUSE_SUM])
    yield from (wait, pause)


def _buckets(
    cells: Sequence[float], first: int, bounds: Sequence[float]
) -> list[tuple[str, float]]:
    total = 0.0
    buckets = []
    for place, name in enumerate((*map(str, bounds), "+Inf")):
        total += cells[first + place]
        buckets.append((name, total))
    return buckets


def _gauges(pools: Sequence[tuple[str, Sequence[float]]]) -> Iterator["Metric"]:
    from prometheus_client.core import GaugeMetricFamily

    for name, cell, documentation in _GAUGES:
        gauge = GaugeMetricFamily(f"chansup_relay_{name}", documentation, labels=["pool"])
        for pool, cells in pools:
            gauge.add_metric([pool], cells[cell])
        yield gauge


def _counters(pools: Sequence[tuple[str, Sequence[float]]]) -> Iterator["Metric"]:
    from prometheus_client.core import CounterMetricFamily

    for name, cell, documentation in _COUNTERS:
        counter = CounterMetricFamily(f"chansup_relay_{name}", documentation, labels=["pool"])
        for pool, cells in pools:
            counter.add_metric([pool], cells[cell])
        yield counter
    for name, cell, documentation in _BY_DIRECTION:
        labels = ["pool", "direction"]
        counter = CounterMetricFamily(f"chansup_relay_{name}", documentation, labels=labels)
        for pool, cells in pools:
            for place, direction in enumerate(board.DIRECTIONS):
                counter.add_metric([pool, direction], cells[cell + place])
        yield counter


def _sticky(pools: Iterable[tuple[str, Sequence[float]]]) -> "Metric":
    from prometheus_client.core import CounterMetricFamily

    sticky = CounterMetricFamily(
        "chansup_relay_sticky_requests",
        "Requests with a session, by whether they went to the worker that knows it.",
        labels=["pool", "result"],
    )
    for pool, cells in pools:
        for place, result in enumerate(board.STICKY):
            sticky.add_metric([pool, result], cells[board.STICKY_REQUESTS + place])
    return sticky


def _rejected(rows: Mapping[str, Sequence[float]]) -> "Metric":
    from prometheus_client.core import CounterMetricFamily

    rejected = CounterMetricFamily(
        "chansup_relay_rejected",
        "Requests and WebSocket opens that got no worker.",
        labels=["pool", "reason"],
    )
    for pool, cells in rows.items():
        for place, reason in enumerate(board.REJECTIONS):
            if (reason in _OF_NO_POOL) == (pool == NO_POOL):
                rejected.add_metric([pool, reason], cells[board.REJECTED + place])
    return rejected


def _handovers(pools: Iterable[tuple[str, Sequence[float]]]) -> "Metric":
    from prometheus_client.core import CounterMetricFamily

    handovers = CounterMetricFamily(
        "chansup_relay_handovers",
        "WebSockets whose worker went away, by why it did and what became of them.",
        labels=["pool", "cause", "result"],
    )
    for pool, cells in pools:
        for row, cause in enumerate(board.REASONS):
            first = board.HANDED_OVER + row * len(board.HANDOVERS)
            for place, result in enumerate(board.HANDOVERS):
                handovers.add_metric([pool, cause, result], cells[first + place])
    return handovers
