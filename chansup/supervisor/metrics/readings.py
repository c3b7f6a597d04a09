"""What the operating system says of processes, and the supervisor's event loop of itself."""

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from chansup.protocol.status import Measurement

LAG_INTERVAL = 1.0  # seconds between two looks at the supervisor's own event loop


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
