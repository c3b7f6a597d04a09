"""A rollout whose new processes do not speak with the old ones: both generations stand complete.

An old interface process can only relay to old app workers, a new one only to new ones. So all of
the new ones start beside the old ones first. Then the interface is replaced, and the old workers
leave when no interface process is left that needs them.
"""

import asyncio
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from typing import Protocol

from chansup.supervisor.errors import SlotRemovedError
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.plan.specification import PoolSpecification
from chansup.supervisor.pool.host import Host
from chansup.supervisor.pool.pool import Pool
from chansup.supervisor.pool.replacement import prepare
from chansup.supervisor.pool.slot import Slot
from chansup.supervisor.process.process import Process


class SideBySideHost(Host, Protocol):
    """What it asks of the site."""

    pools: dict[str, Pool]

    def desired_in(self, specification: PoolSpecification) -> int:
        """Return how many slots a pool gets."""


class SideBySide:
    """What one rollout knows of this."""

    def __init__(self, site: SideBySideHost, generation: Generation) -> None:
        self._site = site
        self._generation = generation

    def replaces_interface(self) -> bool:
        """Whether interface processes that relay are to be replaced by new ones that do."""
        pool, new = self._site.pools.get("interface"), self._generation.pools.get("interface")
        if pool is None or new is None or not (pool.specification.relays and new.relays):
            return False
        return bool(pool.slots_not_of(self._generation)) and self._site.desired_in(new) > 0

    @property
    def is_needed(self) -> bool:
        """Whether a new worker is there that an old interface process cannot speak to."""
        return any(process.apart for process in self._processes() if process.alive)

    def _processes(self) -> Iterable[Process]:
        for pool in self._site.pools.values():
            for slot in pool.slots:
                for process in (slot.current, slot.successor):
                    if process is not None and process.generation is self._generation:
                        yield process

    def has_begun(self) -> bool:
        """Whether an interface process was replaced by one that needs the new workers."""
        interface = self._site.pools.get("interface")
        return interface is not None and any(
            slot.current is not None and slot.current.generation is self._generation
            for slot in interface.slots
        )

    def slots(self) -> list[list[Slot]]:
        """Return the slots that need a successor: first of the workers, then of the interface."""
        workers, interface = [], []
        for pool in self._site.pools.values():
            new = self._generation.pools.get(pool.name)
            if new is None:
                continue
            stale = pool.slots_not_of(self._generation)[: self._site.desired_in(new)]
            if pool.specification.serves and new.serves:
                workers += stale
            elif pool.kind == "interface":
                interface += stale
        return [workers, interface]

    async def prepare(self, slots: Iterable[Slot]) -> None:
        """Have a successor ready in each slot. Raises StartFailedError."""
        results = await asyncio.gather(*map(self._prepare, slots), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _prepare(self, slot: Slot) -> None:
        async with self._site.turns:
            with suppress(SlotRemovedError):
                async with slot.changing:
                    await prepare(slot, self._generation)

    async def to_its_end(self, work: Awaitable[None]) -> None:
        """Replace what stands side by side; only the end of the site breaks that off."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not self._site.stopping:
                await asyncio.wait([task])
            raise


def interface_first(names: list[str], pools: dict[str, Pool]) -> list[str]:
    """Return the pools in an order in which no old worker leaves before the old interface."""
    return sorted(names, key=lambda name: name in pools and pools[name].specification.serves)
