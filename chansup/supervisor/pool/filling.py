"""The turn of a slot to have a process started: not all of a site boot at once."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from chansup.background import BackgroundTasks
from chansup.supervisor.pool.retirement import Retirements
from chansup.supervisor.process.process import Process
from chansup.waiting import wait_for

LONGEST_TURN = 10.0  # seconds after which a process that still boots lets others begin


class FillingHost(Protocol):
    """What a filling asks of the site."""

    @property
    def turns(self) -> asyncio.Semaphore:
        """Turns to boot a launcher."""

    @property
    def spawning(self) -> asyncio.Lock:
        """Held while one process is started."""


class Filling:
    """Those of one slot."""

    def __init__(
        self,
        site: FillingHost,
        retirements: Retirements,
        launched: Callable[[], bool],
        attempt: Callable[[], Process | None],
    ) -> None:
        """`launched` says whether a launcher is to be started; `attempt` starts the missing ones,
        and returns what fills the slot then.
        """
        self.waiting: asyncio.Task[None] | None = None  # for its turn
        self._site = site
        self._retirements = retirements
        self._launched = launched
        self._attempt = attempt
        self._background = BackgroundTasks()

    def begin(self) -> None:
        """Make the attempt as soon as it may be."""
        self.waiting = self._background.start(self._in_turn())

    async def _in_turn(self) -> None:
        if not self._launched():
            await self._retirements.remains_gone()
            await self._now()
            return
        # Hundreds of interpreters that boot would starve each other and the supervisor.
        async with self._site.turns:
            process = await self._now()
            if process is not None:
                await wait_for(LONGEST_TURN, process.settled)

    async def _now(self) -> Process | None:
        async with self._site.spawning:
            self.waiting = None
            process = self._attempt()
            await asyncio.sleep(0)  # one spawn per turn of the loop: others have work, too
        return process
