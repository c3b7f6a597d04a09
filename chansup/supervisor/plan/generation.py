"""A generation: one snapshot of config, resolved directory and environment, and what it runs."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec

from chansup.config import (
    accounts,
    channels,
    commands,
    hub,
    option_files,
    order,
    relay,
    schema,
    server_variables,
    size,
)
from chansup.config.cores import processes
from chansup.config.load import Loaded
from chansup.config.pools import HUB
from chansup.protocol.channel_layer import Place
from chansup.supervisor.plan import installed
from chansup.supervisor.plan.command import Command
from chansup.supervisor.plan.descriptors import most_descriptors

Kind = Literal["interface", "workers", "programs", "hub"]
# The order of start and of rollouts
KINDS: tuple[Kind, ...] = ("hub", "programs", "workers", "interface")

# What a service manager or a shell told the supervisor is not meant for its children.
NOT_INHERITED = frozenset(
    {
        *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
        *("LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES"),
        *("MAINPID", "SYSTEMD_EXEC_PID", "_", "OLDPWD", "PWD"),  # PWD is set to where each starts
    }
)
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


@dataclass(frozen=True, eq=False)  # two snapshots are never the same
class Generation:
    """One snapshot. `pools` stand in the order of start; rollouts go the same way."""

    number: int
    loaded: Loaded = field(repr=False)
    pools: dict[str, PoolSpecification] = field(repr=False)
    tasks: dict[str, TaskSpecification] = field(repr=False)
    hub: PoolSpecification | None = field(repr=False, default=None)  # in `pools` once it is needed

    def with_hub(self) -> None:
        """Have the hub among the pools from now on: somebody needs it."""
        if self.hub is not None and HUB not in self.pools:
            others = dict(self.pools)
            self.pools.clear()
            self.pools.update({HUB: self.hub, **others})

    def layer(self, address: str) -> Place:
        """Return where its channel layer is, if the hub's socket is at `address`."""
        return hub.place_at(self.config, address)

    @property
    def config(self) -> schema.Config:
        """The config file's content."""
        return self.loaded.config

    @property
    def relays(self) -> bool:
        """Whether its interface processes relay to app workers."""
        interface = self.pools.get("interface")
        return interface is not None and interface.relays

    @property
    def directory(self) -> Path:
        """The application directory, symlinks resolved."""
        return self.loaded.directory

    def can_start_beside(self, other: "Generation") -> bool:
        """Whether its code is still there: in a release directory that `other` does not share."""
        return self.directory != other.directory and self.directory.is_dir()


def build(number: int, loaded: Loaded, environ: Mapping[str, str]) -> Generation:
    """Return the generation that `loaded` describes, in processes that inherit `environ`."""
    builder = _Builder(loaded, environ)
    config = loaded.config
    pools: dict[str, PoolSpecification] = {}
    for name, program in config.programs.items():
        pools[name] = builder.program(name, program)
    for name, workers in config.workers.items():
        pools[name] = builder.workers(name, workers)
    if config.interface is not None:
        pools["interface"] = builder.interface(config.interface)
    tasks = {name: builder.task(name, task) for name, task in config.tasks.items()}
    in_order = order.start_order(config)
    generation = Generation(
        number,
        loaded,
        {name: pools[name] for name in _by_kind(in_order, pools)},
        {name: tasks[name] for name in in_order if name in tasks},
        builder.hub() if hub.is_local(config) else None,
    )
    if hub.starts_at_once(config, loaded.document):
        generation.with_hub()
    return generation


def one_off(
    loaded: Loaded, environ: Mapping[str, str], words: list[str], pool: str | None
) -> Command:
    """Return the command `words`, run as the processes of `pool` are, or as tasks of the site.

    Without a pool it runs as the user that all pools that run the app's code have in common.
    Raises KeyError for a pool that the config does not have.
    """
    if pool is not None:
        return replace(build(0, loaded, environ).pools[pool].command, argv=tuple(words))
    owner = hub.owner(loaded.config)
    settings = schema.Pool(user=owner.user, group=owner.group)
    return _Builder(loaded, environ).command(settings, words, words[0])


def _by_kind(in_order: list[str], pools: dict[str, PoolSpecification]) -> list[str]:
    """Return the pools in the order of start: kind by kind, as far as `after` allows."""
    placed: list[str] = []

    def place(name: str) -> None:
        if name in pools and name not in placed:
            for earlier in in_order:
                if earlier in pools[name].after:
                    place(earlier)
            placed.append(name)

    for kind in KINDS:
        for name in in_order:
            if name in pools and pools[name].kind == kind:
                place(name)
    return placed


