"""What the supervisor knows, as documents: for the CLI, `/healthz`, `/metrics` and the page.

Times are Unix timestamps, durations are seconds. Nothing in here comes from the environment of a
process, so no secret can.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from chansup.protocol.channel_report import ChannelCounts
from chansup.protocol.hub_report import HubReport
from chansup.text import short_duration, size

MOST_CHANNELS = 10  # of a pool that people are shown

# Why the process of a slot was replaced by another: the keys of `restarts`.
RESTART_REASONS = (
    "crash",  # it ended with an exit code or by a signal
    "exit",  # it ended with exit code 0, unasked
    "hang",  # its event loop stood still
    "boot",  # it did not become ready
    "command",  # `chansup restart`
    "reload",  # `chansup reload`
    "socket",  # the file of the socket that it listened on vanished
)
WANTED = frozenset({"command", "reload", "socket"})


def failures(restarts: Mapping[str, int]) -> dict[str, int]:
    """Return the restarts that nobody asked for."""
    return {reason: n for reason, n in restarts.items() if n and reason not in WANTED}


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
    restarts: dict[str, int]  # by reason, see RESTART_REASONS
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


class ChannelStatus(msgspec.Struct, frozen=True):
    """A channel and the pool of channel workers that consumes it."""

    name: str
    waiting: int | None  # now; None: the layer does not tell, or nobody has looked
    oldest: float | None  # seconds that the first of them waits already
    in_flight: int  # now
    handled: int  # in the last minute, those that failed included
    failed: int  # in the last minute: the consumer raised
    at_most: float | None  # seconds that 95 % of those of the last minute waited; None: unknown

    def in_words(self) -> str:
        """Return it for people."""
        words = []
        if self.waiting is not None:
            words.append(f"{self.waiting} waiting")
            if self.waiting and self.oldest is not None:
                words[-1] += f", the oldest for {short_duration(self.oldest)}"
        words.append(f"{self.in_flight} in hand")
        if self.handled:
            recent = f"{self.handled} done in the last minute"
            if self.failed:
                recent += f", {self.failed} of them failed"
            if self.at_most is not None:
                recent += f", 95 % waited at most {short_duration(self.at_most)}"
            words.append(recent)
        return "; ".join(words)


def busiest(channels: list[ChannelStatus]) -> tuple[list[ChannelStatus], int]:
    """Return the channels of a pool that are worth a line, and how many others there are."""
    if len(channels) <= MOST_CHANNELS:
        return channels, 0
    by_trouble = sorted(
        channels, key=lambda one: (one.waiting or 0, one.failed, one.handled), reverse=True
    )
    shown = {one.name for one in by_trouble[:MOST_CHANNELS]}
    return [one for one in channels if one.name in shown], len(channels) - MOST_CHANNELS


class LayerStatus(msgspec.Struct, frozen=True):
    """What the hub holds."""

    messages: int  # that wait
    oldest: float  # seconds that the first of them waits already
    memory: int  # bytes
    memory_limit: int
    dropped: int  # messages in the last minute that channels had no room for, or that expired

    def in_words(self) -> str:
        """Return it for people."""
        words = f"{self.messages} messages waiting"
        if self.messages:
            words += f", the oldest for {short_duration(self.oldest)}"
        words += f"; {size(self.memory)} of {size(self.memory_limit)} used"
        if self.dropped:
            words += f"; {self.dropped} refused or expired in the last minute"
        return words


class HeldStatus(msgspec.Struct, frozen=True):
    """The WebSockets of direct mode that are to outlive their process."""

    held: int  # now
    waiting: int  # those of them that have no process now
    limit: int  # that descriptors allow
    moved: int  # to another process
    lost: int  # messages that were in hand when a process died
    not_carried: int  # that ended with their process, or will
    obstacle: str = ""  # why none can outlive its process
    only_deploys: str = ""  # why none survives the death of its process

    def in_words(self) -> str:
        """Return it for people."""
        if self.obstacle:
            return f"a deploy closes WebSockets with 1012: {self.obstacle}"
        words = [f"{self.held} WebSockets are held"]
        if self.waiting:
            words.append(f"{self.waiting} wait for a process")
        if self.held >= self.limit:
            words.append("the limit of descriptors allows no more")
        if self.moved:
            words.append(f"{self.moved} moves, {self.lost} messages lost")
        if self.not_carried:
            words.append(f"{self.not_carried} could not be held")
        if self.only_deploys:
            words.append(f"a crash closes them: {self.only_deploys}")
        return "; ".join(words)


class PoolStatus(msgspec.Struct, frozen=True):
    """One pool."""

    name: str
    kind: Literal["interface", "workers", "programs", "hub"]
    command: str  # "uvicorn mysite.asgi:application", or the command line as configured
    desired: int
    ready: int
    slots: list[SlotStatus]
    queue: QueueStatus | None = None  # of app workers
    channels: list[ChannelStatus] = []  # of channel workers
    layer: LayerStatus | None = None  # of the hub
    websockets: HeldStatus | None = None  # of an interface whose WebSockets are to outlive it


class TaskStatus(msgspec.Struct, frozen=True):
    """A one-shot task: its run under way, if it is running, and how the last one ended."""

    name: str
    state: Literal["waiting", "running", "succeeded", "failed"]
    generation: int | None
    finished: float | None
    duration: float | None  # in seconds, of the last run that ended, as the next two
    last_exit: str | None
    output: list[str]  # its last lines, where it failed


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
    files_restored: int = 0  # files and directories of chansup that vanished and were made again
    obstacles: list[str] = []  # what keeps others from being made again


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
    accept_stalls: int = 0  # times that it left connections waiting


class ConsumerPool(msgspec.Struct):
    """One pool of channel workers. Of its channels: counters since the supervisor started."""

    name: str
    layer: str  # alias in CHANNEL_LAYERS
    concurrency: int  # messages at a time, of each process
    ready: int  # processes
    desired: int
    channels: dict[str, ChannelCounts] = {}


class Consumption(msgspec.Struct):
    """All pools of channel workers at one moment, and the hub if there is one."""

    taken: float  # CLOCK_MONOTONIC, in seconds
    pools: list[ConsumerPool] = []
    hub: HubReport | None = None  # counters since the supervisor started
