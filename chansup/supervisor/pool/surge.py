"""Replacing the processes of one pool by those of a new generation, `surge` slots at a time."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Protocol

from chansup.protocol.scoreboard import IN_PROGRESS, WEBSOCKETS_OPEN
from chansup.supervisor.errors import SlotRemovedError, StartFailedError
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.plan.specification import PoolSpecification
from chansup.supervisor.pool.announcements import Announcements
from chansup.supervisor.pool.pool import Pool
from chansup.supervisor.pool.replacement import replace
from chansup.supervisor.pool.slot import Slot
from chansup.supervisor.pool.turns import Turn, Turns
from chansup.supervisor.process.process import Process


class SurgeHost(Protocol):
    """What a surge asks of the site."""

    def desired_in(self, specification: PoolSpecification) -> int:
        """Return how many slots a pool gets."""


class Surge:
    """How one rollout replaces the slots of its pools."""

    def __init__(
        self, site: SurgeHost, generation: Generation, announcements: Announcements
    ) -> None:
        self._site = site
        self._generation = generation
        self._tell = announcements

    async def carry_out(self, pool: Pool) -> None:
        """Bring every slot of `pool` to the new generation. Raises StartFailedError."""
        specification = self._generation.pools[pool.name]
        pool.specification = specification
        pool.resize(self._site.desired_in(specification), self._generation)
        surge = asyncio.Semaphore(self._generation.config.rollout.surge)
        failed = asyncio.Event()

        waiting = list(pool.slots)
        turns = Turns()

        async def replace_next() -> None:
            async with surge:
                slot = self._next(pool, waiting)
                waiting.remove(slot)
                if not failed.is_set() and not slot.runs(self._generation):
                    with turns.take() as turn:
                        try:
                            await self._replace_slot(slot, turn)
                        except StartFailedError:
                            failed.set()
                            raise
                        except SlotRemovedError:
                            pass

        # All of those under way come to their end, then the first failure counts.
        results = await _all(replace_next() for _ in pool.slots)
        for slot in pool.slots:
            if slot.runs(self._generation) and not slot.serves:
                await self.booted(slot)
        await pool.wait_drained()
        for failure in results:
            if failure is not None:
                raise failure

    def _next(self, pool: Pool, waiting: list[Slot]) -> Slot:
        """Return which of those that wait goes first: one whose new process is there already."""
        proven = [slot for slot in waiting if slot.has_prepared(self._generation)]
        return pool.first_to_replace(proven or waiting)

    async def _replace_slot(self, slot: Slot, turn: Turn) -> None:
        if not slot.has_prepared(self._generation):
            self._tell.progress(f"{slot.name}: starting", slot=slot, step="starting")

        def retiring(process: Process) -> None:
            held = f", with {_held_by(process)}" if _held_by(process) else ""
            message = f"{slot.name}: the old process drains{held}"
            self._tell.progress(message, slot=slot, step="retiring")
            turn.give()

        await replace(slot, self._generation, "reload", retiring, turn.come)
        lost = slot.current.lost if slot.current is not None else ""
        what = f", but {lost}: the messages and groups that it had are lost" if lost else ""
        self._tell.progress(f"{slot.name}: replaced{what}", slot=slot, step="replaced")

    async def booted(self, slot: Slot) -> None:
        """Wait until `slot` is filled. Raises StartFailedError."""
        await slot.booted()
        self._tell.progress(f"{slot.name}: ready", slot=slot, step="ready")


async def _all(work: Iterable[Awaitable[None]]) -> list[StartFailedError | None]:
    """Run everything to its end; return the failures, in order. Cancelling cancels all."""
    results = await asyncio.gather(*work, return_exceptions=True)
    failures: list[StartFailedError | None] = []
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, StartFailedError):
            raise result
        failures.append(result)
    return failures


def _held_by(process: Process) -> str:
    """Return what a process holds, for people: "2 requests, 30 WebSockets"; "" for nothing."""
    if process.scoreboard is None:
        return ""
    counts = {
        "request": int(process.scoreboard.read(IN_PROGRESS)),
        "WebSocket": int(process.scoreboard.read(WEBSOCKETS_OPEN)),
    }
    return ", ".join(f"{n} {name}{'s' * (n > 1)}" for name, n in counts.items() if n)
