"""The living processes: where they are born, and how a message finds the one it is about."""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count

import msgspec

from chansup.config import carry, channels, readiness, relay, schema
from chansup.protocol import channel_layer, launch, run_mark, session_table, versions
from chansup.protocol.notify import LOST, SOCKET_VARIABLE
from chansup.supervisor.carry.holder import Holder
from chansup.supervisor.errors import SpawnError
from chansup.supervisor.logs.line_reader import LineReader
from chansup.supervisor.logs.log_writer import LogWriter
from chansup.supervisor.logs.recent_lines import RecentLines
from chansup.supervisor.logs.repetition import Repetition
from chansup.supervisor.plan.command import Command
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.plan.specification import PoolSpecification
from chansup.supervisor.process.guard import Guard
from chansup.supervisor.process.notify_sockets import NotifySockets
from chansup.supervisor.process.orphans import VARIABLE as MARK
from chansup.supervisor.process.orphans import Orphans
from chansup.supervisor.process.process import Process
from chansup.supervisor.process.resources import FIRST_DESCRIPTOR, Inheritance, ProcessResources
from chansup.supervisor.process.spawn import CANNOT_RUN, account_of, spawn
from chansup.supervisor.sockets.hub_socket import HubSocket
from chansup.supervisor.sockets.worker_sockets import WorkerSockets
from chansup.supervisor.stats.ledger import Ledger

_READY_SHARE = 0.8  # of start_timeout that the app has to answer: the launcher says why, not we


