"""The roster: telling the interface processes of relay mode which app workers there are.

It is derived again from the whole site whenever something changed, at most once in a turn of the
event loop, and sent when it says something new.

Routes change all at once. While a rollout replaces app workers, those of the former generation
count; as soon as every pool that serves runs the new one, its routes do.
"""

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Protocol

import msgspec

from chansup.config import relay, schema
from chansup.protocol import roster
from chansup.protocol.roster import MAX_POOLS, Greeted, Roster, Worker
from chansup.protocol.states import State
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.plan.specification import PoolSpecification
from chansup.supervisor.pool.pool import Pool
from chansup.supervisor.pool.single_moves import SingleMoves
from chansup.supervisor.pool.slot import Slot
from chansup.supervisor.process.process import Process
from chansup.supervisor.process.processes import Processes

NO_ROW = 0  # of pools beyond those that a relay board has rows for


class Advancing(Protocol):
    """A rollout, as far as routes and workers depend on it."""

    @property
    def generation(self) -> Generation:
        """The new one."""

    @property
    def destination(self) -> Generation:
        """The generation that it brings every slot to."""

    @property
    def runs(self) -> bool:
        """Whether it has not come to its outcome yet."""

    @property
    def advances(self) -> bool:
        """Whether it is on its way to the new generation."""


class Greeter(Protocol):
    """Hears which workers an interface process has greeted."""

    def take(self, interface: Process, said: Greeted) -> None:
        """Take what it says of one."""


class RosterHost(Protocol):
    """What the roster asks of the site."""

    pools: dict[str, Pool]
    removing: list[Pool]

    @property
    def generation(self) -> Generation:
        """The newest one that was rolled out whole."""

    @property
    def rollout(self) -> Advancing | None:
        """The newest one."""

    @property
    def greetings(self) -> Greeter:
        """Who hears what was greeted."""

    @property
    def processes(self) -> Processes:
        """Those that run."""


