"""Who speaks to whom in relay mode: an app worker is ready when the interface has greeted it.

An upgrade on disk gives the processes that start from then on other code than those that run. Where
the two have no version of the relay in common, a worker boots, and nobody can send it a request.
"""

import sys
from collections import defaultdict
from typing import Protocol

from chansup.background import BackgroundTasks
from chansup.protocol.roster import Greeted
from chansup.protocol.states import State
from chansup.supervisor.plan.code_on_disk import CodeOnDisk
from chansup.supervisor.pool.pool import Pool
from chansup.supervisor.process.process import Process
from chansup.supervisor.process.processes import Processes
from chansup.text import visible
from chansup.waiting import wait_for

_ANSWER_TIMEOUT = 5.0  # seconds that a new interface process waits for workers that do not answer
_LONGEST = 500  # characters of a refusal


class InterfaceReplacing(Protocol):
    """A rollout that may replace the interface."""

    def replaces_interface_of(self, worker: Process) -> bool:
        """Whether `worker` is one of its own, and the interface follows."""


class Renewing(Protocol):
    """The rollouts of a site."""

    def renew(self, reason: str) -> None:
        """Replace what relays and what serves by the code on disk."""


class GreetingHost(Protocol):
    """What greetings ask of the site."""

    pools: dict[str, Pool]

    @property
    def processes(self) -> Processes:
        """Those that run."""

    @property
    def rollout(self) -> InterfaceReplacing | None:
        """The newest one."""

    @property
    def code(self) -> CodeOnDisk:
        """What processes that start now run."""

    @property
    def rollouts(self) -> Renewing:
        """Who can replace workers and interface."""


class Greetings:
    """Decides whether a process that has booted is ready."""

    def __init__(self, site: GreetingHost) -> None:
        self._site = site
        self._ending = BackgroundTasks()

    def take(self, interface: Process, said: Greeted) -> None:
        """Take what an interface process says of a worker."""
        alive = [one for one in self._site.processes.alive() if one.address is not None]
        known = {one.address for one in alive}
        interface.greeted = {path: no for path, no in interface.greeted.items() if path in known}
        if said.address in known:
            interface.greeted[said.address] = visible(said.refusal[:_LONGEST])
        for process in (*(one for one in alive if one.address == said.address), interface):
            if process.has_booted:
                process.became_ready()
        if not (interface.has_booted or interface.refused):
            self._admits_interface(interface)  # it takes no client before a worker answers it

    def admits(self, process: Process) -> bool:
        """Whether a process that has booted is ready. One that never can be is asked to end."""
        if process.refused:
            return False
        if process.address is not None:
            return self._admits_worker(process)
        return process.roster_pipe is None or self._admits_interface(process)

    def _admits_worker(self, worker: Process) -> bool:
        assert worker.address is not None
        serving = self._serving()
        answers = {one.slot: one.greeted.get(worker.address) for one in serving}
        refusals = {slot: answer for slot, answer in answers.items() if answer}
        if not serving:
            return True  # the interface starts after it, and is not ready before it has greeted it
        if not refusals:
            return "" in answers.values()
        rollout = self._site.rollout
        if rollout is not None and rollout.replaces_interface_of(worker):
            worker.apart = True
            return True
        slot, reason = next(iter(refusals.items()))
        self._refuse(worker, f"{slot} cannot speak to it: {reason}")
        return False

    def _serving(self) -> list[Process]:
        """Return the interface processes that relay now."""
        return [
            one
            for one in self._site.processes.alive()
            if one.roster_pipe is not None and one.state is State.READY and not one.hung
        ]

    def _admits_interface(self, interface: Process) -> bool:
        refused, silent, answering = [], [], []
        for pool, workers in self._workers().items():
            answers = [interface.greeted.get(one.address or "") for one in workers]
            if "" in answers:
                answering.append(pool)
            elif None in answers:
                silent.append(pool)
            else:
                refused.append((pool, answers[0]))
        pool_of_interface = self._site.pools.get("interface")
        first = pool_of_interface is None or not pool_of_interface.available.is_set()
        if refused and not (first and (answering or silent)):
            name, reason = refused[0]
            self._refuse(interface, f"it cannot speak to the workers of {name}: {reason}")
            return False
        return not silent or interface.booted_for() > _ANSWER_TIMEOUT

    def _workers(self) -> dict[str, list[Process]]:
        """Return the app workers that are ready, by pool."""
        found = defaultdict(list)
        for one in self._site.processes.alive():
            if one.address is not None and one.state is State.READY and one.in_service:
                found[one.specification.name].append(one)
        return found

    def mute(self) -> list[str]:
        """Return, as reasons of not being ready, which interface process reaches none of a pool."""
        return [
            f"{pool}: {interface.slot} cannot speak to its workers: {refusals[0]}"
            for pool, workers in self._workers().items()
            for interface in self._serving()
            for refusals in [[interface.greeted.get(one.address or "") for one in workers]]
            if all(refusals)
        ]

    def _refuse(self, process: Process, reason: str) -> None:
        process.refused = f"{reason}; {self._remedy()}"
        self._ending.start(self._end(process))

    async def _end(self, process: Process) -> None:
        process.ask_to_end()
        if not await wait_for(process.specification.stop_timeout, process.ended):
            process.kill_alone()
        pool = self._site.pools.get(process.specification.name)
        if pool is not None and not pool.ready:
            self._site.rollouts.renew(f"{pool.name}: no process is left that can be spoken to")

    def _remedy(self) -> str:
        self._site.code.look()
        if self._site.code.is_other:
            return "`chansup reload` replaces workers and interface together"
        return f"install one version of chansup for the pool's interpreter and {sys.executable}"
