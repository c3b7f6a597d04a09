"""Rows of each process, and what the operating system says of it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from chansup.protocol import scoreboard
from chansup.protocol.reasons import RESTART_REASONS
from chansup.protocol.states import State
from chansup.protocol.status import Measurement

if TYPE_CHECKING:
    from prometheus_client import Metric


class Reading(NamedTuple):
    """What the operating system says about one process."""

    cpu: float  # seconds, user and system
    resident: int  # bytes
    fds: int | None  # None where we may not look


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
