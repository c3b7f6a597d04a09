"""What a rollout that failed takes back: the processes, pools, addresses and settings."""

from contextlib import suppress
from typing import Protocol

from chansup.errors import ChansupError
from chansup.supervisor.errors import SlotRemovedError
from chansup.supervisor.logs.levels import Level
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.plan.specification import PoolSpecification
from chansup.supervisor.pool.announcements import Announcements
from chansup.supervisor.pool.pool import Pool
from chansup.supervisor.pool.replacement import replace
from chansup.supervisor.sockets.addresses import Addresses


class ChangingHost(Protocol):
    """What a change of pools, addresses and settings asks of the site."""

    pools: dict[str, Pool]

    @property
    def addresses(self) -> Addresses:
        """The listening sockets of the interface."""

    def say(self, text: str, level: Level = "info") -> None:
        """Write a line to the log."""

    def say_defect(self, where: str, error: BaseException) -> None:
        """Write an exception that should not have been possible to the log."""

    def desired_in(self, specification: PoolSpecification) -> int:
        """Return how many slots a pool gets."""

    async def remove_pool(self, name: str) -> None:
        """Stop a pool that the config has no more."""

    def open_hub(self, generation: Generation) -> None:
        """Listen for the clients of the hub, if the generation has one."""

    def close_hub(self, generation: Generation) -> None:
        """Listen no more if the generation has no hub."""

    async def apply(self, generation: Generation) -> None:
        """Take over what a generation says of the supervisor itself. Raises AddressError."""


class WayBack:
    """From a generation that failed to the former one."""

    def __init__(
        self, site: ChangingHost, former: Generation, announcements: Announcements
    ) -> None:
        self._site = site
        self._former = former
        self._tell = announcements

    async def take(self) -> list[str]:
        """Bring everything back, as far as it can be; return what failed. Never raises."""
        problems = []
        for step in (self._replace_with_the_former, self._undo_pools, self._undo_settings):
            try:
                await step()
            except ChansupError as second:
                problems.append(str(second))
            except Exception as error:
                self._site.say_defect("the way back of a rollout", error)
                problems.append(repr(error))
        return problems

    async def _replace_with_the_former(self) -> None:
        """Take every slot back that the former generation can still be started in."""
        for name, pool in self._site.pools.items():
            former = self._former.pools.get(name)
            for slot in list(pool.slots):
                if former is None or slot.generation is self._former or slot.generation is None:
                    continue
                process = slot.current
                kept = former.stays and process is not None
                own = former.relays or former.takes_over  # chansup's code, which is always there
                if kept and process and former.runs_the_same_as(process.specification):
                    slot.adopt(self._former)
                elif own or self._former.can_start_beside(slot.generation):
                    message = f"{slot.name}: back to generation {self._former.number}"
                    self._tell.progress(message, slot=slot, step="back")
                    with suppress(SlotRemovedError):
                        await replace(slot, self._former, "reload")

    async def _undo_pools(self) -> None:
        """Bring sizes, new pools and addresses back to the former config."""
        for name in [name for name in self._site.pools if name not in self._former.pools]:
            if not self._is_needed(self._site.pools[name]):
                await self._site.remove_pool(name)
        for name, pool in self._site.pools.items():
            former = self._former.pools.get(name)
            if former is None:
                continue
            if pool.started:
                pool.resize(self._site.desired_in(former), self._former)
                await pool.wait_drained()
            if all(slot.generation is self._former for slot in pool.slots):
                pool.specification = former
        generations = {
            slot.generation
            for pool in self._site.pools.values()
            for slot in pool.slots
            if slot.generation is not None
        }
        pools = [one.pools.get("interface") for one in (self._former, *generations)]
        self._site.addresses.close_all_but({bind for pool in pools if pool for bind in pool.binds})

    def _is_needed(self, pool: Pool) -> bool:
        """Whether interface processes that could not be taken back relay to it."""
        interface = self._site.pools.get("interface")
        processes = [slot.current for slot in interface.slots] if interface else []
        relayed = any(process and process.specification.relays for process in processes)
        return pool.specification.serves and relayed

    async def _undo_settings(self) -> None:
        self._site.open_hub(self._former)
        self._site.close_hub(self._former)
        await self._site.apply(self._former)

    def where_that_leaves(self) -> str:
        """Return, for people, which code serves now."""
        number = self._former.number
        slots = [slot for pool in self._site.pools.values() for slot in pool.slots]
        stayed = [slot for slot in slots if slot.generation is not self._former]
        if stayed:
            return (
                f"; {len(stayed)} of {len(slots)} slots run newer code: its directory is the same"
                " as before, so there is no old code to go back to"
            )
        needed = self._needed()
        if all(pool.ready for pool, _ in needed):
            return f"; generation {number} still serves"
        ready = ", ".join(f"{pool.name} {pool.ready}/{desired}" for pool, desired in needed)
        return f"; generation {number} still tries to start: {ready} ready"

    def _needed(self) -> list[tuple[Pool, int]]:
        """Return the pools without which nobody is served, with the processes that they want."""
        pools = list(self._site.pools.values())
        serving = [pool for pool in pools if pool.kind == "interface" or pool.specification.serves]
        sized = [(pool, self._site.desired_in(pool.specification)) for pool in serving or pools]
        return [(pool, desired) for pool, desired in sized if desired]