def _binds(interface: schema.Interface) -> tuple[str, ...]:
    return (interface.bind,) if isinstance(interface.bind, str) else tuple(interface.bind)


class _Builder:
    def __init__(self, loaded: Loaded, environ: Mapping[str, str]) -> None:
        self.loaded = loaded
        self.config = loaded.config
        self.needs = order.dependencies(loaded.config)
        self.directory = loaded.directory
        self.python = str(loaded.python or sys.executable)
        inherited = {key: value for key, value in environ.items() if key not in NOT_INHERITED}
        self.inherited = {
            "PYTHONUNBUFFERED": "1",  # lines reach the log when they are printed
            **inherited,
            "CHANSUP_CONFIG": str(loaded.path),
        }

    def program(self, name: str, program: schema.Program) -> PoolSpecification:
        label = self._written("programs", name)
        command = self.command(program, program.command, label, program.directory)
        return self._pool(
            name,
            "programs",
            program,
            command,
            label=label,
            ready=program.ready or "after:1s",
            on_reload=self._on_reload(program, command),
        )

    def workers(self, name: str, workers: schema.Workers) -> PoolSpecification:
        if workers.serves:
            return self._app_workers(name, workers)
        if channels.are_consumed(workers):
            return self._channel_workers(name, workers)
        assert workers.command is not None  # the rules see to it
        label = self._written("workers", name)
        return self._pool(
            name,
            "workers",
            workers,
            self.command(workers, workers.command, label),
            label=label,
            ready=workers.ready or "after:2s",
            on_reload="overlap" if workers.on_reload == "auto" else workers.on_reload,
        )

    def _channel_workers(self, name: str, workers: schema.Workers) -> PoolSpecification:
        app = channels.application(self.config, name)
        application = app.reference if app is not None else ""
        globs = [f"-{glob}" for glob in workers.exclude_channels]
        label = " ".join(["channels", *workers.channels, *workers.only_channels, *globs])
        return self._launched(name, workers, ["channels", application], label)

    def _app_workers(self, name: str, workers: schema.Workers) -> PoolSpecification:
        app = relay.application(self.config, name)
        application = app.reference if app is not None else ""
        label = f"relay {application}"
        return self._launched(name, workers, ["relay", application], label)

    def _launched(
        self, name: str, workers: schema.Workers, what: list[str], label: str
    ) -> PoolSpecification:
        """Return workers whose launcher runs the app by the interpreter of their pool."""
        python = self.loaded.python_of(name)
        command = self.command(workers, [python, "-m", "chansup.launch", *what], label)
        inherited = accounts.environment(self.inherited, workers.user, workers.group)
        environment = self.loaded.child_environment(inherited, workers.environment, python)
        limits = {"nofile": most_descriptors(), **workers.limits}
        return self._pool(
            name,
            "workers",
            workers,
            replace(command, environment=environment, limits=limits),
            label=label,
            ready="notify",
            on_reload="overlap" if workers.on_reload == "auto" else workers.on_reload,
            launcher=True,
        )

    def interface(self, interface: schema.Interface) -> PoolSpecification:
        if relay.is_relay(self.config):
            return self._relay(interface)
        if interface.command is not None:
            words = [word.replace("{fd}", "3") for word in commands.parse(interface.command)]
            label = self._written("interface")
            command = self.command(interface, words, label)
            ready = interface.ready or "accepts"
        else:
            application = self.config.app.asgi or self.config.app.wsgi or ""
            words = [self.python, "-m", "chansup.launch", interface.server, application]
            label = f"{interface.server} {application}"
            command = self.command(interface, words, label)
            limits = {"nofile": most_descriptors(), **interface.limits}
            command = replace(command, limits=limits)
            ready = "notify"
        if interface.server == "gunicorn" and interface.options.get("worker_class") == "sync":
            # Its only thread is in the app: a long request and a hang look the same.
            interface = msgspec.structs.replace(
                interface, liveness_timeout=interface.liveness_timeout or 0.0
            )
        return self._pool(
            "interface",
            "interface",
            interface,
            command,
            label=label,
            ready=ready,
            on_reload="overlap",
            binds=_binds(interface),
            launcher=interface.command is None,
        )

    def _relay(self, interface: schema.Interface) -> PoolSpecification:
        """Return the interface of relay mode: nothing in it depends on a release of the app."""
        label = f"{interface.server} relay"
        words = [sys.executable, "-m", "chansup.launch", interface.server, "relay"]
        passed_on = server_variables.passed_on(interface.server, self.loaded.environment)
        command = replace(
            self.command(interface, words, label),
            environment={
                **accounts.environment(self.inherited, interface.user, interface.group),
                **passed_on,
                **interface.environment,
            },
            directory=str(self.loaded.path.parent),
            limits={"nofile": most_descriptors(), **interface.limits},
        )
        specification = self._pool(
            "interface",
            "interface",
            interface,
            command,
            label=label,
            ready="notify",
            on_reload="overlap",
            binds=_binds(interface),
            launcher=True,
        )
        rollout = self.config.rollout
        identity = (
            installed.fingerprint(interface.server),
            (rollout.settle, rollout.drain_spread, rollout.keep_alive),
            (specification.stop_timeout, specification.liveness_timeout),
            tuple(sorted(passed_on.items())),
        )
        files = option_files.contents(self.config, self.directory, self.loaded.path.parent)
        return replace(specification, relays=True, identity=identity, files=files)

    def hub(self) -> PoolSpecification:
        """Return the hub of chansup's own channel layer: nothing in it is of the app."""
        table = self.config.channel_layer
        owner = hub.owner(self.config)
        own = hub.user_ids(owner)
        if table.user is None and not all(map(installed.is_reachable, own)):
            owner, own = hub.Owner(), {os.geteuid()}  # as pipx has it for root, in its home
        others = sorted(hub.users(self.config) - own - {0})
        words = [sys.executable, "-m", "chansup.layer.hub", "--descriptor", "3"]
        words += ["--memory", str(size.parse(table.memory))]
        words += ["--connections", str(table.connections)]
        words += [word for user in others for word in ("--user", str(user))]
        settings = schema.Pool(user=owner.user, group=owner.group)
        command = replace(
            self.command(settings, words, HUB),
            environment=accounts.environment(self.inherited, owner.user, owner.group),
            directory="/",  # every user can be there
            limits={"nofile": most_descriptors()},
        )
        specification = self._pool(
            HUB, "hub", settings, command, label="channel layer", ready="notify", on_reload="keep"
        )
        identity = (installed.fingerprint(), tuple(words), specification.liveness_timeout)
        return replace(
            specification,
            identity=identity,
            runs_as=min(own, default=None),
            users=frozenset((*own, *others)),
        )

    def task(self, name: str, task: schema.Task) -> TaskSpecification:
        label = self._written("tasks", name)
        program = self._pool(
            name,
            "programs",
            schema.Pool(),
            self.command(task, task.command, label, task.directory),
            label=label,
            ready="after:0s",
            on_reload="restart",
        )
        return TaskSpecification(name, program, task.timeout)

    def _written(self, *keys: str) -> str:
        """Return the command of a table as the file has it: nothing secret was filled in there."""
        table: Any = self.loaded.document
        for key in keys:
            table = table[key]
        line = table["command"]
        return line if isinstance(line, str) else " ".join(map(str, line))

    def _pool(
        self,
        name: str,
        kind: Kind,
        settings: schema.Pool,
        command: Command,
        *,
        label: str,
        ready: str,
        on_reload: Literal["overlap", "restart", "keep"],
        binds: tuple[str, ...] = (),
        launcher: bool = False,
    ) -> PoolSpecification:
        rollout = self.config.rollout
        liveness = settings.liveness_timeout
        if liveness is None:
            liveness = self.config.supervisor.liveness_timeout
        return PoolSpecification(
            name=name,
            kind=kind,
            label=label,
            command=command,
            settings=settings,
            after=frozenset(self.needs.get(name, ())),
            ready=ready,
            start_timeout=settings.start_timeout or rollout.start_timeout,
            stop_timeout=settings.stop_timeout or rollout.stop_timeout,
            liveness_timeout=liveness,
            on_reload=on_reload,
            binds=binds,
            launcher=launcher,
        )

    def command(
        self,
        settings: schema.Pool | schema.Task,
        line: str | list[str],
        label: str,
        directory: str | None = None,
    ) -> Command:
        words = commands.parse(line)
        if words[0] in ("python", "python3"):
            words[0] = self.python  # the app's interpreter, whatever PATH holds
        inherited = accounts.environment(self.inherited, settings.user, settings.group)
        return Command(
            argv=tuple(words),
            program=label.split()[0] if label.split() else "",
            environment=self.loaded.child_environment(inherited, settings.environment),
            directory=str(self.directory / (directory or ".")),
            user=settings.user,
            group=settings.group,
            umask=settings.umask,
            limits=settings.limits,
        )

    def _on_reload(
        self, program: schema.Program, command: Command
    ) -> Literal["overlap", "restart", "keep"]:
        if program.on_reload != "auto":
            return program.on_reload
        program_file = command.argv[0]
        runs_our_code = os.path.basename(program_file).startswith("python") or (
            "/" in program_file
            and (self.directory / program_file).resolve().is_relative_to(self.directory)
        )
        return "restart" if runs_our_code else "keep"
