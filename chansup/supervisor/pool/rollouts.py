"""The rollouts of a site, one at a time: a new one supersedes the one under way."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Protocol

from chansup.config import load
from chansup.config.errors import ConfigError
from chansup.protocol.status import Event
from chansup.supervisor.plan.building import build
from chansup.supervisor.plan.code_on_disk import CodeOnDisk
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.pool.rollout import Rollout, RolloutHost


class RolloutsHost(RolloutHost, Protocol):
    """What rollouts ask of the site."""

    @property
    def code(self) -> CodeOnDisk:
        """What processes that start now run."""

    def say_doubts(self, loaded: load.Loaded, said: load.Loaded | None = None) -> None:
        """Write what works and is probably not meant to the log, if `said` had not said it."""

    def start(self) -> None:
        """Start the missing ones."""

    def cancel_starts(self) -> None:
        """Break off what waits to be started."""


class Rollouts:
    """The newest one, and how all ended."""

    def __init__(self, site: RolloutsHost, environ: Mapping[str, str]) -> None:
        """`environ` is what generations inherit."""
        self.newest: Rollout | None = None
        self.counts: Counter[str] = Counter()  # by outcome
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._site = site
        self._environ = environ
        self._last_number = site.generation.number
        self._renewed: list[object] = []  # identities of code on disk
        self._rolling: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    def begin(self, tell: Callable[[Event], None]) -> "asyncio.Task[None]":
        """Begin to roll a new generation out; one under way is superseded.

        Raises ConfigError before anything is touched.
        """
        try:
            loaded = load.load(self._site.generation.loaded.path, self._environ)
        except ConfigError:
            self.counts["failed"] += 1
            raise
        self._site.say_doubts(loaded, self._site.generation.loaded)
        return self._roll(self._build(loaded), tell)

    def renew(self, reason: str) -> None:
        """Replace what relays and what serves by the code on disk, with the config as it is.

        For a site whose processes cannot come back after a crash, since those that still run speak
        another protocol. Once for each code on disk.
        """
        rolling = self._rolling is not None and not self._rolling.done()
        if rolling or self._site.stopping or self._site.code.identity in self._renewed:
            return
        self._renewed.append(self._site.code.identity)
        self._site.say(f"{reason}: replacing workers and interface by the code on disk", "warning")
        generation = self._build(self._site.generation.loaded)
        self._roll(generation, lambda event: None, renews=True)

    def _build(self, loaded: load.Loaded) -> Generation:
        self._last_number += 1
        demand = self._site.generation.hub_demand
        return build(self._last_number, loaded, self._environ, demand)

    def _roll(
        self, generation: Generation, tell: Callable[[Event], None], *, renews: bool = False
    ) -> "asyncio.Task[None]":
        site, former = self._site, self._rolling
        if former is not None:
            former.cancel()
        rollout = self.newest = Rollout(site, generation, tell, renews=renews)

        async def roll() -> None:
            self._site.cancel_starts()  # the rollout starts the missing ones by itself
            async with self._turn:  # those that were superseded end first
                self._site.roster.changed()
                await rollout.run()

        def ended(task: asyncio.Task[None]) -> None:
            if rollout.runs:  # cancelled before its turn came
                rollout.supersede()
            self._site.roster.changed()
            self.counts[rollout.outcome] += 1
            self.seconds[rollout.outcome] += rollout.duration
            if rollout.outcome == "failed" and not self._site.stopping and task is self._rolling:
                self._site.start()  # what had not been started yet, with the former generation

        self._rolling = asyncio.create_task(roll())
        self._rolling.add_done_callback(ended)
        return self._rolling

    def cancel(self) -> None:
        """Break off the one under way: the site stops."""
        if self._rolling is not None:
            self._rolling.cancel()
