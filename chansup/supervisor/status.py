"""What the supervisor knows, as documents: for the CLI, `/healthz`, `/metrics` and the page.

Times are Unix timestamps, durations are seconds. Nothing in here comes from the environment of a
process, so no secret can.
"""

from typing import Literal

import msgspec


class DrainingStatus(msgspec.Struct, frozen=True):
    """A process that was replaced and finishes what it holds."""

    pid: int
    generation: int
    since: float


class SlotStatus(msgspec.Struct, frozen=True):
    """One slot and the process that fills it."""

    name: str  # "web.0"
    state: str  # as in supervisor.states
    pid: int | None
    generation: int | None
    started: float | None
    restarts: dict[str, int]  # by reason, see supervisor.reasons
    last_exit: str | None  # "exit code 1", "killed by SIGKILL"
    last_exit_code: int | None  # negative: minus the signal
    status: str | None  # the STATUS= of the process itself
    retry_in: float | None  # seconds until the next attempt, in backoff
    output: list[str]  # the last lines of a process that did not boot or crashed
    requests_in_progress: int
    websockets_open: int
    loop_lag: float | None
    draining: list[DrainingStatus]


class QueueStatus(msgspec.Struct, frozen=True):
    """The requests and WebSocket opens that wait for a pool of app workers."""

    waiting: int  # now
    waited: int  # in the last minute
    at_most: float | None  # seconds, for 95 % of those; None: longer than a minute

    def in_words(self) -> str:
        """Return it for people."""
        words = f"{self.waiting} waiting for a worker"
        if not self.waited:
            return words
        if self.at_most is None:
            limit = "more than a minute"
        elif self.at_most < 1:
            limit = f"at most {self.at_most * 1000:g} ms"
        else:
            limit = f"at most {self.at_most:g} s"
        return f"{words}; of {self.waited} in the last minute, 95 % waited {limit}"


class PoolStatus(msgspec.Struct, frozen=True):
    """One pool."""

    name: str
    kind: Literal["interface", "workers", "programs"]
    command: str  # "uvicorn mysite.asgi:application", or the command line as configured
    desired: int
    ready: int
    slots: list[SlotStatus]
    queue: QueueStatus | None = None  # of app workers


class TaskStatus(msgspec.Struct, frozen=True):
    """The last run of a one-shot task."""

    name: str
    state: Literal["waiting", "running", "succeeded", "failed"]
    generation: int | None
    finished: float | None
    duration: float | None
    last_exit: str | None
    output: list[str]


class RolloutStatus(msgspec.Struct, frozen=True):
    """The rollout under way, or the last one."""

    generation: int
    outcome: Literal["running", "succeeded", "failed", "superseded", "aborted"]
    done: int  # slots that run the new generation
    total: int
    started: float
    duration: float
    message: str  # why it failed, or what it does now


class Status(msgspec.Struct, frozen=True):
    """Everything `chansup status` shows."""

    version: str
    pid: int
    config: str  # path of the config file
    directory: str  # the resolved application directory of the newest generation
    generation: int
    state: Literal["starting", "running", "stopping"]
    ready: bool
    reasons: list[str]  # why it is not ready: "web: 1 of 2 processes ready"
    started: float
    addresses: list[str]  # where the interface listens, with real port numbers
    steering: str  # "steered", "shared"; "" without an interface
    admin: str | None  # where `[admin]` listens
    rollout: RolloutStatus | None
    pools: list[PoolStatus]
    tasks: list[TaskStatus]
    log_lines_dropped: int


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a command's progress, streamed to the caller as JSON."""

    type: Literal["progress", "output", "result"]
    message: str  # a sentence for people
    pool: str = ""
    slot: str = ""
    step: str = ""  # progress: "check", "task", "starting", "ready", "retiring", "replaced", "back"
    lines: list[str] = []  # output: what the process that failed printed
    done: int = 0
    total: int = 0
    generation: int = 0
    outcome: str = ""  # result: as in RolloutStatus
    exit_code: int = 0  # result: what the command exits with


class LogLine(msgspec.Struct, frozen=True):
    """One line that a child printed, or that chansup says itself (slot "chansup")."""

    time: float
    slot: str
    pid: int
    text: str


class Measurement(msgspec.Struct, frozen=True):
    """The numbers of one slot, for `/metrics`."""

    pool: str
    slot: str
    state: str
    pid: int | None
    started: float | None
    restarts: dict[str, int]
    last_exit_code: int | None
    cells: list[float]  # protocol.scoreboard: counters summed over all processes the slot ever had
