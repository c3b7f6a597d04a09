"""The end of a process that others have taken the place of: drained, asked to end, and killed."""

import asyncio
from typing import Protocol

from chansup.background import BackgroundTasks
from chansup.supervisor.logs.levels import Level
from chansup.supervisor.process import boot
from chansup.supervisor.process.process import Process
from chansup.waiting import wait_for


class Forwarding(Protocol):
    """A pool that sends connections and requests elsewhere when one of its processes drains."""

    @property
    def steers(self) -> bool:
        """Whether new connections can be kept away from single slots."""

    @property
    def settle(self) -> float:
        """Seconds for what was accepted to arrive."""

    def changed(self) -> None:
        """Look again at where new connections and requests go."""

    async def published(self) -> None:
        """Wait until interface processes have been told what changed."""

    def tell_leaving(self, process: Process) -> None:
        """Tell `process` what becomes of the WebSockets that it has."""


class Saying(Protocol):
    """Writes a line about a process to the log."""

    def __call__(self, text: str, process: Process | None = None, level: Level = "info") -> None:
        """Write `text`."""


class Retirements:
    """Those of the processes of one slot."""

    def __init__(self, pool: Forwarding, say: Saying) -> None:
        self.draining: set[Process] = set()  # replaced, they finish what they hold
        self._pool = pool
        self._say = say
        self._steered = 0  # under way, while new connections are kept away
        self._background = BackgroundTasks()

    @property
    def avoided(self) -> bool:
        """Whether the slot gets no new connections for a while, because a process retires."""
        return self._steered > 0

    def begin(self, process: Process) -> "asyncio.Task[None]":
        """End `process` gracefully, whoever waits for it or not."""
        self.draining.add(process)  # at once: no process is ever in none of the slot's sets
        return self._background.start(self._retire(process))

    def see_off(self, process: Process) -> None:
        """Have a process killed that ends by itself, if it takes longer than its stop timeout."""
        self._background.start(self._end(process, process.specification.stop_timeout))

    async def remains_gone(self) -> None:
        """Wait until what processes left behind has ended: two of a kind must not run at a time."""
        for process in list(self.draining):
            if process.exit is not None:
                await process.gone.wait()

    async def all_gone(self) -> None:
        """Wait until nothing is left, or cannot be killed."""
        for process in list(self.draining):
            limit = process.specification.stop_timeout + boot.UNDEAD
            if not await wait_for(limit, process.gone):
                self._say("cannot be killed, leaving it behind", process, "error")

    async def _retire(self, process: Process) -> None:
        specification = process.specification
        process.drain()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + specification.stop_timeout
        steers = self._pool.steers
        if steers:
            # New connections go elsewhere first, so that none waits in the hands of one that ends.
            self._steered += 1
            self._pool.changed()
            await wait_for(self._pool.settle, process.gone)
        if process.address is not None:
            # The interface sends it nothing new from here on, and takes away what can be moved.
            self._pool.changed()
            await self._pool.published()
        self._pool.tell_leaving(process)
        process.ask_to_end()
        if steers:
            # A foreign server does not say when it stopped accepting; it does so on its signal.
            patience = specification.stop_timeout if specification.launcher else self._pool.settle
            await wait_for(patience, process.accepts_no_more)
            self._steered -= 1
            self._pool.changed()
        await self._end(process, deadline - loop.time())

    async def _end(self, process: Process, patience: float) -> None:
        """Wait for the end of a process that drains; kill it when `patience` (seconds) is over."""
        specification = process.specification
        if not await wait_for(patience, process.gone):
            self._say(
                f"still there after stop_timeout = {specification.stop_timeout:g} s, killing it"
                if process.exit is None
                else f"{left(process)}, after stop_timeout = {specification.stop_timeout:g} s:"
                " killing that",
                process,
            )
            process.kill()
            await wait_for(boot.UNDEAD, process.gone)


def left(process: Process) -> str:
    """Return, for people, how much of what a process had started outlived it."""
    count = process.left
    return f"{count} {'process' if count == 1 else 'processes'} that it had started still run"
