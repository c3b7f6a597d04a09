"""``/metrics``: what the supervisor knows, in the formats of Prometheus and OpenMetrics.

Labels are a pool, a slot and values from fixed lists, never a pid, so the number of rows does not
grow with restarts. A row of `chansup_requests_total` or `chansup_websockets_closed_total` that can
be expected is there from the start, at zero, so that `rate()` sees its first increase; methods and
close codes that are rare appear for the whole pool when they are first seen. Pools that count
nothing (background workers, foreign programs) have no such rows at all.

The numbers of the operating system are read, and the text is made, in a thread; prometheus_client
and psutil are imported there by the first scrape.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Protocol

from chansup.protocol import scoreboard
from chansup.protocol.reasons import RESTART_REASONS
from chansup.protocol.states import State
from chansup.protocol.status import Consumption, Measurement, Status
from chansup.supervisor.metrics.channel_metrics import channel_families
from chansup.supervisor.metrics.layer_metrics import layer_families
from chansup.supervisor.metrics.relay_metrics import relay_families

if TYPE_CHECKING:
    from prometheus_client import Metric

PLAIN = b"text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = b"application/openmetrics-text; version=1.0.0; charset=utf-8"
MAX_AGE = 1.0  # seconds that a page is given out again, however often it is asked for
LAG_INTERVAL = 1.0  # seconds between two looks at the supervisor's own event loop

OUTCOMES = ("succeeded", "failed", "superseded", "aborted")
USUAL_METHODS = ("GET", "POST")
USUAL_CLOSE_CODES = ("1000", "1001", "1005", "1006", "1011", "1012")


class Counted(Protocol):
    """A supervisor that can be read. Nothing of this blocks."""

    def status(self) -> Status:
        """Return the present state."""

    def measurements(self) -> list[Measurement]:
        """Return the numbers of every slot."""

    def rollouts(self) -> dict[str, tuple[int, float]]:
        """Return for each outcome how many rollouts ended so, and their seconds in total."""

    def relayed(self) -> dict[str, list[float]]:
        """Return the row of the relay board of each pool of app workers, summed."""

    def consumption(self) -> Consumption:
        """Return what channel workers and the hub counted."""


class Reading(NamedTuple):
    """What the operating system says about one process."""

    cpu: float  # seconds, user and system
    resident: int  # bytes
    fds: int | None  # None where we may not look


class Snapshot(NamedTuple):
    """What one page is made of; taken at one moment in the event loop."""

    status: Status
    measurements: list[Measurement]
    rollouts: dict[str, tuple[int, float]]
    relayed: dict[str, list[float]]
    consumption: Consumption
    loop_lag: float
    malformed: int  # requests to the admin address


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


class CpuClock:
    """CPU seconds per slot, which continue from one process of the slot to the next.

    What a process used after the last scrape of its life is not seen.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], tuple[int, float, float]] = {}  # pid, its CPU, before it

    def add(self, measurement: Measurement, reading: Reading | None) -> float | None:
        """Return the seconds of all processes of the slot so far; None before the first."""
        key = measurement.pool, measurement.slot
        pid, cpu, before = self._seen.get(key, (-1, 0.0, 0.0))
        if reading is not None and measurement.pid is not None:
            if measurement.pid != pid:
                before += cpu
            pid, cpu = measurement.pid, reading.cpu
            self._seen[key] = pid, cpu, before
        return before + cpu if key in self._seen else None

    def forget_others(self, measurements: Iterable[Measurement]) -> None:
        """Drop the slots that are no more."""
        present = {(one.pool, one.slot) for one in measurements}
        self._seen = {key: seen for key, seen in self._seen.items() if key in present}