class RosterKeeper:
    """Knows the roster, and tells it to whoever relays."""

    def __init__(self, site: RosterHost) -> None:
        self.rows: dict[str, int] = {}  # of each pool that ever served
        self._site = site
        self._in_force = site.generation  # whose routes count
        self._roster = Roster([], [])
        self._line = roster.encode(self._roster)
        self._due = False
        self._unsent = False
        self.single_moves = SingleMoves(self.changed)

    def changed(self) -> None:
        """Take notice that something may have changed. Cheap: called at every occasion."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._publish)

    async def published(self) -> None:
        """Wait until what changed has been sent."""
        if self._due:
            await asyncio.sleep(0)  # what was to be called soon comes first

    def tell(self, process: Process) -> None:
        """Bring a new process up to date."""
        if process.roster_pipe is not None:
            self._look()
            process.roster_pipe.listen(partial(self._take, process))
            process.roster_pipe.send(self._line)

    def _take(self, interface: Process, line: bytes) -> None:
        """Take what an interface process says; malformed messages are ignored."""
        try:
            said = roster.decode_report(line)
        except msgspec.DecodeError:
            return
        if isinstance(said, Greeted):
            self._site.greetings.take(interface, said)
        else:
            self.single_moves.take(said)

    def _publish(self) -> None:
        self._due = False
        self._look()
        if self._unsent:
            self._unsent = False
            for process in self._site.processes.alive():
                if process.roster_pipe is not None:
                    process.roster_pipe.send(self._line)

    def _look(self) -> None:
        """Derive the roster again."""
        now = self._derive()
        if now != self._roster:
            self._roster, self._line = now, roster.encode(now)
            self._unsent = True

    def _derive(self) -> Roster:
        self._in_force = self._generation_in_force()
        pools = {
            name: self._pool(specification, routes_of(specification.settings))
            for name, specification in self._in_force.pools.items()
            if specification.serves
        }
        workers = []
        for name, slot, process in self._working():
            state = _state(slot, process)
            # One that was dismissed before it served is nobody's.
            if state is not None:
                workers.append(_worker(name, process, state, self._leaves_soon(process)))
                if name not in pools:  # gets nothing any more, or not yet
                    pools[name] = self._pool(process.specification, [])
        loaded = self._in_force.loaded
        pages = relay.error_pages(loaded.config, loaded.path.parent)
        return Roster(list(pools.values()), workers, pages, self.single_moves.marks)

    def _leaves_soon(self, process: Process) -> bool:
        """Whether a rollout or a restart is to replace it."""
        rollout = self._site.rollout
        if rollout is not None and rollout.runs:
            return process.generation is not rollout.destination
        return process.leaves_soon

    def _working(self) -> Iterator[tuple[str, Slot, Process]]:
        """Yield the app workers that have booted and are not gone, with where they belong."""
        for pool in [*self._site.pools.values(), *self._site.removing]:
            for slot in pool.all_slots():
                for process in slot.processes():
                    if process.address is not None and process.alive and process.has_booted:
                        yield pool.name, slot, process

    def _pool(self, specification: PoolSpecification, routes: list[roster.Route]) -> roster.Pool:
        settings = specification.settings
        assert isinstance(settings, schema.Workers)
        return roster.Pool(
            name=specification.name,
            row=self._row(specification.name),
            routes=routes,
            queue_limit=settings.queue_limit,
            queue_timeout=settings.queue_timeout,
            worker_timeout=settings.worker_timeout,
            websocket_timeout=settings.websocket_timeout,
            handover_rate=settings.handover_rate,
            drain_spread=self._in_force.config.rollout.drain_spread,
            stop_timeout=specification.stop_timeout,
            sticky=settings.sticky,
            rules=relay.handover_rules(self._in_force.config),
        )

    def _row(self, name: str) -> int:
        if name not in self.rows:
            if len(self.rows) >= MAX_POOLS - 1:
                return NO_ROW
            self.rows[name] = len(self.rows) + 1
        return self.rows[name]

    def _generation_in_force(self) -> Generation:
        """Return the generation whose routes count: it changes when all app workers have."""
        newest, rollout = self._site.generation, self._site.rollout
        if rollout is not None and rollout.advances:
            if _works(rollout.generation, self._site.pools):
                return rollout.generation
            return self._in_force
        # What still relays while the site leaves relay mode goes by the last routes there were.
        return newest if newest.relays else self._in_force


def _works(generation: Generation, pools: dict[str, Pool]) -> bool:
    """Whether every pool of it that serves runs its code."""
    serving = [name for name, one in generation.pools.items() if one.serves]
    return bool(serving) and all(
        name in pools
        and pools[name].available.is_set()
        and not pools[name].slots_not_of(generation)
        for name in serving
    )


def _state(slot: Slot, process: Process) -> roster.WorkerState | None:
    """Return what the interface is told of an app worker that has booted; None: nothing."""
    ready = slot.serves and process is slot.current
    if process.apart and process is slot.successor and process.state is State.READY:
        ready = True  # for new interface processes, which can use no other one
    process.in_service = process.in_service or ready
    if ready:
        return "ready"
    if process.in_service:
        return "draining"
    return "joining" if process.state in (State.STARTING, State.READY) else None


def routes_of(settings: schema.Pool) -> list[roster.Route]:
    """Return the routes of a pool, with what it says for all of them filled in."""
    assert isinstance(settings, schema.Workers)
    return [roster.Route(one.route, one.handover, one.redeliver) for one in relay.served(settings)]


def _worker(pool: str, process: Process, state: roster.WorkerState, leaves_soon: bool) -> Worker:
    assert process.address is not None
    return Worker(
        name=process.slot,
        pool=pool,
        pid=process.pid,
        generation=process.generation.number,
        address=process.address,
        state=state,
        leaves_soon=leaves_soon,
        websockets=process.websockets,
    )
