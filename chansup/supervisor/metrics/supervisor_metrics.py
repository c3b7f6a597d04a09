"""Rows of the supervising process itself."""

import asyncio
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Metric
from chansup.supervisor.metrics.process_metrics import read_process
from chansup.supervisor.metrics.snapshot import Snapshot

LAG_INTERVAL = 1.0  # seconds between two looks at the supervisor's own event loop


class LoopLag:
    """The worst lateness of the supervisor's event loop since the last scrape."""

    def __init__(self) -> None:
        self._worst = 0.0
        self._due: float | None = None

    def take(self) -> float:
        """Return the lag in seconds, 0 the first time; looking begins with the first call."""
        loop = asyncio.get_running_loop()
        if self._due is None:
            self._schedule(loop)
        worst, self._worst = self._worst, 0.0
        return worst

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + LAG_INTERVAL
        loop.call_at(self._due, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._due is not None
        self._worst = max(self._worst, loop.time() - self._due)
        self._schedule(loop)


def supervisor_families(snapshot: Snapshot) -> Iterator["Metric"]:
    """Return the metrics of the supervising process itself."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    yield GaugeMetricFamily(
        "chansup_supervisor_start_time_seconds",
        "When the supervisor started, as a Unix timestamp.",
        value=snapshot.status.started,
    )
    yield GaugeMetricFamily(
        "chansup_supervisor_event_loop_lag_seconds",
        "Worst lateness of the supervisor's event loop since the last scrape.",
        value=snapshot.loop_lag,
    )
    reading = read_process(os.getpid())
    if reading is None:
        return
    yield CounterMetricFamily(
        "chansup_supervisor_cpu_seconds", "CPU time of the supervisor.", value=reading.cpu
    )
    yield GaugeMetricFamily(
        "chansup_supervisor_resident_memory_bytes",
        "Resident memory of the supervisor.",
        value=reading.resident,
    )
    if reading.fds is not None:
        yield GaugeMetricFamily(
            "chansup_supervisor_open_fds",
            "Open file descriptors of the supervisor.",
            value=reading.fds,
        )
