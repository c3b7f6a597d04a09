"""The site: the pools, tasks and addresses of the newest generation, and how they change."""

import asyncio
import signal
import time
import traceback
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from chansup.config import cores, load
from chansup.config.errors import ConfigError, describe
from chansup.config.pools import HUB
from chansup.protocol.status import Event
from chansup.supervisor.logs.levels import Level
from chansup.supervisor.logs.log_writer import LogWriter
from chansup.supervisor.logs.recent_lines import RecentLines
from chansup.supervisor.plan.building import build
from chansup.supervisor.plan.code_on_disk import CodeOnDisk
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.plan.specification import PoolSpecification, TaskSpecification
from chansup.supervisor.pool.dependencies import Dependencies
from chansup.supervisor.pool.greetings import Greetings
from chansup.supervisor.pool.pool import Pool
from chansup.supervisor.pool.rollout import Rollout
from chansup.supervisor.pool.roster import RosterKeeper
from chansup.supervisor.pool.slot import Slot
from chansup.supervisor.pool.tasks import Task
from chansup.supervisor.process.boot import UNDEAD
from chansup.supervisor.process.process import Process
from chansup.supervisor.process.processes import Processes
from chansup.supervisor.sockets.addresses import Addresses
from chansup.supervisor.sockets.hub_socket import HubSocket
from chansup.supervisor.stats.queue_waits import QueueWaits
from chansup.supervisor.stats.recent_consumption import RecentConsumption
from chansup.waiting import within

# Of the time, cumulated; the last kind that there is gets all that is left
STOP_SHARES = {"interface": 0.6, "workers": 0.85, "programs": 0.95, "hub": 1.0}
HURRY_BEFORE = 2.0  # seconds before the end of its share, a launcher is asked to hurry


