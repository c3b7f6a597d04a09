"""What one pool, or one task, runs in one generation."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import msgspec

from chansup.config import (
    channels,
    schema,
)
from chansup.config.cores import processes
from chansup.supervisor.plan.command import Command

Kind = Literal["interface", "workers", "programs", "hub"]


# The order of start and of rollouts
KINDS: tuple[Kind, ...] = ("hub", "programs", "workers", "interface")


# Keys of [interface] that the supervisor alone acts on: no process has to be replaced for them.
OF_THE_SUPERVISOR: dict[str, Any] = {
    "processes": 1,
    "min_ready": None,
    "after": [],
    "start_timeout": None,
    "stop_signal": "TERM",
    "stop_signal_to": "process",
    "max_restarts": None,
    "restart_window": 60.0,
    "on_max_restarts": "retry",
    "error_pages": {},
    "unix_mode": "660",
    "unix_owner": None,
    "unix_group": None,
    "steering": "auto",
    "mode": None,
    "handover": "transparent",
    "redeliver": False,
    "websockets": [],
    "handover_rate": 500.0,
    "websocket_timeout": 15.0,
}


@dataclass(frozen=True)
class PoolSpecification:
    """What one pool runs in one generation. Equal specifications run the same thing."""

    name: str
    kind: Kind
    label: str  # for people: "uvicorn mysite.asgi:application"
    command: Command
    settings: schema.Pool
    after: frozenset[str]  # names of pools and tasks that it waits for
    ready: str  # "notify", "tcp:…", …
    start_timeout: float
    stop_timeout: float
    liveness_timeout: float  # 0: off
    on_reload: Literal["overlap", "restart", "keep"]
    binds: tuple[str, ...] = ()
    launcher: bool = False  # runs chansup.launch: has a scoreboard, beats, dumps stacks
    relays: bool = False  # an interface in relay mode: it runs none of the app's code
    carries: bool = False  # an interface in direct mode whose WebSockets outlive its processes
    identity: tuple[object, ...] = ()  # of chansup's own: everything else that processes go by
    # Option, path and digest of the files that the server's options name
    files: tuple[tuple[str, str, bytes], ...] = ()
    runs_as: int | None = None  # user id of the hub
    users: frozenset[int] = frozenset()  # who may connect to it, itself included

    @cached_property
    def count(self) -> int:
        """How many processes the file asks for."""
        return processes(self.settings.processes)

    @property
    def serves(self) -> bool:
        """Whether its processes are app workers."""
        return isinstance(self.settings, schema.Workers) and bool(self.settings.serves)

    @property
    def consumes(self) -> bool:
        """Whether its processes are channel workers."""
        return isinstance(self.settings, schema.Workers) and channels.are_consumed(self.settings)

    @property
    def reports(self) -> bool:
        """Whether its processes write a bulletin."""
        return self.consumes or self.takes_over

    @property
    def takes_over(self) -> bool:
        """Whether a successor gets what its predecessor holds, which ends by itself then."""
        return self.kind == "hub"

    @property
    def stays(self) -> bool:
        """Whether a reload leaves its processes alone where they run the same already."""
        return self.on_reload == "keep" or self.relays

    def runs_the_same_as(self, other: "PoolSpecification") -> bool:
        """Whether a process of `other` need not be replaced by one of this.

        For a program: the tables of both say the same, but for the number of processes. Where the
        app lies and what its environment is do not count: a program that is kept belongs to no
        release. For what relays, and the hub: the same code of chansup and of the server, told the
        same, with the same content of the files that its options name.
        """
        if self.relays != other.relays:
            return False
        apart: dict[str, Any] = OF_THE_SUPERVISOR if self.relays else {"processes": 1}
        ours, theirs = (msgspec.structs.replace(one.settings, **apart) for one in (self, other))
        return ours == theirs and self.identity == other.identity and self.files == other.files


@dataclass(frozen=True)
class TaskSpecification:
    """A command that must succeed before pools start."""

    name: str
    program: PoolSpecification  # how it is run, and what it waits for
    timeout: float
