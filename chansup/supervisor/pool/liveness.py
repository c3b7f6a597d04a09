"""Finding processes that hang: their event loop, or their own watchdog, stands still.

Each tick adds to a process's silence at most one and a half ticks, however much time went by: if
the supervisor itself was frozen, or the machine slept, nobody is blamed for it.

chansup's own processes beat in shared memory, which no stranger can fill. A hub that is silent is
asked to hand over to another one before it is ended: it may be slow, and what it holds is precious.
"""

from typing import Protocol

from chansup.background import BackgroundTasks
from chansup.errors import ChansupError
from chansup.protocol.states import State
from chansup.supervisor.logs.levels import Level
from chansup.supervisor.pool.pool import Pool
from chansup.supervisor.pool.replacement import replace
from chansup.supervisor.pool.slot import Slot
from chansup.supervisor.process.process import Process
from chansup.supervisor.process.processes import Processes
from chansup.waiting import wait_for

TICK = 1.0  # seconds between two looks at everybody
TIME_TO_PRINT = 1.0  # seconds for the stacks to be printed before SIGTERM
TIME_TO_LEAVE = 3.0  # seconds between SIGTERM and SIGKILL


class WatchedHost(Protocol):
    """What the watch asks of the site."""

    pools: dict[str, Pool]

    @property
    def processes(self) -> Processes:
        """Those that run."""

    def say(self, text: str, level: Level = "info") -> None:
        """Write a line to the log."""


class Liveness:
    """Watches every process that beats."""

    def __init__(self, site: WatchedHost) -> None:
        self._site = site
        self._seen: dict[Process, tuple[int, float]] = {}  # the last beat, and the silence since
        self._ending = BackgroundTasks()
        self._replacing: set[Process] = set()  # hubs that were asked to hand over

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
            and process not in self._replacing
            and (process.watchdog or (_beats_in_memory(process) and process.beats() > 0))
        )

    def _end(self, process: Process, silence: float) -> None:
        slot = self._slot_of(process) if process.specification.takes_over else None
        limit = process.specification.liveness_timeout
        who = f"{process.slot}[{process.pid}]"
        if slot is not None:
            self._site.say(
                f"{who}: silent for {silence:.0f} s (liveness_timeout = {limit:g} s),"
                " asking it to hand over",
                "error",
            )
            self._replacing.add(process)
            self._ending.start(self._replace(process, slot))
        else:
            process.hung = True
            self._site.say(
                f"{who}: silent for {silence:.0f} s (liveness_timeout = {limit:g} s), ending it",
                "error",
            )
            for pool in self._site.pools.values():
                pool.changed()  # no new connections for it
            self._ending.start(_end_hung(process))

    def _slot_of(self, process: Process) -> Slot | None:
        """Return the slot that `process` fills."""
        slots = (slot for pool in self._site.pools.values() for slot in pool.slots)
        return next((slot for slot in slots if slot.current is process), None)

    async def _replace(self, process: Process, slot: Slot) -> None:
        """Have the hub hand over; end it the hard way if that comes to nothing."""
        try:
            await replace(slot, None, "hang")
        except ChansupError as error:
            self._site.say(f"{slot.name}: {error}", "error")
        finally:
            self._replacing.discard(process)
        if process.alive and slot.current is process:
            process.hung = True
            slot.pool.changed()
            await _end_hung(process)


def _beats_in_memory(process: Process) -> bool:
    return process.specification.launcher or process.specification.takes_over


async def _end_hung(process: Process) -> None:
    if process.specification.launcher:
        process.dump_stacks()
        await wait_for(TIME_TO_PRINT, process.ended)
    process.ask_to_end()
    await wait_for(TIME_TO_LEAVE, process.ended)
    process.kill_alone()
