"""The site: the pools, tasks and addresses of the newest generation, and how they change."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from chansup.background import BackgroundTasks
from chansup.config import cores, load
from chansup.config.errors import describe
from chansup.config.pools import HUB
from chansup.supervisor.logs.levels import Level
from chansup.supervisor.logs.log_writer import LogWriter
from chansup.supervisor.logs.recent_lines import RecentLines
from chansup.supervisor.plan.code_on_disk import CodeOnDisk
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.plan.specification import PoolSpecification, TaskSpecification
from chansup.supervisor.pool.adopters import Adopters
from chansup.supervisor.pool.crash_limits import CrashLimits
from chansup.supervisor.pool.dependencies import Dependencies
from chansup.supervisor.pool.greetings import Greetings
from chansup.supervisor.pool.pool import Pool
from chansup.supervisor.pool.rollout import Rollout
from chansup.supervisor.pool.rollouts import Rollouts
from chansup.supervisor.pool.roster import RosterKeeper
from chansup.supervisor.pool.slot import Slot
from chansup.supervisor.pool.stopping import Stopping
from chansup.supervisor.pool.tasks import Task
from chansup.supervisor.process.process import Process
from chansup.supervisor.process.processes import Processes
from chansup.supervisor.sockets.addresses import Addresses
from chansup.supervisor.sockets.hub_socket import HubSocket
from chansup.supervisor.stats.recent import Recent


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
        self.stopping = False
        self.files_restored = 0  # of chansup, that had vanished
        self.obstacles: dict[str, str] = {}  # by path: why a file cannot be made again
        self.not_accepting: dict[str, str] = {}  # by slot or address: what its clients meet
        self.turns = asyncio.Semaphore(2 * cores.usable())  # to boot a launcher
        self.spawning = asyncio.Lock()
        self.removing: list[Pool] = []  # that the config has no more, while they stop
        self.code = CodeOnDisk(partial(self.say, level="warning"))
        self.rollouts = Rollouts(self, environ)
        self.greetings = Greetings(self)
        self.roster = RosterKeeper(self)
        self.dependencies = Dependencies(self)
        self.adopters = Adopters(self)
        self.recent = Recent()
        self._followers: list[Callable[[Generation], Awaitable[None]]] = []
        self._crash_limits = CrashLimits(partial(self.say, level="error"), on_fatal)
        self._scaled: dict[str, tuple[int, int]] = {}  # pool: (number in the file, wanted number)
        self._stopping: Stopping | None = None
        self._starting = BackgroundTasks()
        self._removals = BackgroundTasks()

    # What pools, slots and tasks ask of it

    @property
    def rollout(self) -> Rollout | None:
        """The newest rollout."""
        return self.rollouts.newest

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
            slot.on_draining,
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
        self._crash_limits.crashed(slot)

    def gave_up(self, slot: Slot) -> None:
        """Take notice of a slot that cannot work before the config changes."""
        self._crash_limits.gave_up(slot)

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
        self.generation.hub_demand.is_there = True
        rollout = self.rollout
        rolled_out = [rollout.generation] if rollout is not None and rollout.advances else []
        having = [one for one in (*rolled_out, self.generation) if one.hub is not None]
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
                self._starting.start(self._start_task(self.task(name)))
        for pool in self.pools.values():
            if not pool.started:
                self._starting.start(self._start_pool(pool))

    def cancel_starts(self) -> None:
        """Break off what waits to be started."""
        self._starting.cancel()

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
        await asyncio.shield(self._removals.start(self._remove(pool)))

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

    async def scale(self, pool: Pool, number: int) -> None:
        """Change the number of slots of a pool. Returns when what leaves is gone.

        A pool that still waits for others keeps the number for its start.
        """
        self._scaled[pool.name] = (pool.specification.count, number)
        if not pool.started:
            return
        pool.resize(number, self._generation_with(pool))
        await pool.wait_drained()

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
        """Stop everything by `deadline` (loop time). `hurried` takes the patience away."""
        self.stopping = True
        self.processes.holder.stop()
        self.cancel_starts()
        self.rollouts.cancel()
        self._stopping = Stopping(self, deadline, hurried)
        await self._stopping.carry_out()
