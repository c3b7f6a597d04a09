"""What pools and tasks wait for before they start. Commands wait for the same."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from chansup.supervisor.errors import SlotRemovedError
from chansup.waiting import STEP, wait_for

if TYPE_CHECKING:
    from chansup.supervisor.pool.pool import Pool
    from chansup.supervisor.pool.tasks import Task


class _Site(Protocol):
    pools: "dict[str, Pool]"

    def task(self, name: str) -> "Task":
        """Return the task of that name."""


class Dependencies:
    """Answers for one site which of them are there."""

    def __init__(self, site: _Site) -> None:
        self._site = site

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return which pools were not ready once, and which tasks have not succeeded."""
        return sorted(name for name in names if not self._is_there(name))

    async def available(self, names: Iterable[str]) -> None:
        """Wait until these pools were ready once, and these tasks succeeded."""
        for name in names:
            pool = self._site.pools.get(name)
            await (pool.available if pool is not None else self._site.task(name).done).wait()

    async def wait_with(self, pool: "Pool", tell: Callable[[str], None]) -> None:
        """Wait until `pool` was started, as it is when all that it waits for is there.

        `tell` hears what that is. Raises StartFailedError when something of it fails: it is tried
        again, and the pool starts later. Raises SlotRemovedError when the pool goes.
        """
        told: list[str] = []
        while not pool.started and not pool.stopped:
            missing = self.missing(pool.specification.after)
            if missing and missing != told:
                tell(f"{pool.name} waits for {', '.join(missing)}")
                told = missing
            if not missing:
                await pool.begun.wait()
            else:
                await self._decided(missing[0], tell)
        if pool.stopped:
            raise SlotRemovedError(f"{pool.name}: it was stopped before it had started")

    async def _decided(self, name: str, tell: Callable[[str], None]) -> None:
        """Wait until `name` is there. Raises StartFailedError if it fails once more."""
        pool = self._site.pools.get(name)
        if pool is None:
            task = self._site.task(name)
            for other in self.missing(task.waits_for()):
                await self._decided(other, tell)
            await task.outcome()
            return
        await self.wait_with(pool, tell)
        for slot in list(pool.slots):
            await slot.booted()
        pool.changed()
        await wait_for(STEP, pool.available)  # not there yet if somebody replaces a process now

    def _is_there(self, name: str) -> bool:
        pool = self._site.pools.get(name)
        return (pool.available if pool is not None else self._site.task(name).done).is_set()
