"""Finding processes that hang: their event loop, or their own watchdog, stands still.

Each tick adds to a process's silence at most one and a half ticks, however much time went by: if
the supervisor itself was frozen, or the machine slept, nobody is blamed for it.
"""

import asyncio
from typing import TYPE_CHECKING

from chansup.config import signals
from chansup.supervisor.process import Process
from chansup.supervisor.states import State
from chansup.supervisor.waiting import within

if TYPE_CHECKING:
    from chansup.supervisor.site import Site

TICK = 1.0  # seconds between two looks at everybody
TIME_TO_PRINT = 1.0  # seconds for the stacks to be printed before SIGTERM
TIME_TO_LEAVE = 3.0  # seconds between SIGTERM and SIGKILL


class Liveness:
    """Watches every process that beats."""

    def __init__(self, site: "Site") -> None:
        self._site = site
        self._seen: dict[Process, tuple[int, float]] = {}  # the last beat, and the silence since
        self._ending: set[asyncio.Task[None]] = set()

    def tick(self, elapsed: float) -> None:
        """Look at everybody; `elapsed` seconds went by since the last look."""
        counted = min(elapsed, 1.5 * TICK)
        watched = [process for process in self._site.processes.alive() if self._watches(process)]
        seen: dict[Process, tuple[int, float]] = {}
        for process in watched:
            beats = process.beats()
            before, silence = self._seen.get(process, (beats, 0.0))
            silence = 0.0 if beats != before else silence + counted
            seen[process] = (beats, silence)
            if silence >= process.specification.liveness_timeout:
                self._end(process, silence)
        self._seen = seen

    def _watches(self, process: Process) -> bool:
        specification = process.specification
        return (
            specification.liveness_timeout > 0
            and process.state is State.READY
            and not process.hung
            and (process.watchdog or (specification.launcher and process.beats() > 0))
        )

    def _end(self, process: Process, silence: float) -> None:
        process.hung = True
        for pool in self._site.pools.values():
            pool.changed()  # no new connections for it
        self._site.say(
            f"{process.slot}[{process.pid}]: silent for {silence:.0f} s"
            f" (liveness_timeout = {process.specification.liveness_timeout:g} s), ending it",
            "error",
        )
        task = asyncio.create_task(_end_hung(process))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def _end_hung(process: Process) -> None:
    if process.specification.launcher:
        process.dump_stacks()
        await within(TIME_TO_PRINT, process.gone)
    process.signal(signals.parse(process.specification.settings.stop_signal))
    await within(TIME_TO_LEAVE, process.gone)
    process.kill()
