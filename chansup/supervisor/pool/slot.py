"""One numbered place in a pool: it keeps a process in it, and replaces it when asked."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from chansup.background import BackgroundTasks
from chansup.backoff import HEALTHY_AFTER
from chansup.config import foreground
from chansup.protocol import scoreboard
from chansup.protocol.states import Event, State, after
from chansup.supervisor.errors import SlotRemovedError, SpawnError, StartFailedError
from chansup.supervisor.logs.levels import Level
from chansup.supervisor.logs.repetition import Repetition
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.plan.specification import PoolSpecification
from chansup.supervisor.pool import crash
from chansup.supervisor.pool.crash import Retry
from chansup.supervisor.pool.filling import Filling, FillingHost
from chansup.supervisor.pool.host import Host
from chansup.supervisor.pool.retirement import Forwarding, Retirements, left
from chansup.supervisor.process import boot
from chansup.supervisor.process.process import Exit, Process
from chansup.supervisor.process.resources import Inheritance
from chansup.supervisor.process.spawn import CANNOT_RUN
from chansup.supervisor.stats.ledger import SlotTotals


class SlotHost(Host, FillingHost, Protocol):
    """What a slot asks of the site."""

    def spawn(
        self,
        slot: "Slot",
        specification: PoolSpecification,
        generation: Generation,
        *,
        takes_over: bool = False,
    ) -> Process:
        """Start a process for `slot`. Raises SpawnError."""

    def crashed(self, slot: "Slot") -> None:
        """Take notice of a crash."""

    def gave_up(self, slot: "Slot") -> None:
        """Take notice of a slot that cannot work before the config changes."""


class SlotPool(Forwarding, Protocol):
    """What a slot asks of its pool."""

    @property
    def name(self) -> str:
        """The name in the config."""

    @property
    def specification(self) -> PoolSpecification:
        """What its processes run."""

    @property
    def site(self) -> SlotHost:
        """Where the pool belongs."""

    def first_to_replace(self, slots: "Sequence[Slot]") -> "Slot":
        """Return which of `slots` goes first."""

    def inheritance(self, slot: "Slot", specification: PoolSpecification) -> list[Inheritance]:
        """Return the listening sockets for a process of `slot`."""

    async def accepted(self, slot: "Slot", process: Process) -> None:
        """Return when `process` has accepted a connection on each listener of `slot`."""


class Slot:
    """A place that outlives the processes that fill it."""

    def __init__(self, pool: SlotPool, number: int) -> None:
        self.pool = pool
        self.number = number
        self.name = f"{pool.name}.{number}"
        self.current: Process | None = None  # the one that fills the slot
        self.successor: Process | None = None  # boots, to replace it
        self.retirements = Retirements(pool, self.say)
        self.generation: Generation | None = None  # that a crashed process comes back from
        self.wanted = False
        self.stopped = False
        self.restarts: Counter[str] = Counter()
        self.last_exit: Exit | None = None
        self.complaint: list[str] = []  # the last words of a process that crashed
        self.recent = pool.site.recent_lines()
        self.changing = asyncio.Lock()  # one replacement at a time
        self.accepts = True  # False: clients that come to it wait, or are refused
        self.stalled = False  # connections wait, and it takes none
        self.accept_stalls = 0  # times that it began to
        self._idle_state = State.GONE
        self._refusals = Repetition()  # what keeps it from starting, said once
        self._retry = Retry()
        self._filling = Filling(
            pool.site, self.retirements, lambda: pool.specification.launcher, self._attempt
        )
        self._totals = SlotTotals()
        self.background = BackgroundTasks()

    # Questions

    @property
    def state(self) -> State:
        """The state of the process in the slot, or why there is none."""
        return self.current.state if self.current is not None else self._idle_state

    @property
    def serves(self) -> bool:
        """Whether a ready process fills it that is not about to be killed."""
        if self.current is None and self.successor is not None:
            # For a moment, between the end of a hub and the word of the one that took over.
            return self.wanted and self.successor.specification.takes_over
        return self.state is State.READY and self.current is not None and not self.current.hung

    @property
    def retry_at(self) -> float | None:
        """When the next attempt to fill it is made (time.time())."""
        return self._retry.at

    @property
    def draining(self) -> set[Process]:
        """Those that were replaced and finish what they hold."""
        return self.retirements.draining

    @property
    def avoided(self) -> bool:
        """Whether it gets no new connections for a while, because one of its processes retires."""
        return self.retirements.avoided

    def processes(self) -> list[Process]:
        """Return every process that belongs to it now."""
        filling = [process for process in (self.current, self.successor) if process is not None]
        return [*filling, *self.draining]

    def runs(self, generation: Generation) -> bool:
        """Whether nothing has to be replaced for it to run `generation`."""
        now = self.current.generation if self.current is not None else self.generation
        return self.generation is generation is now

    def has_prepared(self, generation: Generation) -> bool:
        """Whether a process of `generation` was started beside the one that fills it."""
        return self.successor is not None and self.successor.generation is generation

    def held(self) -> int:
        """Return how many requests and WebSockets the process in it holds."""
        board = self.current.scoreboard if self.current is not None else None
        kinds = (scoreboard.IN_PROGRESS, scoreboard.WEBSOCKETS_OPEN)
        return int(sum(map(board.read, kinds))) if board is not None else 0

    def cells(self) -> list[float]:
        """Return the scoreboard of the slot: counters of all processes it ever had."""
        return self._totals.cells(self.processes(), self.current)

    # Keeping a process in the slot

    def start(self, generation: Generation) -> None:
        """Fill the slot, and keep it filled."""
        self.wanted = True
        self.generation = generation
        if self.current is None and not self._retry.waits and self._filling.waiting is None:
            self._filling.begin()

    async def booted(self) -> None:
        """Wait until the slot is filled by a ready process. Raises StartFailedError."""
        while self.wanted and not self.serves:
            if self._filling.waiting is not None:
                await asyncio.shield(self._filling.waiting)
            elif (process := self.current) is not None:
                # One that was ready and serves no more, as it hangs, is about to end.
                await (process.ended if process.settled.is_set() else process.settled).wait()
            elif self.changing.locked():
                async with self.changing:
                    pass
            else:
                raise StartFailedError(f"{self.name}: did not become ready", self.complaint)

    def _attempt(self) -> Process | None:
        if self.wanted and self.current is None:
            self._try_to_fill()
        return self.current

    def _try_to_fill(self) -> None:
        assert self.generation is not None
        try:
            process = self.spawn(self.generation)
        except Exception as error:
            if isinstance(error, SpawnError):
                if said := self._refusals.filter(str(error)):
                    self.say(f"{said}; still trying", level="error")
            else:
                self.pool.site.say_defect(f"spawning {self.name}", error)
            self.complaint = [str(error)]
            self._pause("boot", healthy_for=0.0)
            self.pool.site.crashed(self)
            return
        self._idle_state = State.GONE
        self.current = process
        self.background.start(self._watch_boot(process))

    async def _watch_boot(self, process: Process) -> None:
        if await boot.wait(process, self.say) and self.current is process:
            self._refusals.forget()
            self.pool.changed()

    def spawn(self, generation: Generation, *, beside: bool = False) -> Process:
        """Start a process of `generation`; `beside` another one. Raises SpawnError."""
        specification = generation.pools[self.pool.name]
        takes_over = specification.takes_over and beside
        process = self.pool.site.spawn(self, specification, generation, takes_over=takes_over)
        process.accepts = partial(self.pool.accepted, self, process)
        return process

    def on_draining(self, process: Process) -> None:
        """Take the news that `process` stopped accepting of its own accord: fill its place now."""
        if process is not self.current or not self.wanted:
            return
        # Where two of its kind must not run at a time, the next one comes after its end.
        overlaps = process.specification.on_reload == "overlap"
        if overlaps:
            self.say("leaves by itself, starting another", process)
            self.current = None
            self.draining.add(process)
        process.drain()
        self.retirements.see_off(process)
        if overlaps:
            self._pause("exit", process.healthy_for())
            if process.healthy_for() < HEALTHY_AFTER:
                self.pool.site.crashed(self)
        self.pool.changed()

    def process_ended(self, process: Process) -> None:
        """Take the end of one of the slot's processes."""
        assert process.exit is not None
        self._totals.keep(process)
        if process is self.successor:
            self.successor = None
            if process.specification.takes_over and self.current is None and self.wanted:
                self._crashed(process)  # with all that its predecessor had given it
        elif process in self.draining:
            if process.remains is None:
                self.draining.discard(process)
                self.say(f"gone, {process.exit}", process)
            else:
                self.say(f"ended, {process.exit}; {left(process)}", process)
        elif process is self.current:
            self.current = None
            if self.wanted and self._is_succeeded(process):
                self.say(f"gone, {process.exit}", process)
            else:
                self.last_exit = process.exit
                if self.wanted:
                    self._crashed(process)
        if process.remains is not None:
            self.draining.add(process)
        self.pool.changed()

    def process_gone(self, process: Process) -> None:
        """Take the end of all that one of its processes left behind."""
        if process.remains is not None:
            self.say("gone, with all that it had left", process)
            self.draining.discard(process)
            self.pool.changed()

    def _is_succeeded(self, process: Process) -> bool:
        """Whether another one takes over, or dies now, and what follows is decided by its end."""
        if not process.specification.takes_over or self.successor is None:
            return False
        ended_well = process.exit is not None and process.exit.code == 0
        if not ended_well and not self.successor.ready.is_set():
            # Perhaps it got everything, perhaps nothing, and two at a time must not be.
            self.say("ended while it was replaced, starting over", process, "warning")
            self.successor.kill()
        return True

    def _crashed(self, process: Process) -> None:
        self.complaint = self.recent.last_words(process.pid)
        if process.refused:
            self.complaint = [process.refused]
            if (said := self._refusals.filter(process.refused)) is not None:
                self.say(said, process, "error")
        if crash.is_final(process):
            self.restarts["boot"] += 1
            self._idle_state = after(self._idle_state, Event.GAVE_UP)
            self.say("cannot work with this config: change it and reload", process, "error")
            self.pool.site.gave_up(self)
            return
        self._pause(crash.reason(process), process.healthy_for())
        when = self._retry.when()
        refused = self.complaint[-1] if self.complaint else ""
        if process.remains is not None:
            self.say(left(process), process, "warning")
            self.draining.add(process)
            self.retirements.see_off(process)
        if crash.went_into_the_background(process):
            advice = foreground.remedy(process.specification.command.argv)
            self.say(f"went into the background: {advice}; next attempt {when}", process, "error")
        elif not refused.startswith(CANNOT_RUN) or self._refusals.filter(refused):
            self.say(f"{crash.told(process)}, next attempt {when}", process, "warning")
        self.pool.site.crashed(self)

    def _pause(self, reason: str, healthy_for: float) -> None:
        self.restarts[reason] += 1
        self._idle_state = after(self._idle_state, Event.PAUSED)
        self._retry.begin(healthy_for, self._filling.begin)

    def retry_now(self) -> None:
        """Make the next attempt without a pause: what stood in the way may be gone."""
        self._retry.hasten(self._filling.begin)

    def stop_retrying(self) -> None:
        """Forget what was to be tried later."""
        self._retry.cancel()
        if self._idle_state is not State.GONE:
            self._idle_state = after(self._idle_state, Event.ASKED_TO_STOP)

    # Changing what it runs

    def dismiss(self) -> None:
        """End the successor; the current process stays, if the successor is not all there is."""
        process = self.successor
        if process is not None and not process.specification.takes_over:
            self.successor = None
            self.retirements.begin(process)

    def require_place(self) -> None:
        """Raise SlotRemovedError if nothing may start here any more."""
        if self.stopped or self.pool.site.stopping:
            raise SlotRemovedError(f"{self.name}: the slot was removed")

    def adopt(self, generation: Generation) -> None:
        """Count the process as one of `generation`: it runs the same thing there."""
        self.generation = generation
        for process in (self.current, self.successor):
            if process is not None:
                process.generation = generation
                process.specification = generation.pools[self.pool.name]

    def settle_with(self, generation: Generation, reason: str) -> None:
        """Take notice that a successor was put in the slot."""
        self.stop_retrying()
        self.generation = generation
        self._retry.reset()
        self.complaint = []
        self.restarts[reason] += 1

    # Ending it

    async def stop(self) -> None:
        """Empty the slot, gracefully; returns when its processes are gone."""
        self.wanted = False
        self.stopped = True
        self.stop_retrying()
        ending = [process for process in (self.current, self.successor) if process is not None]
        for process in ending:
            self.draining.add(process)
        self.current = self.successor = None
        retiring = [self.retirements.begin(process) for process in ending]
        if retiring:
            await asyncio.wait(retiring)
        await self.retirements.all_gone()

    # Helpers

    def say(self, text: str, process: Process | None = None, level: Level = "info") -> None:
        """Write a line about the slot, or one of its processes, to the log."""
        of = f"{self.name}[{process.pid}]" if process is not None else self.name
        self.pool.site.say(f"{of}: {text}", level)
