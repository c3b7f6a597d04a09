"""The end of a site: interface, workers, programs and tasks, and the hub, in this order."""

import asyncio
import signal
from collections.abc import Mapping
from typing import Any, Protocol

from chansup.supervisor.logs.levels import Level
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.pool import stop_order
from chansup.supervisor.pool.pool import Pool
from chansup.supervisor.pool.tasks import Task
from chansup.supervisor.process.boot import UNDEAD
from chansup.supervisor.process.process import Process
from chansup.supervisor.sockets.addresses import Addresses
from chansup.supervisor.sockets.hub_socket import HubSocket
from chansup.waiting import wait_for

# Of the time, cumulated; the last kind that there is gets all that is left
STOP_SHARES = {"interface": 0.6, "workers": 0.85, "programs": 0.95, "hub": 1.0}
HURRY_BEFORE = 2.0  # seconds before the end of its share, a launcher is asked to hurry


class StoppingHost(Protocol):
    """What the end asks of the site."""

    @property
    def generation(self) -> Generation:
        """The newest one that was rolled out whole."""

    @property
    def pools(self) -> Mapping[str, Pool]:
        """All that run."""

    @property
    def removing(self) -> list[Pool]:
        """Pools that the config has no more, while they stop."""

    @property
    def tasks(self) -> Mapping[str, Task]:
        """All that ever ran."""

    @property
    def addresses(self) -> Addresses:
        """The listening sockets of the interface."""

    @property
    def hub(self) -> HubSocket:
        """The socket of the hub."""

    def say(self, text: str, level: Level = "info") -> None:
        """Write a line to the log."""


def longest(site: StoppingHost) -> float:
    """Return how many seconds it may take, `stop_timeout` of pools included."""
    pools = [*site.pools.values(), *site.removing]
    own = sum(pool.specification.settings.stop_timeout or 0.0 for pool in pools)
    return site.generation.config.rollout.stop_timeout + own


class Stopping:
    """That of one site, by `deadline` (loop time). `hurried` takes the patience away.

    A pool with a `stop_timeout` of its own has that, even if everything takes longer then.
    """

    def __init__(self, site: StoppingHost, deadline: float, hurried: asyncio.Event) -> None:
        self._site = site
        self._deadline = deadline
        self._hurried = hurried
        self._refusing: asyncio.Task[None] | None = None

    async def carry_out(self) -> None:
        """Stop everything; returns when it is gone, or cannot be killed."""
        site = self._site
        running = [task for task in site.tasks.values() if task.process is not None]
        ending = asyncio.gather(*(task.stop() for task in running))
        loop = asyncio.get_running_loop()
        begun = loop.time()
        late = 0.0  # by those that had a longer time of their own
        for kind, share in STOP_SHARES.items():
            order = [site.pools[name] for name in site.generation.pools if name in site.pools]
            order += [pool for pool in [*site.pools.values(), *site.removing] if pool not in order]
            stage = [pool for pool in reversed(order) if pool.kind == kind]
            if kind == "hub":
                site.hub.ignore()  # nobody is left who could need it
            planned = begun + (self._deadline - begun) * (1.0 if self._is_last(kind) else share)
            until = planned + late
            if kind == "programs":
                await self._stop_programs(stage, ending, running, until)
            else:
                await self._stop_by(stage, until)
            late = max(0.0, loop.time() - planned)

    async def _stop_programs(
        self,
        stage: list[Pool],
        ending: asyncio.Future[Any],
        running: list[Task],
        until: float,
    ) -> None:
        """Stop each program when those that need it are gone; the others at the same time.

        One that does not end takes only its part of the time, as many parts as must follow each
        other. Tasks go first, since they may need a program.
        """
        needed_by = stop_order.dependents(stage, self._site.generation)
        levels = stop_order.levels(needed_by)
        tasks = 0 if ending.done() else 1
        now = asyncio.get_running_loop().time
        begun = now()
        part = max(0.0, until - begun) / (tasks + 1 + max(levels.values(), default=0))
        if tasks:
            await self._end_tasks(ending, running, begun + part)
        gone = {pool: asyncio.Event() for pool in stage}

        async def stop(pool: Pool) -> None:
            for other in needed_by[pool]:
                await gone[other].wait()
            planned = begun + part * (tasks + levels[pool])
            late = max(0.0, now() - planned)
            await self._stop_by([pool], planned + part + late)
            gone[pool].set()

        await asyncio.gather(*(stop(pool) for pool in stage))

    async def _end_tasks(
        self,
        ending: asyncio.Future[Any],
        running: list[Task],
        deadline: float,
    ) -> None:
        left = deadline - asyncio.get_running_loop().time()
        impatience: asyncio.Future[Any] = asyncio.create_task(wait_for(left, self._hurried))
        await asyncio.wait([ending, impatience], return_when=asyncio.FIRST_COMPLETED)
        impatience.cancel()
        for task in running:
            if task.process is not None:
                task.process.kill()
        await asyncio.wait([ending], timeout=UNDEAD)

    def _is_last(self, kind: str) -> bool:
        kinds = list(STOP_SHARES)
        later = kinds[kinds.index(kind) + 1 :]
        return not any(pool.kind in later for pool in self._site.pools.values())

    async def _stop_by(self, pools: list[Pool], until: float) -> None:
        if not pools:
            return
        loop = asyncio.get_running_loop()
        own = max(pool.specification.settings.stop_timeout or 0.0 for pool in pools)
        until = max(until, loop.time() + own)
        stopped = asyncio.Event()

        async def stop() -> None:
            await asyncio.gather(*(pool.stop() for pool in pools))
            stopped.set()

        async def refuse() -> None:
            await asyncio.gather(*(process.accepts_no_more.wait() for process in listening))
            self._site.addresses.refuse()

        listening = [one for one in _processes_of(pools) if one.specification.binds]
        stopping = asyncio.create_task(stop())
        if listening:
            self._refusing = asyncio.create_task(refuse())
        patience = asyncio.create_task(wait_for(until - HURRY_BEFORE - loop.time(), stopped))
        impatience = asyncio.create_task(self._hurried.wait())
        await asyncio.wait([patience, impatience], return_when=asyncio.FIRST_COMPLETED)
        impatience.cancel()
        patience.cancel()
        if not stopped.is_set():
            self._hurry(pools)
            await wait_for(min(HURRY_BEFORE, max(until - loop.time(), 0.5)), stopped)
        if not stopped.is_set():
            for process in _processes_of(pools):
                self._site.say(
                    f"{process.slot}[{process.pid}]: did not end in time, killing it", "warning"
                )
                process.kill()
        await asyncio.wait([stopping], timeout=UNDEAD + HURRY_BEFORE)

    def _hurry(self, pools: list[Pool]) -> None:
        for process in _processes_of(pools):
            if process.specification.launcher:
                process.signal(signal.SIGTERM)


def _processes_of(pools: list[Pool]) -> list[Process]:
    return [process for pool in pools for slot in pool.all_slots() for process in slot.processes()]
