"""Bringing every slot to a new generation, or back.

Declarative: a slot whose process is of another generation wants a replacement. So a crash, a
`scale` or a second reload in between needs no special case: whoever looks next sees the rest.

1. Open addresses that are new, run the tasks. Nothing that serves was touched.
2. Prove the code: in each pool one new process becomes ready, beside the old ones.
3. Replace, pool by pool in the order of start, `surge` slots of a pool at a time.
4. Stop pools and slots, and close addresses, that the new config does not have.

A failure in 1 or 2 leaves everything as it was. A failure in 3 takes the slots that were replaced
back to what they ran, if that code is still there.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol

from chansup.config.pools import HUB
from chansup.errors import ChansupError
from chansup.protocol.status import Event, RolloutStatus
from chansup.supervisor.errors import SlotRemovedError, StartFailedError
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.plan.specification import PoolSpecification
from chansup.supervisor.pool.announcements import Announcements, Outcome
from chansup.supervisor.pool.examination import ExaminationHost, examine
from chansup.supervisor.pool.host import Publisher
from chansup.supervisor.pool.pool import Pool
from chansup.supervisor.pool.replacement import prepare
from chansup.supervisor.pool.side_by_side import SideBySide, SideBySideHost, interface_first
from chansup.supervisor.pool.surge import Surge
from chansup.supervisor.pool.tasks import Task
from chansup.supervisor.pool.way_back import ChangingHost, WayBack
from chansup.supervisor.process.process import Process


class RolloutHost(SideBySideHost, ExaminationHost, ChangingHost, Protocol):
    """What a rollout asks of the site."""

    @property
    def roster(self) -> Publisher:
        """Who tells interface processes of app workers."""

    def task(self, name: str) -> Task:
        """Return the task of that name."""

    def new_pool(self, specification: PoolSpecification) -> Pool:
        """Make a pool that the former generation does not have."""


class Rollout:
    """One rollout, from the first check to its outcome."""

    def __init__(
        self,
        site: RolloutHost,
        generation: Generation,
        tell: Callable[[Event], None],
        *,
        renews: bool = False,
    ) -> None:
        """`renews`: the config is that of the former generation, and only what relays or serves
        is replaced.
        """
        self.site = site
        self.generation = generation
        self.outcome: Outcome = "running"
        self.started = time.time()
        self.duration = 0.0
        self.returns = False  # it failed, and takes back what it changed
        self._former = site.generation
        self._renews = renews
        self._side_by_side = SideBySide(site, generation)
        self._apart = False  # old and new processes do not speak with each other
        self._proves = False  # new workers may start that the interface before cannot speak to
        self._tell = Announcements(site, generation, tell)
        self._surge = Surge(site, generation, self._tell)
        self._begun = time.monotonic()

    # Questions

    @property
    def runs(self) -> bool:
        """Whether it has not come to its outcome yet."""
        return self.outcome == "running"

    @property
    def advances(self) -> bool:
        """Whether it is on its way to the new generation."""
        return self.runs and not self.returns

    @property
    def destination(self) -> Generation:
        """The generation that it brings every slot to."""
        return self._former if self.returns else self.generation

    def status(self) -> RolloutStatus:
        """Return where it stands."""
        running, told = self.runs, self._tell
        return RolloutStatus(
            generation=self.generation.number,
            outcome=self.outcome,
            done=told.done() if running else told.total() * (self.outcome == "succeeded"),
            total=told.total(),
            started=self.started,
            duration=time.monotonic() - self._begun if running else self.duration,
            message=told.message,
        )

    # Running it

    async def run(self) -> None:
        """Carry it out; never raises but CancelledError. `outcome` and `message` tell."""
        self._former = self.site.generation
        try:
            await self._advance()
        except StartFailedError as failure:
            await self._go_back(failure, failure.lines)
        except ChansupError as failure:
            await self._go_back(failure, [])
        except asyncio.CancelledError:
            self._dismiss_successors()
            self.supersede()
            raise
        except Exception as error:  # a defect must not leave the caller waiting for ever
            self.site.say_defect("a rollout", error)
            await self._go_back(ChansupError(f"a defect in chansup: {error!r}"), [])
        else:
            self._end("succeeded", f"generation {self.generation.number} runs everywhere")

    def supersede(self) -> None:
        """End it where it stands: something else continues from there."""
        self._end("aborted" if self.site.stopping else "superseded", "")

    async def _advance(self) -> None:
        interface = self.generation.config.interface
        opened: list[str] = []
        if interface is not None:
            slots = self.site.desired_in(self.generation.pools["interface"])
            opened = await self.site.addresses.open(interface, self._binds(), slots)
        try:
            await examine(self.site, self.generation)  # before a task changes anything
            self.site.open_hub(self.generation)
            await self._add_what_is_missing([HUB])  # whatever boots from here on may use it
            for name, task in {} if self._renews else self.generation.tasks.items():
                await self._add_what_is_missing(task.program.after)
                self._tell.progress(f"task {name} runs", step="task")
                await self.site.task(name).run(self.generation)
            self._keep_what_is_the_same()
            self._say_what_closes()
            self._proves = self._side_by_side.replaces_interface()
            await self._prove()
            if self._side_by_side.is_needed:
                await self._stand_side_by_side()
            await self.site.apply(self.generation)
        except BaseException:
            self._dismiss_successors()
            self.site.addresses.close(opened)
            raise
        if self._apart:
            await self._side_by_side.to_its_end(self._replace_all())
        else:
            await self._replace_all()
        self.site.generation = self.generation
        self.site.roster.changed()
        await self._stop_what_is_gone()

    async def _replace_all(self) -> None:
        # Again, if somebody scaled a pool that was done already.
        while self._unfinished():
            if self.site.stopping:
                raise asyncio.CancelledError
            for name in self._in_turn():
                if name in self.site.pools:
                    await self._surge.carry_out(self.site.pools[name])
                else:
                    await self._add(self.generation.pools[name])

    def replaces_interface_of(self, worker: Process) -> bool:
        """Whether `worker` is one of its own, and the interface follows."""
        return self.advances and self._proves and worker.generation is self.generation

    async def _stand_side_by_side(self) -> None:
        """Start all that serves beside the old processes, before any of these is touched."""
        self._apart = True
        self._tell.progress(
            "new workers and the present interface have no version of the relay in common: all new "
            "processes start beside the old ones, then the interface is replaced first",
            step="check",
        )
        for slots in self._side_by_side.slots():
            await self._side_by_side.prepare(slots)
            for slot in slots:
                self._tell.progress(f"{slot.name}: ready", slot=slot, step="ready")

    def _in_turn(self) -> list[str]:
        """Return the pools in the order in which they are replaced.

        Those whose processes serve, and will no more, come last: the interface leaves them first.
        """
        pools = self.site.pools
        if self._apart:
            return interface_first(list(self.generation.pools), pools)
        return sorted(
            self.generation.pools,
            key=lambda name: (
                name in pools
                and pools[name].specification.serves
                and not self.generation.pools[name].serves
            ),
        )

    def _binds(self) -> tuple[str, ...]:
        pool = self.generation.pools.get("interface")
        return pool.binds if pool is not None else ()

    def _pools_in_order(self) -> list[Pool]:
        return [self.site.pools[name] for name in self.generation.pools if name in self.site.pools]

    def _keep_what_is_the_same(self) -> None:
        for pool in self._pools_in_order():
            new = self.generation.pools[pool.name]
            for slot in pool.slots:
                process = slot.current
                if self._renews and not (new.relays or new.serves):
                    slot.adopt(self.generation)
                elif (
                    new.stays
                    and process is not None
                    and slot.successor is None
                    and not slot.runs(self.generation)
                    and new.runs_the_same_as(process.specification)
                ):
                    slot.adopt(self.generation)
                    self._tell.progress(
                        f"{slot.name} is the same, it stays", slot=slot, step="kept"
                    )

    def _say_what_closes(self) -> None:
        """Say it early if an interface is replaced that would hold WebSockets through a deploy."""
        pool = self.site.pools.get("interface")
        new = self.generation.pools.get("interface")
        if pool is None or new is None or not (pool.specification.relays and new.relays):
            return
        if pool.slots_not_of(self.generation) and self.site.desired_in(new):
            why = _what_changed(pool.specification, new)
            message = f"the interface itself changes ({why}), so its WebSockets will be closed"
            self._tell.progress(message, step="check")

    async def _prove(self) -> None:
        """Boot one new process in each pool before anything old is touched."""
        for pool in self._pools_in_order():
            new = self.generation.pools[pool.name]
            if new.on_reload != "overlap" or (new.relays and not pool.specification.relays):
                continue  # the latter would accept before there is a worker to relay to
            if new.relays and self._side_by_side.is_needed:
                continue  # it would accept before there are enough workers that it can speak to
            stale = pool.slots_not_of(self.generation)
            if stale and self.site.desired_in(self.generation.pools[pool.name]):
                slot = pool.first_to_replace(stale)
                self._tell.progress(f"{slot.name}: starting", slot=slot, step="starting")
                with suppress(SlotRemovedError):
                    async with slot.changing:
                        await prepare(slot, self.generation)
                    self._tell.progress(f"{slot.name}: ready", slot=slot, step="ready")

    def _unfinished(self) -> bool:
        """Whether a pool is missing, has the wrong size, or has slots of another generation."""
        return any(
            name not in self.site.pools
            or self.site.pools[name].specification is not specification
            or self.site.pools[name].desired != self.site.desired_in(specification)
            or self.site.pools[name].slots_not_of(self.generation)
            for name, specification in self.generation.pools.items()
        )

    async def _add_what_is_missing(self, names: Iterable[str]) -> None:
        """Have the pools ready that a task needs, before anything old is touched."""
        for name in names:
            specification = self.generation.pools.get(name)
            if specification is None:
                continue
            pool = self.site.pools.get(name)
            if pool is None or not pool.started:
                await self._add_what_is_missing(specification.after)
            if pool is None:
                await self._add(specification)
            elif not pool.started:
                pool.specification = specification
                await self._begin(pool)
            elif not pool.available.is_set():
                await self._boot_all(pool)

    async def _add(self, specification: PoolSpecification) -> None:
        self._tell.progress(f"{specification.name}: new pool", step="starting")
        await self._begin(self.site.new_pool(specification))

    async def _begin(self, pool: Pool) -> None:
        pool.resize(self.site.desired_in(pool.specification), self.generation)
        await self._boot_all(pool)

    async def _boot_all(self, pool: Pool) -> None:
        for slot in list(pool.slots):
            await self._surge.booted(slot)

    async def _stop_what_is_gone(self) -> None:
        gone = [name for name in self.site.pools if name not in self.generation.pools]
        for name in reversed(gone):
            self._tell.progress(f"{name}: stopping, the config has it no more", step="retiring")
            await self.site.remove_pool(name)
        self.site.addresses.close_all_but(self._binds())
        self.site.close_hub(self.generation)

    # Going back

    async def _go_back(self, failure: ChansupError, lines: list[str]) -> None:
        """Bring everything back to the former generation, as far as it can be; never raises."""
        if lines:
            self._tell.output(str(failure), lines)
        if self._apart and self._side_by_side.has_begun():
            message = (
                f"{failure}; rollback is impossible, for old and new processes do not speak with "
                "each other: run `chansup reload` again"
            )
            self._end("failed", message)
            return
        self.returns = True
        self.site.roster.changed()
        self._dismiss_successors()
        way = WayBack(self.site, self._former, self._tell)
        problems = await way.take()
        message = str(failure) + way.where_that_leaves()
        if problems:
            message += f"; the rollback failed: {', '.join(problems)}"
        self._end("failed", message)

    def _dismiss_successors(self) -> None:
        for pool in self.site.pools.values():
            for slot in pool.slots:
                if slot.has_prepared(self.generation):
                    slot.dismiss()

    def _end(self, outcome: Outcome, message: str) -> None:
        self.outcome = outcome
        self.duration = time.monotonic() - self._begun
        self._tell.result(outcome, message)


def _what_changed(old: PoolSpecification, new: PoolSpecification) -> str:
    """Return why an interface that relays cannot stay."""
    if old.identity[:1] != new.identity[:1]:
        return "chansup or its server was installed again, and has other code"
    former = {path: content for _, path, content in old.files}
    if changed := [path for _, path, content in new.files if content != former.get(path)]:
        return f"{' and '.join(changed)} changed"
    return "its settings are others"
