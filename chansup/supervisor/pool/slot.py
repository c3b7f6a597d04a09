"""One numbered place in a pool: it keeps a process in it, and replaces it when asked."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from chansup.backoff import HEALTHY_AFTER, Backoff
from chansup.protocol import scoreboard
from chansup.protocol.states import Happening, State, after
from chansup.supervisor.errors import BootFailed, SlotRemoved, SpawnError
from chansup.supervisor.logs.logs import Level
from chansup.supervisor.logs.repetition import Repetition
from chansup.supervisor.plan.generation import Generation, PoolSpecification
from chansup.supervisor.process import boot, foreground
from chansup.supervisor.process.process import Exit, Process
from chansup.supervisor.process.spawn import CANNOT_RUN
from chansup.waiting import within

if TYPE_CHECKING:
    from chansup.supervisor.pool.pool import Pool

LINES_OF_FAILURE = 60  # that a failed boot shows to the caller of a reload
LONGEST_TURN = 10.0  # seconds after which a process that still boots lets others begin
EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h: a launcher says that its options are wrong


class Slot:
    """A place that outlives the processes that fill it."""

    def __init__(self, pool: "Pool", number: int) -> None:
        self.pool = pool
        self.number = number
        self.name = f"{pool.name}.{number}"
        self.current: Process | None = None  # the one that fills the slot
        self.successor: Process | None = None  # boots, to replace it
        self.draining: set[Process] = set()  # replaced, they finish what they hold
        self.generation: Generation | None = None  # that a crashed process comes back from
        self.wanted = False
        self.stopped = False
        self.restarts: Counter[str] = Counter()
        self.last_exit: Exit | None = None
        self.complaint: list[str] = []  # the last words of a process that crashed
        self.retry_at: float | None = None  # time.time()
        self.recent = pool.site.recent_lines()
        self.changing = asyncio.Lock()  # one replacement at a time
        self.accepts = True  # False: clients that come to it wait, or are refused
        self.stalled = False  # connections wait, and it takes none
        self.accept_stalls = 0  # times that it began to
        self._retirements = 0  # of its processes, under way
        self._idle_state = State.GONE
        self._backoff = Backoff()
        self._refusals = Repetition()  # what keeps it from starting, said once
        self._retry: asyncio.TimerHandle | None = None
        self._filling: asyncio.Task[None] | None = None
        self._totals = [0.0] * scoreboard.CELLS  # of processes that are gone
        self._tasks: set[asyncio.Task[None]] = set()

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
    def avoided(self) -> bool:
        """Whether it gets no new connections for a while, because one of its processes retires."""
        return self._retirements > 0

    def processes(self) -> list[Process]:
        """Return every process that belongs to it now."""
        filling = [process for process in (self.current, self.successor) if process is not None]
        return [*filling, *self.draining]

    def runs(self, generation: Generation) -> bool:
        """Whether nothing has to be replaced for it to run `generation`."""
        now = self.current.generation if self.current is not None else self.generation
        return self.generation is generation is now

    def held(self) -> int:
        """Return how many requests and WebSockets the process in it holds."""
        if self.current is None or self.current.scoreboard is None:
            return 0
        read = self.current.scoreboard.read
        return int(read(scoreboard.IN_PROGRESS) + read(scoreboard.WEBSOCKETS_OPEN))

    def cells(self) -> list[float]:
        """Return the scoreboard of the slot: counters of all processes it ever had.

        Gauges are those of the processes that live; loop lag is that of the current one.
        """
        cells = list(self._totals)
        boards = [process.scoreboard for process in self.processes()]
        for board in boards:
            if board is not None:
                _add(cells, board)
        current = self.current
        lag = (
            current.scoreboard.cells[scoreboard.LOOP_LAG] if current and current.scoreboard else 0.0
        )
        cells[scoreboard.LOOP_LAG] = lag
        return cells

    # Keeping a process in the slot

    def start(self, generation: Generation) -> None:
        """Fill the slot, and keep it filled."""
        self.wanted = True
        self.generation = generation
        if self.current is None and self._retry is None and self._filling is None:
            self._fill()

    async def booted(self) -> None:
        """Wait until the slot is filled by a ready process. Raises BootFailed."""
        while self.wanted and not self.serves:
            if self._filling is not None:
                await asyncio.shield(self._filling)
            elif self.current is not None:
                await self.current.settled.wait()
            elif self.changing.locked():
                async with self.changing:
                    pass
            else:
                raise BootFailed(f"{self.name}: did not become ready", self.complaint)

    def _fill(self) -> None:
        self._retry = self.retry_at = None
        self._filling = self._background(self._fill_in_turn())

    async def _fill_in_turn(self) -> None:
        site = self.pool.site
        if not self.pool.specification.launcher:
            await self._remains_gone()
            await self._fill_now()
            return
        # Hundreds of interpreters that boot would starve each other and the supervisor.
        async with site.turns:
            await self._fill_now()
            if self.current is not None:
                await within(LONGEST_TURN, self.current.settled)

    async def _remains_gone(self) -> None:
        """Wait until what processes left behind has ended: two of a kind must not run at a time."""
        for process in list(self.draining):
            if process.exit is not None:
                await process.gone.wait()

    async def _fill_now(self) -> None:
        async with self.pool.site.spawning:
            self._filling = None
            if self.wanted and self.current is None:
                self._try_to_fill()
            await asyncio.sleep(0)  # one spawn per turn of the loop: others have work, too

    def _try_to_fill(self) -> None:
        assert self.generation is not None
        try:
            process = self._spawn(self.generation)
        except Exception as error:
            if isinstance(error, SpawnError):
                if said := self._refusals.filter(str(error)):
                    self._say(f"{said}; still trying", level="error")
            else:
                self.pool.site.say_defect(f"spawning {self.name}", error)
            self.complaint = [str(error)]
            self._idle_state = after(after(self._idle_state, Happening.SPAWNED), Happening.EXITED)
            self._pause("boot", healthy_for=0.0)
            self.pool.site.crashed(self)
            return
        self._idle_state = State.GONE
        self.current = process
        self._background(self._watch_boot(process))

    async def _watch_boot(self, process: Process) -> None:
        if await boot.wait(process, self._say) and self.current is process:
            self._refusals.forget()
            self.pool.changed()

    def _spawn(self, generation: Generation, *, beside: bool = False) -> Process:
        specification = generation.pools[self.pool.name]
        takes_over = specification.takes_over and beside
        return self.pool.site.spawn(self, specification, generation, takes_over=takes_over)

    def process_leaves(self, process: Process) -> None:
        """Take the news that `process` stopped accepting of its own accord: fill its place now."""
        if process is self.current and self.wanted:
            if process.specification.on_reload != "overlap":
                # Two of its kind must not run at a time: the next one comes after its end.
                process.drain()
                self._background(self._see_off(process, process.specification.stop_timeout))
                self.pool.changed()
                return
            self._say("leaves by itself, starting another", process)
            self.current = None
            self.draining.add(process)
            process.drain()
            self._background(self._see_off(process, process.specification.stop_timeout))
            self._pause("exit", process.healthy_for())
            if process.healthy_for() < HEALTHY_AFTER:
                self.pool.site.crashed(self)
            self.pool.changed()

    def process_ended(self, process: Process) -> None:
        """Take the end of one of the slot's processes."""
        assert process.exit is not None
        if process.scoreboard is not None:
            _add(self._totals, process.scoreboard, scoreboard.COUNTERS)
            # Those that a killed process still had were closed without a word.
            cut = process.scoreboard.read(scoreboard.WEBSOCKETS_OPEN)
            self._totals[scoreboard.close_cell(1006)] += cut
            process.scoreboard.close()
            process.scoreboard = None
        if process is self.successor:
            self.successor = None
            if process.specification.takes_over and self.current is None and self.wanted:
                self._crashed(process)  # with all that its predecessor had given it
        elif process in self.draining:
            if process.remains is None:
                self.draining.discard(process)
                self._say(f"gone, {process.exit}", process)
            else:
                self._say(f"ended, {process.exit}; {_left(process)}", process)
        elif process is self.current:
            self.current = None
            if self.wanted and self._is_succeeded(process):
                self._say(f"gone, {process.exit}", process)
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
            self._say("gone, with all that it had left", process)
            self.draining.discard(process)
            self.pool.changed()

    def _is_succeeded(self, process: Process) -> bool:
        """Whether another one takes over, or dies now, and what follows is decided by its end."""
        if not process.specification.takes_over or self.successor is None:
            return False
        ended_well = process.exit is not None and process.exit.code == 0
        if not ended_well and not self.successor.ready.is_set():
            # Perhaps it got everything, perhaps nothing, and two at a time must not be.
            self._say("ended while it was replaced, beginning anew", process, "warning")
            self.successor.kill()
        return True

    def _crashed(self, process: Process) -> None:
        reason = _reason(process)
        self.complaint = self.last_lines(process)
        if process.refused:
            self.complaint = [process.refused]
            if (said := self._refusals.filter(process.refused)) is not None:
                self._say(said, process, "error")
        if (
            process.specification.launcher
            and not process.ready.is_set()
            and process.exit
            and process.exit.code == EXIT_CONFIGURATION
        ):
            self.restarts["boot"] += 1
            self._idle_state = after(self._idle_state, Happening.GAVE_UP)
            self._say("cannot work with this config: change it and reload", process, "error")
            self.pool.site.gave_up(self)
            return
        self._pause(reason, process.healthy_for())
        assert self.retry_at is not None
        pause = max(0.0, self.retry_at - time.time())
        described = {
            "boot": "did not become ready",
            "hang": "hung and was killed",
            "exit": "ended by itself",
        }.get(reason, "crashed")
        when = f"in {pause:.1f} s" if pause >= 0.05 else "now"
        refused = self.complaint[-1] if self.complaint else ""
        if process.remains is not None:
            self._say(_left(process), process, "warning")
            self.draining.add(process)
            self._background(self._see_off(process, process.specification.stop_timeout))
        if process.remains is not None and process.exit is not None and process.exit.code == 0:
            advice = foreground.remedy(process.specification.command.argv)
            self._say(f"went into the background: {advice}; next attempt {when}", process, "error")
        elif not refused.startswith(CANNOT_RUN) or self._refusals.filter(refused):
            self._say(f"{described} ({process.exit}), next attempt {when}", process, "warning")
        self.pool.site.crashed(self)

    def _pause(self, reason: str, healthy_for: float) -> None:
        self.restarts[reason] += 1
        delay = self._backoff.next_delay(healthy_for)
        self._idle_state = after(self._idle_state, Happening.PAUSED)
        self.retry_at = time.time() + delay
        self._retry = asyncio.get_running_loop().call_later(delay, self._fill)

    def _stop_retrying(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = self.retry_at = None
        if self._idle_state is not State.GONE:
            self._idle_state = after(self._idle_state, Happening.ASKED_TO_STOP)

    # Replacing it

    async def prepare(self, generation: Generation) -> None:
        """Start a successor and wait until it is ready beside the current process.

        Raises BootFailed or SlotRemoved; the current process is not touched.
        """
        self._require_place()
        if self.successor is not None and self.successor.generation is generation:
            return
        self.dismiss()
        try:
            process = self._spawn(generation, beside=self.current is not None)
        except SpawnError as error:
            raise BootFailed(f"{self.name}: {error}", [str(error)]) from None
        self.successor = process
        try:
            ready = await boot.wait(process, self._say)
        except asyncio.CancelledError:
            self.dismiss()
            raise
        self._require_place()
        if not ready:
            raise BootFailed(
                f"{self.name}: {self._why_not_ready(process)}", self.last_lines(process)
            )

    def dismiss(self) -> None:
        """End the successor; the current process stays, if the successor is not all there is."""
        process = self.successor
        if process is not None and not process.specification.takes_over:
            self.successor = None
            self._begin_to_retire(process)

    async def promote(self, reason: str, retiring: Callable[[Process], None]) -> None:
        """Put the ready successor in the slot, and retire its predecessor until that is gone.

        Raises BootFailed if the successor ended meanwhile, or SlotRemoved.
        """
        self._require_place()
        if self.successor is None:
            raise BootFailed(f"{self.name}: the new process ended right after it was ready", [])
        predecessor, self.current, self.successor = self.current, self.successor, None
        self._settle_with(self.current.generation, reason)
        self.pool.changed()
        if predecessor is not None:
            retiring(predecessor)
            retirement = self._begin_to_retire(predecessor)
            if self.current.lost:  # nothing of it can be saved, and its clients wait for it
                self._say(f"{self.current.lost}: what it had is lost, killing it", predecessor)
                predecessor.kill()
            await asyncio.shield(retirement)

    async def replace(
        self,
        generation: Generation | None,
        reason: str,
        retiring: Callable[[Process], None] = lambda process: None,
        turn: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Replace the process in the way the pool wants it; None: by its own generation.

        `retiring` hears of the old process when it begins to drain. The new one is put in its
        place when `turn` returns.

        Raises BootFailed or SlotRemoved.
        """
        work = self._replace(generation, reason, retiring, turn)
        if not self.pool.specification.takes_over:
            await work
            return
        # Never broken off in the middle: the predecessor may have given all it had, and be gone.
        task = self._background(work)
        task.add_done_callback(_heard)
        await asyncio.wait([task])
        task.result()

    async def _replace(
        self,
        generation: Generation | None,
        reason: str,
        retiring: Callable[[Process], None],
        turn: Callable[[], Awaitable[None]] | None,
    ) -> None:
        async with self.changing:
            # Only now: whoever had the slot until now may have changed what it runs.
            generation = generation or self.generation or self.pool.site.generation
            new = generation.pools[self.pool.name]
            if new.on_reload == "overlap" or self._can_take_over(new):
                await self.prepare(generation)
                if turn is not None:
                    await turn()
                await self.promote(reason, retiring)
            else:
                await self._exchange(generation, reason, retiring)

    def _can_take_over(self, new: PoolSpecification) -> bool:
        """Whether there is a hub that gives what it has to the one that `new` describes."""
        process = self.current
        return (
            new.takes_over
            and process is not None
            and process.state in (State.STARTING, State.READY)
            and not process.hung
            and (new.runs_as in process.specification.users or new.runs_as == 0)
        )

    async def _exchange(
        self, generation: Generation, reason: str, retiring: Callable[[Process], None]
    ) -> None:
        """Old first, then new: for a program that cannot run twice at a time."""
        self._require_place()
        former = self.generation
        self.wanted = False
        self._stop_retrying()
        process, self.current = self.current, None
        try:
            if process is not None:
                retiring(process)
                await asyncio.shield(self._begin_to_retire(process))
            await self._remains_gone()
            await self.prepare(generation)
        except (BootFailed, SlotRemoved, asyncio.CancelledError):
            if former is not None and not self.stopped:
                self.start(former)
            raise
        self.wanted = True
        await self.promote(reason, retiring)

    def _require_place(self) -> None:
        if self.stopped or self.pool.site.stopping:
            raise SlotRemoved(f"{self.name}: there is no such slot any more")

    def adopt(self, generation: Generation) -> None:
        """Count the process as one of `generation`: it runs the same thing there."""
        self.generation = generation
        for process in (self.current, self.successor):
            if process is not None:
                process.generation = generation
                process.specification = generation.pools[self.pool.name]

    def _settle_with(self, generation: Generation, reason: str) -> None:
        self._stop_retrying()
        self.generation = generation
        self._backoff.reset()
        self.complaint = []
        self.restarts[reason] += 1

    # Ending it

    def _begin_to_retire(self, process: Process) -> "asyncio.Task[None]":
        self.draining.add(process)  # at once: no process is ever in none of the slot's sets
        return self._background(self.retire(process))

    async def retire(self, process: Process) -> None:
        """End `process` gracefully, within the stop timeout of its pool."""
        specification = process.specification
        self.draining.add(process)
        process.drain()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + specification.stop_timeout
        steers = self.pool.steers
        if steers:
            # New connections go elsewhere first, so that none waits in the hands of one that ends.
            self._retirements += 1
            self.pool.changed()
            await within(self.pool.settle, process.gone)
        if process.address is not None:
            # The interface sends it nothing new from here on, and takes away what can be moved.
            self.pool.changed()
            await self.pool.site.roster.published()
        process.ask_to_end()
        if steers:
            # A foreign server does not say when it stopped accepting; it does so on its signal.
            patience = specification.stop_timeout if specification.launcher else self.pool.settle
            await within(patience, process.accepts_no_more)
            self._retirements -= 1
            self.pool.changed()
        await self._see_off(process, deadline - loop.time())

    async def _see_off(self, process: Process, patience: float) -> None:
        """Wait for the end of a process that drains; kill it when `patience` (seconds) is over."""
        specification = process.specification
        if not await within(patience, process.gone):
            self._say(
                f"still there after stop_timeout = {specification.stop_timeout:g} s, killing it"
                if process.exit is None
                else f"{_left(process)}, after stop_timeout = {specification.stop_timeout:g} s:"
                " killing that",
                process,
            )
            process.kill()
            await within(boot.UNDEAD, process.gone)

    async def stop(self) -> None:
        """Empty the slot, gracefully; returns when its processes are gone."""
        self.wanted = False
        self.stopped = True
        self._stop_retrying()
        ending = [process for process in (self.current, self.successor) if process is not None]
        for process in ending:
            self.draining.add(process)
        self.current = self.successor = None
        retiring = [self._begin_to_retire(process) for process in ending]
        if retiring:
            await asyncio.wait(retiring)
        for process in list(self.draining):
            limit = process.specification.stop_timeout + boot.UNDEAD
            if not await within(limit, process.gone):
                self._say("cannot be killed, leaving it behind", process, "error")

    # Helpers

    def last_lines(self, process: Process) -> list[str]:
        """Return the end of what `process` printed."""
        return [line.text for line in self.recent.tail(LINES_OF_FAILURE, process.pid)]

    def _why_not_ready(self, process: Process) -> str:
        if process.refused:
            return process.refused
        if process.late and process.has_booted:
            limit = process.specification.start_timeout
            return f"it has booted, but no interface process has greeted it within {limit:g} s"
        if process.late:
            return f"not ready within {process.specification.start_timeout:g} s"
        return f"ended before it was ready ({process.exit})"

    def _say(self, text: str, process: Process | None = None, level: Level = "info") -> None:
        of = f"{self.name}[{process.pid}]" if process is not None else self.name
        self.pool.site.say(f"{of}: {text}", level)

    def _background(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run `work` to its end, whoever waits for it or not."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _heard(task: "asyncio.Task[None]") -> None:
    """Take a result that perhaps nobody waits for any more."""
    if not task.cancelled():
        task.exception()


def _left(process: Process) -> str:
    count = process.left
    return f"{count} {'process' if count == 1 else 'processes'} that it had started still run"


def _reason(process: Process) -> str:
    if process.hung:
        return "hang"
    if not process.ready.is_set():
        return "boot"
    return "exit" if process.exit is not None and process.exit.code == 0 else "crash"


def _add(totals: list[float], board: scoreboard.Scoreboard, which: range | None = None) -> None:
    for cell in which or range(scoreboard.CELLS):
        totals[cell] += board.read(cell)
