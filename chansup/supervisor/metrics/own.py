"""Families and rows of what the supervisor itself counts."""

import os
from collections.abc import Iterable, Iterator

from chansup.protocol.counters import Families, Label, Row
from chansup.protocol.states import State
from chansup.protocol.status import RESTART_REASONS, Measurement
from chansup.supervisor.metrics.readings import CpuClock, read_process
from chansup.supervisor.metrics.snapshot import Snapshot

_OUTCOME = Label("result", ("succeeded", "failed", "superseded", "aborted"))
_STATES = tuple(state.lower() for state in State)

BUILD = Families("the supervisor", ("version",))
SITE = Families("the supervisor")
_VERSION = BUILD.declare("chansup_build_info", "info", "Version of chansup.")
_READY = SITE.gauge("chansup_ready", "1 when every pool has enough ready processes.")
_GENERATION = SITE.gauge("chansup_generation", "Number of the newest generation.")
_LINES_DROPPED = SITE.counter(
    "chansup_log_lines_dropped_total",
    "Lines of children that could not be written to stdout in time.",
)
_RESTORED = SITE.counter(
    "chansup_files_restored_total",
    "Files and directories of chansup that vanished and were made again.",
)
_MALFORMED = SITE.counter(
    "chansup_admin_malformed_requests_total", "Requests to the admin address that are not HTTP."
)
_ROLLING = SITE.gauge("chansup_rollout_in_progress", "1 while a rollout is under way.")
_ROLLOUTS = SITE.counter(
    "chansup_rollouts_total", "Rollouts that ended, by how they ended.", _OUTCOME
)
_DURATIONS = SITE.declare(
    "chansup_rollout_duration_seconds", "summary", "How long rollouts took.", (_OUTCOME,)
)
_STARTED = SITE.gauge(
    "chansup_supervisor_start_time_seconds", "When the supervisor started, as a Unix timestamp."
)
_LAG = SITE.gauge(
    "chansup_supervisor_event_loop_lag_seconds",
    "Worst lateness of the supervisor's event loop since the last scrape.",
)
_CPU = SITE.counter("chansup_supervisor_cpu_seconds_total", "CPU time of the supervisor.")
_MEMORY = SITE.gauge(
    "chansup_supervisor_resident_memory_bytes", "Resident memory of the supervisor."
)
_FDS = SITE.gauge("chansup_supervisor_open_fds", "Open file descriptors of the supervisor.")

POOLS = Families("the supervisor", ("pool",))
_DESIRED = POOLS.gauge("chansup_pool_desired_processes", "How many processes a pool shall have.")
_POOL_READY = POOLS.gauge("chansup_pool_ready_processes", "How many processes of a pool are ready.")

SLOTS = Families("the supervisor", ("pool", "slot"))
_UP = SLOTS.gauge("chansup_process_up", "1 while a process fills the slot, ready or not.")
_STATE = SLOTS.gauge(
    "chansup_process_state",
    "1 for the state the slot is in, 0 for the others.",
    Label("state", _STATES),
)
_SLOT_STARTED = SLOTS.gauge(
    "chansup_process_start_time_seconds", "When the process started, as a Unix timestamp."
)
_RESTARTS = SLOTS.counter(
    "chansup_process_restarts_total", "Restarts of the slot.", Label("reason", RESTART_REASONS)
)
_LAST_EXIT = SLOTS.gauge(
    "chansup_process_last_exit_code", "How the last process ended; minus the signal's number."
)
_SLOT_MEMORY = SLOTS.gauge(
    "chansup_process_resident_memory_bytes", "Resident memory of the process."
)
_SLOT_CPU = SLOTS.counter(
    "chansup_process_cpu_seconds_total",
    "CPU time of all processes the slot had, as far as scrapes saw it.",
)
_SLOT_FDS = SLOTS.gauge("chansup_process_open_fds", "Open file descriptors of the process.")
_STALLS = SLOTS.counter(
    "chansup_process_accept_stalls_total",
    "Times that connections waited for seconds and the ready process accepted none.",
)


def site_rows(snapshot: Snapshot) -> Iterator[Row]:
    """Return the rows of the site, its rollouts and the supervising process."""
    status = snapshot.status
    yield Row(_VERSION, [status.version], 1)
    running = status.rollout is not None and status.rollout.outcome == "running"
    for family, value in (
        (_READY, status.ready),
        (_GENERATION, status.generation),
        (_LINES_DROPPED, status.log_lines_dropped),
        (_RESTORED, status.files_restored),
        (_MALFORMED, snapshot.malformed),
        (_ROLLING, running),
        (_STARTED, status.started),
        (_LAG, snapshot.loop_lag),
    ):
        yield Row(family, [], value)
    for outcome in dict.fromkeys((*_OUTCOME.values, *snapshot.rollouts)):
        count, seconds = snapshot.rollouts.get(outcome, (0, 0.0))
        yield Row(_ROLLOUTS, [outcome], count)
        yield Row(_DURATIONS, [outcome], (count, seconds))
    reading = read_process(os.getpid())
    if reading is not None:
        yield Row(_CPU, [], reading.cpu)
        yield Row(_MEMORY, [], reading.resident)
        if reading.fds is not None:
            yield Row(_FDS, [], reading.fds)


def pool_rows(snapshot: Snapshot) -> Iterator[Row]:
    """Return the rows of each pool."""
    for pool in snapshot.status.pools:
        yield Row(_DESIRED, [pool.name], pool.desired)
        yield Row(_POOL_READY, [pool.name], pool.ready)


def slot_rows(measurements: Iterable[Measurement], clock: CpuClock) -> Iterator[Row]:
    """Return the rows of each slot and the process that fills it."""
    for one in measurements:
        slot = [one.pool, one.slot]
        yield Row(_UP, slot, one.pid is not None)
        for name in _STATES:
            yield Row(_STATE, [*slot, name], name == one.state.lower())
        if one.started is not None:
            yield Row(_SLOT_STARTED, slot, one.started)
        for reason in dict.fromkeys((*RESTART_REASONS, *one.restarts)):
            yield Row(_RESTARTS, [*slot, reason], one.restarts.get(reason, 0))
        if one.last_exit_code is not None:
            yield Row(_LAST_EXIT, slot, one.last_exit_code)
        reading = read_process(one.pid)
        if reading is not None:
            yield Row(_SLOT_MEMORY, slot, reading.resident)
            if reading.fds is not None:
                yield Row(_SLOT_FDS, slot, reading.fds)
        cpu = clock.add(one, reading)
        if cpu is not None:
            yield Row(_SLOT_CPU, slot, cpu)
        yield Row(_STALLS, slot, one.accept_stalls)
