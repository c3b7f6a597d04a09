"""The living processes: where they are born, and how a message finds the one it is about."""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from chansup.protocol import launch, scoreboard
from chansup.protocol.notify import SOCKET_VARIABLE
from chansup.protocol.scoreboard import Scoreboard
from chansup.supervisor import guard
from chansup.supervisor.errors import SpawnError
from chansup.supervisor.generation import Generation, PoolSpecification
from chansup.supervisor.guard import Guard
from chansup.supervisor.logs import LineReader, LogWriter, RecentLines
from chansup.supervisor.notify import NotifySocket
from chansup.supervisor.process import Process
from chansup.supervisor.spawn import Command, account_of, spawn

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)


@dataclass(frozen=True)
class Inheritance:
    """A listening socket for a child, and what the child must know of it."""

    descriptor: int
    address: str
    steered: bool


class Processes:
    """Every process that runs, by pid."""

    def __init__(self, log: LogWriter, run: str, guard: Guard, notify: NotifySocket) -> None:
        self._log = log
        self._run = run
        self._guard = guard
        self._notify = notify
        self._by_pid: dict[int, Process] = {}

    def alive(self) -> Iterable[Process]:
        """Return the processes that run now."""
        return list(self._by_pid.values())

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

    def take_notice(self, pid: int, fields: dict[str, str]) -> None:
        """Take a message of the notify protocol."""
        process = self.of(pid)
        if process is None:
            return
        if "STATUS" in fields:
            process.status = fields["STATUS"][:200]
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
    ) -> Process:
        """Start one process of `specification` for `slot`. Raises SpawnError."""
        command = self._command(slot, number, specification, generation, listeners)
        inherited = [inheritance.descriptor for inheritance in listeners]
        board = _new_board() if specification.launcher else None
        try:
            cells = None if board is None else Scoreboard(board)
            child = spawn(command, inherited, [] if board is None else [board])
        finally:
            if board is not None:
                os.close(board)
        self._guard.watch(child.pid)
        reader = LineReader(
            child.output,
            lambda lines: self._print(slot, child.pid, lines, recent),
            crowded=self._log.crowded,
        )

        def ended(process: Process) -> None:
            del self._by_pid[process.pid]
            self._guard.forget(process.pid)
            reader.close()  # its last words first, then what follows from its end
            on_exit(process)

        process = Process(slot, specification, generation, child, cells, ended, on_leave)
        self._by_pid[process.pid] = process
        reader.start(asyncio.get_running_loop())
        return process

    def _command(
        self,
        slot: str,
        number: int,
        specification: PoolSpecification,
        generation: Generation,
        listeners: Sequence[Inheritance],
    ) -> Command:
        """Return the command of one process, with all that its environment tells it."""
        account = account_of(specification.command)
        if account is not None:
            self._notify.allow(account.user)
        environment = {
            SOCKET_VARIABLE: self._notify.address,
            guard.VARIABLE: self._run,
            "CHANSUP_POOL": specification.name,
            "CHANSUP_SLOT": slot,
            "CHANSUP_GENERATION": str(generation.number),
        }
        if specification.launcher:
            document = _launch(number, specification, generation, listeners)
            environment[launch.VARIABLE] = launch.encode(document)
        return _for_slot(specification.command, environment, slot, specification.launcher)

    def _print(self, slot: str, pid: int, lines: list[str], recent: RecentLines) -> None:
        now = time.time()
        recent.append(slot, pid, lines, now)
        self._log.write(slot, pid, lines, now)


def _new_board() -> int:
    try:
        return scoreboard.create()
    except OSError as error:
        raise SpawnError(f"cannot start a process: {error.strerror}") from None


def _for_slot(command: Command, environment: dict[str, str], slot: str, launcher: bool) -> Command:
    argv = (*command.argv, "--slot", slot) if launcher else command.argv  # for those who read ps
    return replace(command, argv=argv, environment={**command.environment, **environment})


def _launch(
    number: int,
    specification: PoolSpecification,
    generation: Generation,
    listeners: Sequence[Inheritance],
) -> launch.Launch:
    config = generation.config
    interface = config.interface
    assert interface is not None
    rollout = config.rollout
    return launch.Launch(
        pool=specification.name,
        slot=number,
        generation=generation.number,
        server=interface.server,
        application=config.app.asgi or config.app.wsgi or "",
        gateway="asgi" if config.app.asgi else "wsgi",
        directory=specification.command.directory,
        listeners=[
            launch.Listener(place, inherited.address, inherited.steered, interface.backlog)
            for place, inherited in enumerate(listeners, FIRST_DESCRIPTOR)
        ],
        options=interface.options,
        drain=launch.Drain(
            settle=rollout.settle,
            spread=rollout.drain_spread,
            keep_alive=rollout.keep_alive,
            timeout=specification.stop_timeout,
        ),
        health_path=interface.health_path,
        heartbeat_interval=min(1.0, specification.liveness_timeout / 4 or 1.0),
        scoreboard_fd=FIRST_DESCRIPTOR + len(listeners),
    )
