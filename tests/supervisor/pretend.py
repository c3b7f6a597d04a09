"""A whole site whose processes only pretend to run, so that rollouts take no time."""

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from chansup.clock import Moment
from chansup.config import load
from chansup.protocol import roster, status
from chansup.protocol.roster import Roster
from chansup.protocol.states import Event, State, after
from chansup.supervisor.carry.holder import Holder
from chansup.supervisor.plan.building import build
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.plan.specification import PoolSpecification
from chansup.supervisor.process.process import Exit, Process
from chansup.supervisor.process.roster_pipe import RosterPipe
from chansup.supervisor.site import Site
from chansup.supervisor.stats.ledger import Ledger
from tests.supervisor.carry.child import Child

PATIENCE = 30.0  # seconds: those that crash again and again pause for longer and longer


class PretendProcess(Process):
    """A process without a child. It ends as soon as it is told to."""

    def __init__(
        self,
        number: int,
        slot: str,
        specification: PoolSpecification,
        generation: Generation,
        on_exit: Callable[[Process], None],
        on_leave: Callable[[Process], None],
    ) -> None:
        self.slot, self.pid = slot, number
        self.specification, self.generation = specification, generation
        self.began, self.started_monotonic = Moment(), 0.0
        self.state = after(State.GONE, Event.SPAWNED)
        self.scoreboard = None
        self.greeted = {}
        self.status = self.exit = self.draining_since = None
        self.late = self.hung = self.watchdog = False
        self.ready, self.accepts_no_more = asyncio.Event(), asyncio.Event()
        self.gone, self.settled = asyncio.Event(), asyncio.Event()
        self.ended = self.gone
        self._on_exit, self._on_leave = on_exit, on_leave
        self.address = f"/run/w{number}.sock" if specification.serves else None
        self.signals: list[tuple[int, Roster | None]] = []  # with the roster at that moment
        self.lives_on = False  # it takes its time after SIGTERM
        self.holds = 0  # WebSockets
        self.reader: socket.socket | None = None
        self.heard: list[Roster] = []
        self._rest = b""
        self.child: Child | None = None  # what it says of WebSockets that outlive it
        if specification.relays:
            self.roster_pipe = RosterPipe()
            self.reader = self.roster_pipe.theirs.dup()
            self.reader.setblocking(False)
            self.roster_pipe.theirs.close()

    @property
    def websockets(self) -> int:
        """How many it holds."""
        return self.holds

    def listen(self) -> list[Roster]:
        """Return every roster that it was told so far."""
        assert self.reader is not None
        try:
            while received := self.reader.recv(65536):
                self._rest += received
        except BlockingIOError:
            pass
        *lines, self._rest = self._rest.split(b"\n")
        self.heard += [roster.decode(line) for line in lines]
        return self.heard

    def greet(self, worker: "PretendProcess") -> None:
        """Say that an app worker was greeted, as an interface process does."""
        if self.reader is not None and worker.address is not None and worker.has_booted:
            self.reader.send(roster.encode(roster.Greeted(worker.address)))

    def signal(self, number: int) -> None:
        if self.child is not None and not self.lives_on:
            self.child.park_all()
        told = [one for one in self.others() if one.reader is not None]
        self.signals.append((number, told[0].listen()[-1] if told else None))
        if not self.lives_on:
            asyncio.get_running_loop().call_soon(self.end, 0)

    def ask_to_end(self) -> None:
        self.signal(signal.SIGTERM)

    def kill_alone(self) -> None:
        self.end(-9)

    def kill(self) -> None:
        self.end(-9)

    def end(self, code: int) -> None:
        if self.exit is None:
            self.exit = Exit(code)
            self.state = after(self.state, Event.EXITED)
            for event in (self.accepts_no_more, self.settled, self.gone):
                event.set()
            if self.roster_pipe is not None and self.reader is not None:
                self.listen()
                self.roster_pipe.close()
                self.reader.close()
                self.reader = None
            if self.child is not None:
                self.child.die()
            self._on_exit(self)

    others: Callable[[], "list[PretendProcess]"]


