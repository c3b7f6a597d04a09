"""Which processes take the WebSockets of those that end: the ready ones that are not to leave soon.

While a rollout replaces processes, those of the new generation do: each WebSocket moves once.
"""

from typing import Protocol

from chansup.config import schema
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.plan.specification import PoolSpecification
from chansup.supervisor.pool.pool import Pool
from chansup.supervisor.process.process import Process
from chansup.supervisor.process.processes import Processes

POOL = "interface"


class Advancing(Protocol):
    """A rollout, as far as it says who leaves soon."""

    @property
    def runs(self) -> bool:
        """Whether it has not come to its outcome yet."""

    @property
    def destination(self) -> Generation:
        """The generation that it brings every slot to."""


class AdoptersHost(Protocol):
    """The site, as far as it says who adopts."""

    pools: dict[str, Pool]
    stopping: bool

    @property
    def generation(self) -> Generation:
        """The newest one that was rolled out whole."""

    @property
    def rollout(self) -> Advancing | None:
        """The newest one."""

    @property
    def processes(self) -> Processes:
        """Those that run."""


class Adopters:
    """Tells the holder of WebSockets who takes them."""

    def __init__(self, site: AdoptersHost) -> None:
        self._site = site

    def look(self) -> None:
        """Look again at who does. Cheap: called at every occasion."""
        settings = self._settings()
        self._site.processes.holder.set_adopters(
            [one.carrier for one in self._staying() if one.carrier is not None],
            is_hopeful=self._has_place(),
            timeout=settings.websocket_timeout,
            rate=settings.handover_rate,
        )

    def tell_leaving(self, process: Process) -> None:
        """Tell `process` whether anybody takes what it has."""
        if process.carrier is not None:
            process.carrier.leave(adoptable=self._has_place() and self._is_understood(process))

    def _staying(self) -> list[Process]:
        """Return the processes that take WebSockets, if they can."""
        slots = self._site.pools[POOL].slots if POOL in self._site.pools else []
        ready = [slot.current for slot in slots if slot.serves and slot.current is not None]
        return [process for process in ready if not self._leaves_soon(process)] or ready

    def _is_understood(self, leaving: Process) -> bool:
        """Whether those that are there carry WebSockets, as code of another version does not."""
        others = [one.carrier for one in self._staying() if one is not leaving]
        return not others or any(one is not None and one.takes_part() for one in others)

    def _specification(self) -> PoolSpecification | None:
        """Return what the interface runs, or will run."""
        rollout = self._site.rollout
        advancing = rollout is not None and rollout.runs
        generation = rollout.destination if rollout and advancing else self._site.generation
        return generation.pools.get(POOL)

    def _settings(self) -> schema.Interface:
        specification = self._specification()
        if specification is not None and isinstance(specification.settings, schema.Interface):
            return specification.settings
        return schema.Interface()

    def _has_place(self) -> bool:
        """Whether there is a process that takes WebSockets, or will be."""
        specification, pool = self._specification(), self._site.pools.get(POOL)
        return (
            not self._site.stopping
            and specification is not None
            and specification.carries
            and pool is not None
            and not pool.stopped
            and pool.desired > 0
        )

    def _leaves_soon(self, process: Process) -> bool:
        """Whether a rollout or a restart is to replace it."""
        rollout = self._site.rollout
        if rollout is not None and rollout.runs:
            return process.generation is not rollout.destination
        return process.leaves_soon