class Metrics:
    """Makes the page. One scrape runs at a time; who asks meanwhile gets the same page."""

    def __init__(self, counted: Counted, malformed: Callable[[], int] = lambda: 0) -> None:
        """`malformed` returns how many requests to the admin address were not HTTP."""
        self._counted = counted
        self._malformed = malformed
        self._lag = LoopLag()
        self._cpu = CpuClock()
        self._thread = ThreadPoolExecutor(1, "metrics")
        self._pages: dict[bool, tuple[float, asyncio.Future[bytes]]] = {}

    async def page(self, accept: str) -> tuple[bytes, bytes]:
        """Return the page and its content type, chosen by an Accept header."""
        openmetrics = "application/openmetrics-text" in accept
        loop = asyncio.get_running_loop()
        begun, page = self._pages.get(openmetrics, (0.0, None))
        if page is None or (
            page.done() and (loop.time() - begun > MAX_AGE or page.exception() is not None)
        ):
            counted = self._counted
            snapshot = Snapshot(
                counted.status(),
                counted.measurements(),
                counted.rollouts(),
                counted.relayed(),
                counted.consumption(),
                self._lag.take(),
                self._malformed(),
            )
            page = loop.run_in_executor(self._thread, self._render, snapshot, openmetrics)
            self._pages[openmetrics] = loop.time(), page
        # Shielded: that one client leaves must not take the page from the others.
        return await asyncio.shield(page), OPENMETRICS if openmetrics else PLAIN

    def _render(self, snapshot: Snapshot, openmetrics: bool) -> bytes:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import generate_latest
        from prometheus_client.openmetrics import exposition

        families = self._families(snapshot)

        class Collected:
            def collect(self) -> Iterable["Metric"]:
                return families  # one at a time: a site of many slots has many rows

        registry = CollectorRegistry(auto_describe=False)
        registry.register(Collected())
        if openmetrics:
            generate: Callable[[CollectorRegistry], bytes] = exposition.generate_latest
            return generate(registry)
        return generate_latest(registry)

    def _families(self, snapshot: Snapshot) -> Iterator["Metric"]:
        yield from site_families(snapshot)
        yield from supervisor_families(snapshot)
        readings = [read_process(one.pid) for one in snapshot.measurements]
        cpu = [
            self._cpu.add(one, reading)
            for one, reading in zip(snapshot.measurements, readings, strict=True)
        ]
        self._cpu.forget_others(snapshot.measurements)
        yield from process_families(snapshot.measurements, readings, cpu)
        yield from request_families(counting(snapshot.measurements))
        yield from relay_families(snapshot.relayed)
        yield from layer_families(snapshot.consumption.hub)
        yield from channel_families(snapshot.consumption.pools)


def read_process(pid: int | None) -> Reading | None:
    """Return what /proc says about a process; None when it is gone or hidden from us."""
    import psutil

    if pid is None:
        return None
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            resident = process.memory_info().rss
    except (psutil.Error, OSError):
        return None
    try:
        fds = process.num_fds()
    except (psutil.Error, OSError):  # of another user
        fds = None
    return Reading(times.user + times.system, resident, fds)


def site_families(snapshot: Snapshot) -> Iterator["Metric"]:
    """Return the metrics of the site and its pools."""
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        InfoMetricFamily,
        SummaryMetricFamily,
    )

    status = snapshot.status
    yield InfoMetricFamily("chansup_build", "Version of chansup.", {"version": status.version})
    yield GaugeMetricFamily(
        "chansup_ready", "1 when every pool has enough ready processes.", value=status.ready
    )
    yield GaugeMetricFamily(
        "chansup_generation", "Number of the newest generation.", value=status.generation
    )
    yield CounterMetricFamily(
        "chansup_log_lines_dropped",
        "Lines of children that could not be written to stdout in time.",
        value=status.log_lines_dropped,
    )
    yield CounterMetricFamily(
        "chansup_files_restored",
        "Files and directories of chansup that vanished and were made again.",
        value=status.files_restored,
    )
    yield CounterMetricFamily(
        "chansup_admin_malformed_requests",
        "Requests to the admin address that are not HTTP.",
        value=snapshot.malformed,
    )
    running = status.rollout is not None and status.rollout.outcome == "running"
    yield GaugeMetricFamily(
        "chansup_rollout_in_progress", "1 while a rollout is under way.", value=running
    )
    rollouts = CounterMetricFamily(
        "chansup_rollouts", "Rollouts that ended, by how they ended.", labels=["result"]
    )
    durations = SummaryMetricFamily(
        "chansup_rollout_duration_seconds", "How long rollouts took.", labels=["result"]
    )
    for outcome in dict.fromkeys((*OUTCOMES, *snapshot.rollouts)):
        count, seconds = snapshot.rollouts.get(outcome, (0, 0.0))
        rollouts.add_metric([outcome], count)
        durations.add_metric([outcome], count, seconds)
    yield rollouts
    yield durations
    desired = GaugeMetricFamily(
        "chansup_pool_desired_processes", "How many processes a pool shall have.", labels=["pool"]
    )
    ready = GaugeMetricFamily(
        "chansup_pool_ready_processes", "How many processes of a pool are ready.", labels=["pool"]
    )
    for pool in status.pools:
        desired.add_metric([pool.name], pool.desired)
        ready.add_metric([pool.name], pool.ready)
    yield desired
    yield ready


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