class PretendProcesses:
    """Stands in for `Processes`: every process becomes ready by itself unless told otherwise."""

    def __init__(self) -> None:
        self.born: list[PretendProcess] = []
        self.ledger = Ledger()
        self.holder = Holder(lambda text, level="info": None, 1000)
        self.boots: Callable[[PretendProcess], bool | None] = lambda process: True

    def alive(self) -> list[PretendProcess]:
        return [process for process in self.born if process.exit is None]

    def spawn(
        self,
        slot: str,
        number: int,
        specification: PoolSpecification,
        generation: Generation,
        listeners: Sequence[object],
        recent: object,
        on_exit: Callable[[Process], None],
        on_leave: Callable[[Process], None] = lambda process: None,
        on_gone: Callable[[Process], None] = lambda process: None,
        *,
        takes_over: bool = False,
    ) -> PretendProcess:
        process = PretendProcess(
            len(self.born) + 1, slot, specification, generation, on_exit, on_leave
        )
        process.others = self.alive
        if specification.carries:
            process.child = Child(self.holder, slot)
            process.carrier = process.child.carrier
            process.child.begin()
        self.born.append(process)

        def boot() -> None:
            boots = self.boots(process)
            if boots:
                process.became_ready()
                for other in self.alive():
                    process.greet(other)
                    other.greet(process)
            elif boots is False:
                process.end(1)

        asyncio.get_running_loop().call_later(0.001, boot)
        return process


class Nothing:
    """Stands in for addresses and the log: takes everything, does nothing."""

    has_choice = False

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments, **more: []

    async def open(self, *arguments: object) -> list[str]:
        return []


class NoSocket(Nothing):
    """Stands in for the socket of the hub."""

    def open(self, users: object, *, is_used: bool) -> None:  # type: ignore[override]
        pass


class Pretended:
    """A site of a config file, with its processes."""

    def __init__(self, path: Path, config: str) -> None:
        self.path = path
        self.events: list[status.Event] = []
        self.write(config)
        self.processes = PretendProcesses()
        anything: Any = Nothing()
        processes: Any = self.processes
        generation = build(1, load.load(path, {}), {})
        told: Any = self.events.append
        self.site = Site(generation, {}, processes, anything, NoSocket(), anything, told)  # type: ignore[arg-type]

    def write(self, config: str) -> None:
        """Write the config file anew."""
        self.path.write_text(config)

    async def start(self) -> None:
        """Start it, and wait until everything is ready."""
        self.site.start()
        await self.until(self.is_ready)
        await self.site.roster.published()

    def is_ready(self) -> bool:
        """Whether every pool is."""
        return all(pool.available.is_set() for pool in self.site.pools.values())

    async def reload(self, config: str | None = None) -> str:
        """Roll the config file out; return the outcome."""
        if config is not None:
            self.write(config)
        rolling = self.site.rollouts.begin(self.events.append)
        await asyncio.wait_for(rolling, PATIENCE)
        assert self.site.rollout is not None
        await asyncio.sleep(0.01)
        return self.site.rollout.outcome

    async def until(self, happened: Callable[[], Any]) -> None:
        """Wait until something is true."""
        async with asyncio.timeout(PATIENCE):
            while not happened():
                await asyncio.sleep(0.001)

    async def stop(self) -> None:
        """Stop it all."""
        loop = asyncio.get_running_loop()
        await self.site.stop(loop.time() + 5, asyncio.Event())

    def of(self, pool: str) -> list[PretendProcess]:
        """Return the processes of a pool that live."""
        return [one for one in self.processes.alive() if one.specification.name == pool]

    def told(self) -> Roster:
        """Return the roster that every interface process was told last."""
        newest = [one.listen()[-1] for one in self.of("interface") if one.reader is not None]
        assert newest
        assert all(one == newest[0] for one in newest)
        return newest[0]
