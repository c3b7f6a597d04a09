"""One-shot tasks: commands that must succeed before pools start, and before code is replaced."""

import asyncio
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from chansup.supervisor.backoff import Backoff
from chansup.supervisor.errors import BootFailed, SpawnError
from chansup.supervisor.generation import Generation, TaskSpecification
from chansup.supervisor.process import Process
from chansup.supervisor.status import TaskStatus

if TYPE_CHECKING:
    from chansup.supervisor.site import Site

GRACE = 5.0  # seconds between SIGTERM and SIGKILL of a task that is not wanted any more


class Task:
    """One ``[tasks.NAME]`` and its last run."""

    def __init__(self, site: "Site", name: str) -> None:
        self.site = site
        self.name = name
        self.done = asyncio.Event()  # it succeeded at least once
        self.process: Process | None = None
        self.recent = site.recent_lines()
        self.status = TaskStatus(name, "waiting", None, None, None, None, [])

    async def run(self, generation: Generation) -> None:
        """Run it once, to its end. Raises BootFailed when it does not succeed."""
        specification = generation.tasks[self.name]
        started = time.time()
        self.status = TaskStatus(self.name, "running", generation.number, None, None, None, [])
        try:
            process = self.process = self.site.spawn_task(self, specification, generation)
        except SpawnError as error:
            self._finish(generation, started, "failed", None, [str(error)])
            raise BootFailed(f"task {self.name}: {error}", [str(error)]) from None
        try:
            reason = await self._wait(process, specification)
        finally:
            self.process = None
        lines = [line.text for line in self.recent.tail(60, process.pid)]
        if reason is None:
            self._finish(generation, started, "succeeded", str(process.exit), [])
            self.done.set()
            return
        self._finish(generation, started, "failed", str(process.exit), lines)
        raise BootFailed(f"task {self.name}: {reason}", lines)

    async def _wait(self, process: Process, specification: TaskSpecification) -> str | None:
        try:
            await asyncio.wait_for(process.gone.wait(), specification.timeout)
        except TimeoutError:
            process.kill()
            await process.gone.wait()
            return f"did not end within {specification.timeout:g} s"
        except asyncio.CancelledError:
            process.drain()
            process.signal(signal.SIGTERM)
            asyncio.get_running_loop().call_later(GRACE, process.kill)
            raise
        assert process.exit is not None
        return None if process.exit.code == 0 else f"failed ({process.exit})"

    async def run_until_it_succeeds(self, generation: Callable[[], Generation]) -> None:
        """Run it again and again, with growing pauses: what it needs may come up later."""
        backoff = Backoff()
        while True:
            try:
                await self.run(generation())
            except BootFailed as failure:
                pause = backoff.next_delay(0.0)
                self.site.say(f"{failure}, next attempt in {pause:.1f} s", "warning")
                await asyncio.sleep(pause)
            else:
                return

    def _finish(
        self, generation: Generation, started: float, state: str, exit: str | None, lines: list[str]
    ) -> None:
        now = time.time()
        assert state in ("succeeded", "failed")
        self.status = TaskStatus(
            self.name,
            "succeeded" if state == "succeeded" else "failed",
            generation.number,
            now,
            now - started,
            exit,
            lines,
        )
        self.site.say(f"task {self.name}: {state} after {now - started:.1f} s")