class Processes:
    """Every process that runs, by pid."""

    def __init__(
        self,
        log: LogWriter,
        run: str,
        guard: Guard,
        notify: NotifySockets,
        sockets: WorkerSockets,
        hub: HubSocket,
        holder: Holder,
    ) -> None:
        """Make the place for them. `hub` is where the hub listens, if there is one."""
        self.holder = holder  # of WebSockets that outlive the process that has them
        self._log = log
        self._run = run
        self._guard = guard
        self._notify = notify
        self._sockets = sockets
        self._hub = hub
        self._sessions: int | None = None  # which app worker knows which session
        self._hub_ledger: int | None = None  # what a hub that is killed leaves to the next one
        self._by_pid: dict[int, Process] = {}
        self._orphans = Orphans(run, lambda pid: self.knows(pid) or pid == guard.pid)
        self._numbers = count(1)
        self._refusals: dict[str, Repetition] = {}  # by slot
        self.ledger = Ledger()

    def alive(self) -> list[Process]:
        """Return the processes that run now."""
        return list(self._by_pid.values())

    def look_for_orphans(self) -> None:
        """Look who fell to the supervisor, and end what nobody else will."""
        living = {process.mark for process in self._by_pid.values()}
        self._orphans.look(living, asyncio.get_running_loop().time())

    def knows(self, pid: int) -> bool:
        """Whether `pid` is a child that somebody here waits for."""
        return pid in self._by_pid

    def reap(self, pid: int) -> None:
        """Take the end of a known child."""
        if process := self._by_pid.get(pid):
            process.reap()

    def of(self, pid: int) -> Process | None:
        """Return the process that `pid` is, or in whose group it runs."""
        if process := self._by_pid.get(pid):
            return process
        try:
            return self._by_pid.get(os.getpgid(pid))
        except ProcessLookupError:
            return None

    def _on_message(self, process: Process, pid: int, fields: dict[str, str]) -> None:
        """Take a message that `pid` sent to the notify socket of `process`."""
        if self.of(pid) is not process:
            return
        if "STATUS" in fields:
            process.status = fields["STATUS"][:200]
        if LOST in fields:
            process.lost = fields[LOST][:200]
        if fields.get("WATCHDOG") == "1":
            process.watchdog = True
            process.signs_of_life += 1
        if fields.get("READY") == "1" and process.specification.ready == "notify":
            process.became_ready()
        if fields.get("STOPPING") == "1":
            process.stopped_accepting()

    def spawn(
        self,
        slot: str,
        number: int,
        specification: PoolSpecification,
        generation: Generation,
        listeners: Sequence[Inheritance],
        recent: RecentLines,
        on_exit: Callable[[Process], None],
        on_leave: Callable[[Process], None] = lambda process: None,
        on_gone: Callable[[Process], None] = lambda process: None,
        *,
        takes_over: bool = False,
    ) -> Process:
        """Start one process of `specification` for `slot`. Raises SpawnError.

        `takes_over`: from the hub that listens there now.
        """
        users = self._users_of_the_interface(generation)
        mark = f"{self._run}.{next(self._numbers)}"
        with ProcessResources(
            specification, listeners, self._sockets, users, self._notify
        ) as resources:
            command = self._command(slot, number, specification, generation, resources, users)
            command = replace(command, environment={**command.environment, MARK: mark})
            inherited = [inheritance.descriptor for inheritance in resources.listeners]
            if specification.kind == "hub":
                command = self._of_the_hub(command, resources, takes_over)
            child = spawn(command, inherited, resources.others)
        self._guard.watch(child.pid)
        reader = LineReader(
            child.output,
            lambda lines: self._print(slot, child.pid, lines, recent, reader.continues),
            crowded=self._log.crowded,
        )

        def ended(process: Process) -> None:
            del self._by_pid[process.pid]
            if process.carrier is not None:
                self.holder.ended(process.carrier)
            self.ledger.keep(process)
            resources.release()
            reader.catch_up()  # its last words first, then what follows from its end
            on_exit(process)

        def gone(process: Process) -> None:
            self._guard.forget(process.pid)
            reader.close()
            on_gone(process)

        process = Process(
            slot,
            specification,
            generation,
            child,
            resources,
            self._orphans,
            mark,
            ended,
            on_leave,
            gone,
        )
        self._by_pid[process.pid] = process
        if process.carrier is not None:
            process.carrier.name = f"{slot}[{process.pid}]"
            self.holder.add(process.carrier)
        loop = asyncio.get_running_loop()
        reader.start(loop)
        resources.notify.start(loop, partial(self._on_message, process), process.was_crowded)
        return process

    def _users_of_the_interface(self, generation: Generation) -> set[int]:
        """Return who may connect to app workers: the interface as it is, and as it will be."""
        specifications = [one.specification for one in self._by_pid.values() if one.roster_pipe]
        if "interface" in generation.pools:
            specifications.append(generation.pools["interface"])
        users = {os.geteuid()}
        for command in {id(one.command): one.command for one in specifications}.values():
            with suppress(SpawnError):  # its own start will say so
                account = account_of(command)
                users.update({account.user} if account else ())
        return users

    def _command(
        self,
        slot: str,
        number: int,
        specification: PoolSpecification,
        generation: Generation,
        resources: ProcessResources,
        users: set[int],
    ) -> Command:
        """Return the command of one process, with all that its environment tells it."""
        environment = {
            SOCKET_VARIABLE: resources.notify.address,
            run_mark.VARIABLE: self._run,
            "CHANSUP_POOL": specification.name,
            "CHANSUP_SLOT": slot,
            "CHANSUP_GENERATION": str(generation.number),
            channel_layer.VARIABLE: channel_layer.encode(generation.layer(self._hub.address)),
        }
        if specification.launcher:
            document = _launch(number, specification, generation, resources, users)
            hub = self.ledger.hub(self.alive())
            if hub is not None:
                document = msgspec.structs.replace(document, hub_speaks=hub.speaks)
            if document.relay is not None:
                if self._sessions is None:
                    self._sessions = session_table.create()
                lent = resources.lend(self._sessions)
                inherited = msgspec.structs.replace(document.relay, sessions_fd=lent)
                document = msgspec.structs.replace(document, relay=inherited)
            environment[launch.VARIABLE] = launch.encode(document)
        return _for_slot(specification.command, environment, slot, specification.launcher)

    def _has_hub_since_before(self, moment: float) -> bool:
        """Whether a hub runs that was started before `moment` (CLOCK_MONOTONIC)."""
        return any(
            process.specification.kind == "hub" and process.started_monotonic < moment
            for process in self._by_pid.values()
        )

    def _of_the_hub(
        self, command: Command, resources: ProcessResources, takes_over: bool
    ) -> Command:
        report = str(resources.place_of_other(0))
        if self._hub_ledger is None:
            self._hub_ledger = os.memfd_create("chansup-hub-ledger")
        ledger = str(resources.lend(self._hub_ledger))
        more = ["--socket", self._hub.address, "--report", report, "--ledger", ledger]
        if takes_over:
            more.append("--takeover")
            former = self._hub.former
            if former is not None and self._has_hub_since_before(self._hub.opened):
                place = resources.lend(former.place)
                proof = resources.lend(former.listener.fileno())
                more += ["--former", f"/proc/self/fd/{place}", "--proof", str(proof)]
        return replace(command, argv=(*command.argv, *more))

    def _print(
        self, slot: str, pid: int, lines: list[str], recent: RecentLines, continues: bool
    ) -> None:
        now = time.time()
        recent.append(slot, pid, lines, now)
        if lines[0].startswith(CANNOT_RUN):  # one that never was: the same again at each attempt
            repetition = self._refusals.setdefault(slot, Repetition())
            lines = [said for line in lines if (said := repetition.filter(line)) is not None]
        if lines:
            self._log.write(slot, pid, lines, now, continues)


