"""Rows of requests and WebSockets."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from chansup.protocol import scoreboard
from chansup.protocol.status import Measurement

if TYPE_CHECKING:
    from prometheus_client import Metric


USUAL_METHODS = ("GET", "POST")


USUAL_CLOSE_CODES = ("1000", "1001", "1005", "1006", "1011", "1012")


def counting(measurements: Iterable[Measurement]) -> dict[str, list[Measurement]]:
    """Return the pools whose processes count requests, with their slots."""
    pools: dict[str, list[Measurement]] = {}
    for one in measurements:
        pools.setdefault(one.pool, []).append(one)
    return {name: slots for name, slots in pools.items() if any(any(one.cells) for one in slots)}


def request_families(pools: dict[str, list[Measurement]]) -> Iterator["Metric"]:
    """Return what launchers count: requests and WebSockets."""
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    labels = ["pool", "slot"]
    requests = CounterMetricFamily(
        "chansup_requests", "HTTP requests that ended.", labels=[*labels, "method", "status"]
    )
    duration = HistogramMetricFamily(
        "chansup_request_duration_seconds",
        "From the call of the application to the end of its response.",
        labels=labels,
    )
    in_progress = GaugeMetricFamily(
        "chansup_requests_in_progress", "HTTP requests being answered.", labels=labels
    )
    websockets = GaugeMetricFamily("chansup_websockets_open", "Open WebSockets.", labels=labels)
    opened = CounterMetricFamily(
        "chansup_websockets_opened", "WebSockets that were accepted.", labels=labels
    )
    closed = CounterMetricFamily(
        "chansup_websockets_closed",
        "WebSockets that ended, by close code; rejected: never accepted.",
        labels=[*labels, "code"],
    )
    for slots in pools.values():
        methods = _shown_methods(slots)
        codes = _shown_codes(slots)
        for one in slots:
            slot, cells = [one.pool, one.slot], one.cells
            for row, method in methods:
                place = scoreboard.REQUESTS + row * len(scoreboard.STATUS_CLASSES)
                for column, status in enumerate(scoreboard.STATUS_CLASSES):
                    requests.add_metric([*slot, method, status], cells[place + column])
            duration.add_metric(slot, _buckets(cells), cells[scoreboard.DURATION_SUM])
            in_progress.add_metric(slot, cells[scoreboard.IN_PROGRESS])
            websockets.add_metric(slot, cells[scoreboard.WEBSOCKETS_OPEN])
            opened.add_metric(slot, cells[scoreboard.WEBSOCKETS_OPENED])
            for place, code in codes:
                closed.add_metric([*slot, code], cells[place])
    yield from (requests, duration, in_progress, websockets, opened, closed)


def _shown_methods(slots: Sequence[Measurement]) -> list[tuple[int, str]]:
    width = len(scoreboard.STATUS_CLASSES)
    shown = []
    for row, method in enumerate(scoreboard.METHODS):
        begin = scoreboard.REQUESTS + row * width
        if method in USUAL_METHODS or any(any(one.cells[begin : begin + width]) for one in slots):
            shown.append((row, method))
    return shown


def _shown_codes(slots: Sequence[Measurement]) -> list[tuple[int, str]]:
    cells = enumerate(scoreboard.CLOSE_CODES, scoreboard.WEBSOCKETS_CLOSED)
    return [
        (place, code)
        for place, code in cells
        if code in USUAL_CLOSE_CODES or any(one.cells[place] for one in slots)
    ]


def _buckets(cells: Sequence[float]) -> list[tuple[str, float]]:
    """Return the histogram's buckets: each counts what took at most so long, all below included."""
    total = 0.0
    buckets = []
    for place, bound in enumerate((*scoreboard.DURATION_BOUNDS, float("inf"))):
        total += cells[scoreboard.DURATIONS + place]
        buckets.append(("+Inf" if bound == float("inf") else str(bound), total))
    return buckets