class Site:
    """Everything that the config describes, while it runs."""

    def __init__(
        self,
        generation: Generation,
        environ: Mapping[str, str],
        processes: Processes,
        addresses: Addresses,
        hub: HubSocket,
        log: LogWriter,
        on_fatal: Callable[[str], None],
    ) -> None:
        self.generation = generation  # the newest one that was rolled out whole
        self.processes = processes
        self.addresses = addresses
        self.hub = hub  # the socket, not the pool
        self.log = log
        self.pools: dict[str, Pool] = {}
        self.tasks: dict[str, Task] = {}
        self.rollout: Rollout | None = None
        self.rollouts: Counter[str] = Counter()
        self.rollout_seconds: defaultdict[str, float] = defaultdict(float)
        self.stopping = False
        self.files_restored = 0  # of chansup, that had vanished
        self.obstacles: dict[str, str] = {}  # by path: why a file cannot be made again
        self.not_accepting: dict[str, str] = {}  # by slot or address: what its clients meet
        self.turns = asyncio.Semaphore(2 * cores.usable())  # to boot a launcher
        self.spawning = asyncio.Lock()
        self.removing: list[Pool] = []  # that the config has no more, while they stop
        self.code = CodeOnDisk(partial(self.say, level="warning"))
        self.greetings = Greetings(self)
        self.roster = RosterKeeper(self)
        self.dependencies = Dependencies(self)
        self.queue_waits = QueueWaits()
        self.recent_consumption = RecentConsumption()
        self._followers: list[Callable[[Generation], Awaitable[None]]] = []
        self._environ = environ
        self._hub_is_needed = False
        self._on_fatal = on_fatal
        self._last_number = generation.number
        self._scaled: dict[str, tuple[int, int]] = {}  # pool: (number in the file, wanted number)
        self._crashes: dict[str, deque[float]] = {}
        self._starting: set[asyncio.Task[None]] = set()
        self._removals: set[asyncio.Task[None]] = set()
        self._renewed: list[object] = []  # identities of code on disk
        self._rolling: asyncio.Task[None] | None = None
        self._rollout_turn = asyncio.Lock()

    # What pools, slots and tasks ask of it

    @property
    def settle(self) -> float:
        """Seconds for what was accepted to arrive."""
        return self.generation.config.rollout.settle

    def say(self, text: str, level: Level = "info") -> None:
        """Write a line of chansup's own to the log."""
        self.log.say(text, level)

    def say_defect(self, where: str, error: BaseException) -> None:
        """Write an exception that should not have been possible to the log."""
        lines = "".join(traceback.format_exception(error))
        self.say(f"a defect in chansup, in {where}; please report it:\n{lines}", "error")

    def say_doubts(self, loaded: load.Loaded, said: load.Loaded | None = None) -> None:
        """Write what works and is probably not meant to the log, if `said` had not said it."""
        before = {warning.message for warning in said.warnings} if said is not None else set()
        for warning in loaded.warnings:
            if warning.message not in before:
                self.say(describe(warning, loaded.path), "warning")

    def recent_lines(self) -> RecentLines:
        """Return a new store of recent lines, of the configured size."""
        return RecentLines(self.generation.config.log.keep_lines)

    def spawn(
        self,
        slot: Slot,
        specification: PoolSpecification,
        generation: Generation,
        *,
        takes_over: bool = False,
    ) -> Process:
        """Start a process for `slot`. Raises SpawnError."""
        if specification.launcher:
            self.code.starts()
        process = self.processes.spawn(
            slot.name,
            slot.number,
            specification,
            generation,
            slot.pool.inheritance(slot, specification),
            slot.recent,
            slot.process_ended,
            slot.process_leaves,
            slot.process_gone,
            takes_over=takes_over,
        )
        if self.stopping:
            process.announce_end()
        process.admits = self._admits
        self.roster.tell(process)
        self.say(f"{slot.name}[{process.pid}]: started, generation {generation.number}", "debug")
        return process

    def _admits(self, process: Process) -> bool:
        """Whether a process that has booted is ready."""
        self.roster.changed()  # an app worker is greeted from here on
        return self.greetings.admits(process)

    def spawn_task(
        self, task: Task, specification: TaskSpecification, generation: Generation
    ) -> Process:
        """Start the process of a task. Raises SpawnError."""
        return self.processes.spawn(
            task.name, 0, specification.program, generation, [], task.recent, task.ended
        )

    def crashed(self, slot: Slot) -> None:
        """Take notice of a crash: too many may end the supervisor."""
        settings = slot.pool.specification.settings
        if settings.max_restarts is None:
            return
        crashes = self._crashes.setdefault(slot.pool.name, deque())
        now = time.monotonic()
        crashes.append(now)
        while crashes and now - crashes[0] > settings.restart_window:
            crashes.popleft()
        if len(crashes) > settings.max_restarts:
            excess = (
                f"{slot.pool.name}: {len(crashes)} crashes within {settings.restart_window:g} s,"
                f" more than max_restarts = {settings.max_restarts}"
            )
            if settings.on_max_restarts == "exit":
                self._on_fatal(excess)
            else:
                self.say(f"{excess}; trying on", "error")

    def gave_up(self, slot: Slot) -> None:
        """Take notice of a slot that cannot work before the config changes."""
        if slot.pool.specification.settings.on_max_restarts == "exit":
            self._on_fatal(f"{slot.name} cannot work with this config")

    def task(self, name: str) -> Task:
        """Return the task of that name."""
        if name not in self.tasks:
            self.tasks[name] = Task(self, name)
        return self.tasks[name]

    def desired_in(self, specification: PoolSpecification) -> int:
        """Return how many slots a pool gets: the number in the file, unless it was scaled since."""
        in_file, wanted = self._scaled.get(specification.name, (None, 0))
        return wanted if in_file == specification.count else specification.count

    # Starting

    async def open_addresses(self) -> None:
        """Listen. Raises AddressError, RuntimeDirectoryError."""
        interface = self.generation.config.interface
        if interface is not None:
            pool = self.generation.pools["interface"]
            await self.addresses.open(interface, pool.binds, self.desired_in(pool))
        self.open_hub(self.generation)

    def open_hub(self, generation: Generation) -> None:
        """Listen for the clients of the hub, if the generation has one.

        If it need not run yet, the first client brings it. Raises RuntimeDirectoryError.
        """
        if generation.hub is not None:
            is_used = HUB in generation.pools
            self.hub.open(generation.hub.users, is_used=is_used)
            if not is_used:
                self.hub.watch(self._bring_hub)

    def _bring_hub(self) -> None:
        self._hub_is_needed = True
        rollout = self.rollout
        rolled_out = [rollout.generation] if rollout is not None and rollout.advances else []
        having = [one for one in (*rolled_out, self.generation) if one.hub is not None]
        for generation in having:
            generation.with_hub()
        if having and HUB not in self.pools:
            self.say("the first client of the channel layer is there: starting the hub")
            pool = self.new_pool(having[0].pools[HUB])
            pool.resize(self.desired_in(pool.specification), having[0])

    def close_hub(self, generation: Generation) -> None:
        """Listen no more if the generation has no hub."""
        if generation.hub is None:
            self.hub.close()

    def start(self) -> None:
        """Start the missing parts, each task and pool as soon as what it waits for is there."""
        for name, specification in self.generation.pools.items():
            self.pools.setdefault(name, Pool(self, specification))
        for name in self.generation.tasks:
            if not self.task(name).done.is_set():
                self._begin(self._start_task(self.task(name)))
        for pool in self.pools.values():
            if not pool.started:
                self._begin(self._start_pool(pool))

    def _begin(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _start_task(self, task: Task) -> None:
        await self.dependencies.available(self.generation.tasks[task.name].program.after)
        await task.run_until_it_succeeds(lambda: self.generation)

    async def _start_pool(self, pool: Pool) -> None:
        await self.dependencies.available(pool.specification.after)
        if pool.name in self.pools:
            pool.resize(self.desired_in(pool.specification), self.generation)

    def new_pool(self, specification: PoolSpecification) -> Pool:
        """Make a pool that the former generation does not have."""
        pool = self.pools[specification.name] = Pool(self, specification)
        return pool

    async def remove_pool(self, name: str) -> None:
        """Stop a pool that the config has no more."""
        pool = self.pools.pop(name)
        self.removing.append(pool)
        # To its end, if the rollout is superseded now: nobody else knows the pool any more.
        task = asyncio.create_task(self._remove(pool))
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)
        await asyncio.shield(task)

    async def _remove(self, pool: Pool) -> None:
        try:
            await pool.stop()
        finally:
            if not self.stopping:
                self.removing.remove(pool)
            self.roster.changed()

    # Changing

    def add_follower(self, follower: Callable[[Generation], Awaitable[None]]) -> None:
        """Have `follower` take over what a generation says of it; it raises ChansupError."""
        self._followers.append(follower)

    async def apply(self, generation: Generation) -> None:
        """Have those that follow take over what `generation` says. Raises ChansupError."""
        for follow in self._followers:
            await follow(generation)

    def begin_rollout(self, tell: Callable[[Event], None]) -> "asyncio.Task[None]":
        """Begin to roll a new generation out; one under way is superseded.

        Raises ConfigError before anything is touched.
        """
        try:
            loaded = load.load(self.generation.loaded.path, self._environ)
        except ConfigError:
            self.rollouts["failed"] += 1
            raise
        self.say_doubts(loaded, self.generation.loaded)
        self._last_number += 1
        generation = build(self._last_number, loaded, self._environ)
        if self._hub_is_needed:
            generation.with_hub()
        return self._roll(generation, tell)

    def renew(self, reason: str) -> None:
        """Replace what relays and what serves by the code on disk, with the config as it is.

        For a site whose processes cannot come back after a crash, since those that still run speak
        another protocol. Once for each code on disk.
        """
        rolling = self._rolling is not None and not self._rolling.done()
        if rolling or self.stopping or self.code.identity in self._renewed:
            return
        self._renewed.append(self.code.identity)
        self.say(f"{reason}: replacing workers and interface by the code on disk", "warning")
        self._last_number += 1
        generation = build(self._last_number, self.generation.loaded, self._environ)
        if self._hub_is_needed:
            generation.with_hub()
        self._roll(generation, lambda event: None, renews=True)

    def _roll(
        self, generation: Generation, tell: Callable[[Event], None], *, renews: bool = False
    ) -> "asyncio.Task[None]":
        former = self._rolling
        if former is not None:
            former.cancel()
        rollout = self.rollout = Rollout(self, generation, tell, renews=renews)

        async def roll() -> None:
            for task in list(self._starting):  # the rollout starts what is missing by itself
                task.cancel()
            async with self._rollout_turn:  # those that were superseded end first
                self.roster.changed()
                await rollout.run()

        def ended(task: asyncio.Task[None]) -> None:
            if rollout.runs:  # cancelled before its turn came
                rollout.supersede()
            self.roster.changed()
            self.rollouts[rollout.outcome] += 1
            self.rollout_seconds[rollout.outcome] += rollout.duration
            if rollout.outcome == "failed" and not self.stopping and task is self._rolling:
                self.start()  # what had not been started yet, with the former generation

        self._rolling = asyncio.create_task(roll())
        self._rolling.add_done_callback(ended)
        return self._rolling

    async def scale(self, pool: Pool, number: int) -> None:
        """Change the number of slots of a pool. Returns when what leaves is gone.

        A pool that still waits for others keeps the number for its start.
        """
        self._scaled[pool.name] = (pool.specification.count, number)
        if not pool.started:
            return
        pool.resize(number, self._generation_with(pool))
        await pool.let_go()

    def _generation_with(self, pool: Pool) -> Generation:
        """Return the newest generation that has `pool`: one under way may have brought it."""
        if pool.name not in self.generation.pools and self.rollout is not None:
            return self.rollout.generation
        return self.generation

    # Stopping

    def announce_end(self) -> None:
        """Turn health checks red while everything still serves."""
        self.stopping = True
        for process in self.processes.alive():
            process.announce_end()

    async def stop(self, deadline: float, hurried: asyncio.Event) -> None:
        """Stop interface, workers, programs, and the hub, in this order, by `deadline` (loop time).

        A pool with a `stop_timeout` of its own has that, even if everything takes longer then.
        `hurried` takes the patience away.
        """
        self.stopping = True
        for work in [*self._starting, *([self._rolling] if self._rolling else [])]:
            work.cancel()
        running = [task for task in self.tasks.values() if task.process is not None]
        ending = asyncio.gather(*(task.stop() for task in running))
        loop = asyncio.get_running_loop()
        begun = loop.time()
        late = 0.0  # by those that had a longer time of their own
        for kind, share in STOP_SHARES.items():
            order = [self.pools[name] for name in self.generation.pools if name in self.pools]
            order += [pool for pool in [*self.pools.values(), *self.removing] if pool not in order]
            stage = [pool for pool in reversed(order) if pool.kind == kind]
            if kind == "hub":
                self.hub.ignore()  # nobody is left who could need it
            planned = begun + (deadline - begun) * (1.0 if self._is_last(kind) else share)
            until = planned + late
            if kind == "programs":  # tasks first: they may need a program
                await self._end_tasks(ending, running, until, hurried)
                for pool in stage:
                    await self._stop_by([pool], until, hurried)
            else:
                await self._stop_by(stage, until, hurried)
            late = max(0.0, loop.time() - planned)

    def longest_stop(self) -> float:
        """Return how many seconds `stop` may take, `stop_timeout` of pools included."""
        pools = [*self.pools.values(), *self.removing]
        own = sum(pool.specification.settings.stop_timeout or 0.0 for pool in pools)
        return self.generation.config.rollout.stop_timeout + own

    async def _end_tasks(
        self,
        ending: asyncio.Future[Any],
        running: list[Task],
        deadline: float,
        hurried: asyncio.Event,
    ) -> None:
        left = deadline - asyncio.get_running_loop().time()
        impatience: asyncio.Future[Any] = asyncio.create_task(within(left, hurried))
        await asyncio.wait([ending, impatience], return_when=asyncio.FIRST_COMPLETED)
        impatience.cancel()
        for task in running:
            if task.process is not None:
                task.process.kill()
        await asyncio.wait([ending], timeout=UNDEAD)

    def _is_last(self, kind: str) -> bool:
        kinds = list(STOP_SHARES)
        later = kinds[kinds.index(kind) + 1 :]
        return not any(pool.kind in later for pool in self.pools.values())

    async def _stop_by(self, pools: list[Pool], until: float, hurried: asyncio.Event) -> None:
        if not pools:
            return
        loop = asyncio.get_running_loop()
        own = max(pool.specification.settings.stop_timeout or 0.0 for pool in pools)
        until = max(until, loop.time() + own)
        stopped = asyncio.Event()

        async def stop() -> None:
            await asyncio.gather(*(pool.stop() for pool in pools))
            stopped.set()

        async def refuse() -> None:
            await asyncio.gather(*(process.accepts_no_more.wait() for process in listening))
            self.addresses.refuse()

        listening = [one for one in _processes_of(pools) if one.specification.binds]
        stopping = asyncio.create_task(stop())
        if listening:
            self._begin(refuse())
        patience = asyncio.create_task(within(until - HURRY_BEFORE - loop.time(), stopped))
        impatience = asyncio.create_task(hurried.wait())
        await asyncio.wait([patience, impatience], return_when=asyncio.FIRST_COMPLETED)
        impatience.cancel()
        patience.cancel()
        if not stopped.is_set():
            self._hurry(pools)
            await within(min(HURRY_BEFORE, max(until - loop.time(), 0.5)), stopped)
        if not stopped.is_set():
            for process in _processes_of(pools):
                self.say(
                    f"{process.slot}[{process.pid}]: did not end in time, killing it", "warning"
                )
                process.kill()
        await asyncio.wait([stopping], timeout=UNDEAD + HURRY_BEFORE)

    def _hurry(self, pools: list[Pool]) -> None:
        for process in _processes_of(pools):
            if process.specification.launcher:
                process.signal(signal.SIGTERM)


def _processes_of(pools: list[Pool]) -> list[Process]:
    return [process for pool in pools for slot in pool.all_slots() for process in slot.processes()]