def _for_slot(command: Command, environment: dict[str, str], slot: str, launcher: bool) -> Command:
    argv = (*command.argv, "--slot", slot) if launcher else command.argv  # for those who read ps
    return replace(command, argv=argv, environment={**command.environment, **environment})


def _launch(
    number: int,
    specification: PoolSpecification,
    generation: Generation,
    resources: ProcessResources,
    users: set[int],
) -> launch.Launch:
    config = generation.config
    rollout = config.rollout
    document = launch.Launch(
        pool=specification.name,
        slot=number,
        generation=generation.number,
        server="relay",
        application="",
        gateway="asgi",
        directory=specification.command.directory,
        listeners=[
            launch.Listener(place, inherited.address, inherited.steered)
            for place, inherited in enumerate(resources.listeners, FIRST_DESCRIPTOR)
        ],
        options={},
        system_checks=config.app.system_checks,
        drain=launch.Drain(
            settle=rollout.settle,
            spread=rollout.drain_spread,
            keep_alive=rollout.keep_alive,
            timeout=specification.stop_timeout,
        ),
        heartbeat_interval=min(1.0, specification.liveness_timeout / 4 or 1.0),
        scoreboard_fd=resources.place_of_other(0),
    )
    document = msgspec.structs.replace(document, ready_request=_ready_request(specification))
    if isinstance(specification.settings, schema.Workers):
        if specification.consumes:
            bulletin = resources.place_of_other(1)
            return _channel_worker(document, specification.settings, generation, bulletin)
        return _app_worker(document, specification.settings, config, users)
    assert isinstance(specification.settings, schema.Interface)
    interface = msgspec.structs.replace(
        document,
        server=specification.settings.server,
        listeners=[
            msgspec.structs.replace(listener, backlog=specification.settings.backlog)
            for listener in document.listeners
        ],
        options=specification.settings.options,
        health_path=specification.settings.health_path,
    )
    if specification.relays:
        inherited = launch.Relay(resources.place_of_other(1), resources.place_of_other(2))
        return msgspec.structs.replace(interface, relay=inherited)
    return msgspec.structs.replace(
        interface,
        application=config.app.asgi or config.app.wsgi or "",
        gateway="asgi" if config.app.asgi else "wsgi",
        carry=_carry(specification.settings, config, resources.place_of_other(1))
        if specification.carries
        else None,
    )


def _carry(interface: schema.Interface, config: schema.Config, channel: int) -> launch.Carry:
    """Return what a process is told whose WebSockets outlive it."""
    return launch.Carry(
        channel_fd=channel,
        version=versions.CARRY.newest,
        handover=interface.handover,
        redeliver=interface.redeliver,
        routes=carry.routes(interface),
        rules=carry.rules(config),
        handover_rate=interface.handover_rate,
    )


def _ready_request(specification: PoolSpecification) -> launch.ReadyRequest | None:
    """Return what the app is asked before a process of it is ready."""
    ready = getattr(specification.settings, "ready", None)
    if ready is None or specification.relays or specification.consumes:
        return None
    asked = readiness.parse_of_app(ready)
    timeout = specification.start_timeout * _READY_SHARE
    return launch.ReadyRequest(asked.host, asked.target, timeout)


def _app_worker(
    document: launch.Launch, workers: schema.Workers, config: schema.Config, users: set[int]
) -> launch.Launch:
    app = relay.application(config, document.pool)
    if app is not None:  # the rules see to it
        document = msgspec.structs.replace(document, application=app.reference, gateway=app.gateway)
    worker = launch.AppWorker(
        concurrency=relay.concurrency(config, document.pool),
        threads=relay.threads(workers),
        peers=sorted(users),
        disconnect_timeout=workers.disconnect_timeout,
    )
    return msgspec.structs.replace(document, app_worker=worker)


def _channel_worker(
    document: launch.Launch, workers: schema.Workers, generation: Generation, bulletin: int
) -> launch.Launch:
    app = channels.application(generation.config, document.pool)
    assert app is not None  # the rules see to it
    dead_letters = workers.dead_letters
    if dead_letters is not None:  # beside the config file: they outlive a release
        dead_letters = str(generation.loaded.path.parent / dead_letters)
    worker = launch.ChannelWorker(
        channels=workers.channels,
        only=workers.only_channels,
        exclude=workers.exclude_channels,
        concurrency=workers.concurrency or channels.DEFAULT_CONCURRENCY,
        redeliver=workers.redeliver,
        max_deliveries=workers.max_deliveries,
        dead_letters=dead_letters,
        layer=workers.layer,
        bulletin_fd=bulletin,
    )
    return msgspec.structs.replace(
        document, server="channels", application=app.reference, channel_worker=worker
    )