def process_families(
    measurements: Sequence[Measurement],
    readings: Sequence[Reading | None],
    cpu: Sequence[float | None],
) -> Iterator["Metric"]:
    """Return the metrics of each slot and the process that fills it."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    labels = ["pool", "slot"]

    def gauge(name: str, documentation: str, extra: Sequence[str] = ()) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"chansup_process_{name}", documentation, labels=[*labels, *extra])

    up = gauge("up", "1 while a process fills the slot, ready or not.")
    state = gauge("state", "1 for the state the slot is in, 0 for the others.", ["state"])
    start = gauge("start_time_seconds", "When the process started, as a Unix timestamp.")
    restarts = CounterMetricFamily(
        "chansup_process_restarts", "Restarts of the slot.", labels=[*labels, "reason"]
    )
    last_exit = gauge("last_exit_code", "How the last process ended; minus the signal's number.")
    resident = gauge("resident_memory_bytes", "Resident memory of the process.")
    seconds = CounterMetricFamily(
        "chansup_process_cpu_seconds",
        "CPU time of all processes the slot had, as far as scrapes saw it.",
        labels=labels,
    )
    fds = gauge("open_fds", "Open file descriptors of the process.")
    used_up = CounterMetricFamily(
        "chansup_process_out_of_descriptors",
        "Heartbeats at which a process of the slot could open no file, so accept no client.",
        labels=labels,
    )
    stalls = CounterMetricFamily(
        "chansup_process_accept_stalls",
        "Times that connections waited for seconds and the ready process accepted none.",
        labels=labels,
    )
    lag = gauge("event_loop_lag_seconds", "By how much the last heartbeat was late.")
    for one, reading, used in zip(measurements, readings, cpu, strict=True):
        slot = [one.pool, one.slot]
        up.add_metric(slot, one.pid is not None)
        for name in State:
            state.add_metric([*slot, name.lower()], name == one.state)
        if one.started is not None:
            start.add_metric(slot, one.started)
        for reason in dict.fromkeys((*RESTART_REASONS, *one.restarts)):
            restarts.add_metric([*slot, reason], one.restarts.get(reason, 0))
        if one.last_exit_code is not None:
            last_exit.add_metric(slot, one.last_exit_code)
        if reading is not None:
            resident.add_metric(slot, reading.resident)
            if reading.fds is not None:
                fds.add_metric(slot, reading.fds)
        used_up.add_metric(slot, one.cells[scoreboard.OUT_OF_DESCRIPTORS])
        stalls.add_metric(slot, one.accept_stalls)
        if used is not None:
            seconds.add_metric(slot, used)
        if one.pid is not None and one.cells[scoreboard.BEATS]:
            lag.add_metric(slot, one.cells[scoreboard.LOOP_LAG])
    yield from (up, state, start, restarts, last_exit, resident, seconds, fds, used_up, stalls, lag)


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
