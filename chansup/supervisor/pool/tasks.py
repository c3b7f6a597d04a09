"""One-shot tasks: commands that must succeed before pools start, and before code is replaced."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from chansup.backoff import Backoff
from chansup.protocol.status import TaskStatus
from chansup.supervisor.errors import SpawnError, StartFailedError
from chansup.supervisor.logs.repetition import Repetition
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.plan.specification import TaskSpecification
from chansup.supervisor.pool.host import Host
from chansup.supervisor.process.process import Process
from chansup.waiting import wait_for


class TaskHost(Host, Protocol):
    """What a task asks of the site."""

    def spawn_task(
        self, task: "Task", specification: TaskSpecification, generation: Generation
    ) -> Process:
        """Start the process of a task. Raises SpawnError."""


class Task:
    """One ``[tasks.NAME]`` and its last run."""

    def __init__(self, site: TaskHost, name: str) -> None:
        self.site = site
        self.name = name
        self.done = asyncio.Event()  # it succeeded at least once
        self.process: Process | None = None
        self.recent = site.recent_lines()
        self._attempt_ended = asyncio.Event()  # of the one under way, or the next
        self._ending: asyncio.Task[None] | None = None
        self._refusals = Repetition()  # what keeps it from starting, said once
        self._silent = False  # the last attempt failed for what was said already
        self.status = TaskStatus(name, "waiting", None, None, None, None, [])

    async def run(self, generation: Generation) -> None:
        """Run it once, to its end, and never twice at a time.

        Raises StartFailedError when it does not succeed.
        """
        if self.process is not None:
            await self.process.gone.wait()
        specification = generation.tasks[self.name]
        started = time.time()
        # How it ended last stays to be read until it has ended again.
        self.status = msgspec.structs.replace(
            self.status, state="running", generation=generation.number
        )
        try:
            process = self.process = self.site.spawn_task(self, specification, generation)
        except SpawnError as error:
            self._silent = self._refusals.filter(str(error)) is None
            self._finish(generation, started, "failed", None, [str(error)])
            raise StartFailedError(f"task {self.name}: {error}", [str(error)]) from None
        self._silent = False
        self._refusals.forget()
        reason = await self._wait(process, specification)
        lines = self.recent.last_words(process.pid)
        if reason is None:
            self.done.set()
            self._finish(generation, started, "succeeded", str(process.exit), [])
            return
        self._finish(generation, started, "failed", str(process.exit), lines)
        raise StartFailedError(f"task {self.name}: {reason}", lines)

    def waits_for(self) -> frozenset[str]:
        """Return what it waits for before it runs."""
        specification = self.site.generation.tasks.get(self.name)
        return frozenset() if specification is None else specification.program.after

    async def outcome(self) -> None:
        """Wait until it succeeds. Raises StartFailedError when its last or next try fails."""
        while not self.done.is_set():
            if self.status.state == "failed":
                raise StartFailedError(
                    f"task {self.name}: {self.status.last_exit}", self.status.output
                )
            await self._attempt_ended.wait()

    async def _wait(self, process: Process, specification: TaskSpecification) -> str | None:
        try:
            if not await wait_for(specification.timeout, process.ended):
                self.site.say(f"task {self.name}: too late, ending it", "warning")
                await self.stop()
                return f"did not end within {specification.timeout:g} s"
        except asyncio.CancelledError:
            self._ending = asyncio.create_task(self.stop())
            raise
        assert process.exit is not None
        return None if process.exit.code == 0 else f"failed ({process.exit})"

    async def stop(self) -> None:
        """End a run that is under way, gracefully, within the stop timeout."""
        if (process := self.process) is None:
            return
        if process.draining_since is None:
            process.drain()
            process.ask_to_end()
        if not await wait_for(process.specification.stop_timeout, process.gone):
            self.site.say(f"task {self.name}: still there, killing it", "warning")
            process.kill()
            await process.gone.wait()

    def ended(self, process: Process) -> None:
        """Take the end of its process."""
        self.process = None

    async def run_until_it_succeeds(self, generation: Callable[[], Generation]) -> None:
        """Run it again and again, with growing pauses: what it needs may come up later."""
        backoff = Backoff()
        while True:
            try:
                await self.run(generation())
            except StartFailedError as failure:
                pause = backoff.next_delay(0.0)
                if not self._silent:
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
        self._attempt_ended.set()
        self._attempt_ended = asyncio.Event()
        if not self._silent:
            self.site.say(f"task {self.name}: {state} after {now - started:.1f} s")
