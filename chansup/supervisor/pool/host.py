"""What slots, pools, tasks and rollouts ask of the site that they belong to."""

import asyncio
from typing import Protocol

from chansup.supervisor.logs.levels import Level
from chansup.supervisor.logs.recent_lines import RecentLines
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.process.process import Process


class Host(Protocol):
    """The site, as all of them see it."""

    generation: Generation  # the newest one that was rolled out whole

    @property
    def stopping(self) -> bool:
        """Whether everything is to end."""

    @property
    def turns(self) -> asyncio.Semaphore:
        """Turns to boot a launcher."""

    def recent_lines(self) -> RecentLines:
        """Return a new store of recent lines."""

    def say(self, text: str, level: Level = "info") -> None:
        """Write a line to the log."""

    def say_defect(self, where: str, error: BaseException) -> None:
        """Write an exception that should not have been possible to the log."""


class AdopterFinder(Protocol):
    """Says who takes the WebSockets of processes that end."""

    def look(self) -> None:
        """Look again at who does."""

    def tell_leaving(self, process: Process) -> None:
        """Tell `process` whether anybody takes what it has."""


class Publisher(Protocol):
    """Tells interface processes which app workers there are."""

    def changed(self) -> None:
        """Take notice that something may have changed."""

    async def published(self) -> None:
        """Wait until what changed has been sent."""
