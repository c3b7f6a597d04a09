"""What people and programs can ask of a running supervisor, carried out."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from contextlib import suppress
from functools import partial

from chansup.background import BackgroundTasks
from chansup.clock import Moment
from chansup.config.cores import MAX_PROCESSES
from chansup.config.pools import HUB
from chansup.errors import ChansupError, ExitCode
from chansup.protocol.status import Consumption, Event, LogLine, Measurement, Status
from chansup.supervisor.api import report
from chansup.supervisor.carry.counters import HolderReport
from chansup.supervisor.errors import SlotRemovedError, StartFailedError, UnknownTargetError
from chansup.supervisor.logs.log_writer import LogWriter
from chansup.supervisor.pool.pool import Pool
from chansup.supervisor.pool.replacement import replace
from chansup.supervisor.pool.slot import Slot
from chansup.supervisor.process.process import Process
from chansup.supervisor.site import Site
from chansup.supervisor.sockets.systemd import ServiceNotifier
from chansup.text import OWN_SLOT


class Shutdown:
    """The end of a run: asked for once, hurried at most once more, done in the end."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()
        self.done = asyncio.Event()  # nothing but the supervisor itself is left
        self.exit_code = ExitCode.OK

    def ask(self, exit_code: ExitCode = ExitCode.OK) -> bool:
        """Ask for it; False if somebody did before."""
        if self.asked.is_set():
            return False
        self.exit_code = exit_code
        self.asked.set()
        return True


class Progress:
    """The events of one command, on their way to whoever asked for it."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Event] = asyncio.Queue()  # a few per slot: it stays short

    def tell(self, event: Event) -> None:
        """Add an event."""
        self._events.put_nowait(event)

    async def events(self) -> AsyncIterator[Event]:
        """Yield events up to the result."""
        while True:
            event = await self._events.get()
            yield event
            if event.type == "result":
                return


class Operations:
    """The commands of one running site."""

    def __init__(
        self,
        site: Site,
        log: LogWriter,
        service: ServiceNotifier,
        shutdown: Shutdown,
        admin_address: Callable[[], str | None],
    ) -> None:
        self.site = site
        self._log = log
        self._service = service
        self._shutdown = shutdown
        self._admin_address = admin_address
        self._started = Moment()
        self._background = BackgroundTasks()

    def status(self) -> Status:
        """Return the present state."""
        return report.status(
            self.site, self._started.wall(), self._admin_address(), self._log.dropped
        )

    def measurements(self) -> list[Measurement]:
        """Return the numbers of every slot."""
        return report.measurements(self.site)

    def rollouts(self) -> dict[str, tuple[int, float]]:
        """Return for each outcome how many rollouts ended so, and their seconds in total."""
        ended = self.site.rollouts
        return {outcome: (n, ended.seconds[outcome]) for outcome, n in ended.counts.items()}

    def relayed(self) -> dict[str, list[float]]:
        """Return what relays counted, by pool."""
        return report.relayed(self.site)

    def carried(self) -> HolderReport | None:
        """Return what the holder of WebSockets counted, if any can outlive their process."""
        return report.carried(self.site)

    def consumption(self) -> Consumption:
        """Return what channel workers and the hub counted."""
        return report.consumption(self.site)

    async def reload(self) -> AsyncIterator[Event]:
        """Roll a new generation out."""
        self._refuse_while_stopping("reload")
        progress = Progress()
        rolling = self.site.rollouts.begin(progress.tell)
        self._service.reloading("reloading")
        rolling.add_done_callback(self._tell_service)
        async for event in progress.events():
            yield event

    def _tell_service(self, rolling: "asyncio.Task[None]") -> None:
        newest = self.site.rollout is not None and not self.site.rollout.runs
        if newest and not self._shutdown.asked.is_set():
            self._service.ready(report.summary(self.site))

    async def restart(self, target: str | None) -> AsyncIterator[Event]:
        """Replace the processes of a pool, of a slot, or all, with their own generation.

        All does not mean programs that are kept, nor an interface that relays.
        """
        self._refuse_while_stopping("restart")
        slots = self._slots(target)
        waiting = self._waiting(target)
        left = []
        if target is None:
            left = [pool.name for pool in self.site.pools.values() if pool.specification.stays]
            slots = [slot for slot in slots if not slot.pool.specification.stays]
        progress = Progress()
        self._tell_difference(progress)
        if waiting and target is not None:
            work = self._start_in_turn(waiting[0], progress)
        else:
            work = self._restart(slots, left, waiting, progress)
        self._background.start(self._to_its_result(work, progress))
        async for event in progress.events():
            yield event

    def _tell_difference(self, progress: Progress) -> None:
        """Tell the caller of a command that what starts now is other code than what runs."""
        self.site.code.look()
        if difference := self.site.code.difference():
            progress.tell(Event("progress", difference, step="code"))

    async def _start_in_turn(self, pool: Pool, progress: Progress) -> None:
        """Wait for the start of a pool that waits for others: there is nothing to replace yet."""
        await self._start_of(pool, progress)
        count = "1 process" if pool.desired == 1 else f"{pool.desired} processes"
        message = f"{pool.name} had not started yet; it has now, with {count}"
        progress.tell(Event("result", message, outcome="succeeded"))

    async def _start_of(self, pool: Pool, progress: Progress) -> None:
        """Wait until the pool has started and its slots are ready. Raises StartFailedError."""
        waits_along = self.site.dependencies.wait_with
        try:
            await waits_along(pool, lambda text: progress.tell(Event("progress", text)))
        except StartFailedError as failure:
            reason = f"{failure}; {pool.name} waits for it, and starts as soon as it is there"
            raise StartFailedError(reason, failure.lines) from None
        for slot in list(pool.slots):
            await slot.booted()

    async def _restart(
        self, slots: list[Slot], left: list[str], waiting: list[Pool], progress: Progress
    ) -> None:
        lost = ""
        remaining = list(slots)
        leaving = self._announce(slots)
        try:
            for done in range(len(slots)):
                self._refuse_while_stopping("restart")
                pool = remaining[0].pool
                slot = pool.first_to_replace([one for one in remaining if one.pool is pool])
                remaining.remove(slot)
                progress.tell(self._progress(slot, "starting", done, len(slots)))
                with suppress(SlotRemovedError):
                    await replace(slot, None, "command")
                    if slot.current is not None and slot.current.lost:
                        lost = f"; {slot.current.lost}: the messages and groups it had are lost"
                progress.tell(self._progress(slot, "replaced", done + 1, len(slots)))
        finally:
            for process in leaving:
                process.leaves_soon = False
            self.site.roster.changed()
        count = "1 process was" if len(slots) == 1 else f"{len(slots)} processes were"
        stayed = f"; {', '.join(left)} stayed (to replace: chansup restart NAME)" if left else ""
        pending = "".join(
            f"; {pool.name} has not started yet, it waits for"
            f" {', '.join(self.site.dependencies.missing(pool.specification.after))}"
            for pool in waiting
        )
        message = f"{count} replaced{stayed}{pending}{lost}"
        progress.tell(Event("result", message, outcome="succeeded"))

    def _announce(self, slots: list[Slot]) -> list[Process]:
        """Let the interface know which processes are to leave. Return them."""
        leaving = [slot.current for slot in slots if slot.current is not None]
        for process in leaving:
            process.leaves_soon = True
        self.site.roster.changed()
        return leaving

    async def _to_its_result(
        self, work: Coroutine[object, object, None], progress: Progress
    ) -> None:
        """Run a command; whatever goes wrong, its caller gets a result."""
        failed = partial(Event, "result", outcome="failed", exit_code=1)
        try:
            await work
        except StartFailedError as failure:
            if failure.lines:
                progress.tell(Event("output", str(failure), lines=failure.lines))
            progress.tell(failed(str(failure)))
        except ChansupError as error:
            progress.tell(failed(str(error)))
        except Exception as error:
            self.site.say_defect("a command", error)
            progress.tell(failed(f"a defect in chansup: {error!r}"))

    def _progress(self, slot: Slot, step: str, done: int, total: int) -> Event:
        return Event(
            "progress",
            f"{slot.name}: {step}",
            pool=slot.pool.name,
            slot=slot.name,
            step=step,
            done=done,
            total=total,
        )

    async def scale(self, pool: str, processes: int) -> AsyncIterator[Event]:
        """Change the number of slots of a pool until the next change of the config."""
        self._refuse_while_stopping("scale")
        if pool == HUB:
            raise ChansupError("cannot scale: a site has one hub, which its processes share")
        if pool not in self.site.pools:
            raise UnknownTargetError(self._no_such(pool, list(self.site.pools)))
        if processes > MAX_PROCESSES:
            raise ChansupError(f"cannot scale: a pool has at most {MAX_PROCESSES} processes")
        one = self.site.pools[pool]
        before = one.desired if one.started else self.site.desired_in(one.specification)
        progress = Progress()
        self._tell_difference(progress)
        self._background.start(self._to_its_result(self._scale(one, processes, progress), progress))
        yield Event("progress", f"{pool}: from {before} to {processes} processes", pool=pool)
        async for event in progress.events():
            yield event

    async def _scale(self, pool: Pool, processes: int, progress: Progress) -> None:
        await self.site.scale(pool, processes)
        if not pool.started and not processes:
            message = f"{pool.name} starts no processes"
            progress.tell(Event("result", message, outcome="succeeded"))
            return
        await self._start_of(pool, progress)
        message = f"{pool.name} has {pool.ready} of {pool.desired} processes ready"
        progress.tell(Event("result", message, outcome="succeeded"))

    async def move(self, mark: str) -> AsyncIterator[Event]:
        """Move the one WebSocket whose handshake has this mark to another worker."""
        self._refuse_while_stopping("move a WebSocket")
        if not self.site.generation.relays:
            raise ChansupError(
                "no single WebSocket can be moved by order in direct mode: try it in relay mode, "
                "with serves in a table of workers. An app sees the same in both"
            )
        async for event in self.site.roster.single_moves.move(mark):
            yield event

    async def stop(self) -> AsyncIterator[Event]:
        """Stop everything; the result comes when only the supervisor itself is left."""
        again = self._shutdown.asked.is_set()
        self._shutdown.ask()
        if not again:
            self.site.say("chansup stop: stopping")
        yield Event("progress", "already stopping" if again else "stopping", step="retiring")
        await self._shutdown.done.wait()
        yield Event("result", "stopped", outcome="succeeded")

    def logs(self, target: str | None, lines: int) -> list[LogLine]:
        """Return the last lines of a pool, a slot or all. Raises UnknownTargetError."""
        if target == OWN_SLOT:
            return self._log.own.tail(lines)
        tasks = self.site.tasks
        if target in tasks:
            return tasks[target].recent.tail(lines)
        stores = [slot.recent for slot in self._slots(target)]
        if target is None:
            stores += [self._log.own, *(task.recent for task in tasks.values())]
        found = [line for store in stores for line in store.tail(lines)]
        return sorted(found, key=lambda line: line.time)[-lines:]

    def follow(self, target: str | None) -> AsyncIterable[LogLine]:
        """Return lines as they come; a slow reader misses some. Raises UnknownTargetError."""
        if target is None:
            return self._log.follow()
        if target in (OWN_SLOT, *self.site.tasks):
            return self._log.follow(lambda slot: slot == target)
        self._slots(target)  # raises if there is none
        prefix = f"{target}."
        return self._log.follow(lambda slot: slot == target or slot.startswith(prefix))

    def _slots(self, target: str | None) -> list[Slot]:
        pools = self.site.pools
        if target is None:
            return [slot for pool in pools.values() for slot in pool.slots]
        if target in pools:
            return list(pools[target].slots)
        slots = [slot for pool in pools.values() for slot in pool.slots]
        for slot in slots:
            if slot.name == target:
                return [slot]
        if self._waiting(target):
            return []
        names = [*pools, *(slot.name for slot in slots)]
        raise UnknownTargetError(self._no_such(target, names))

    def _waiting(self, target: str | None) -> list[Pool]:
        """Return the pools that have not started yet and that `target`, or a slot of it, names."""
        waiting = [pool for pool in self.site.pools.values() if not pool.started]
        if target is None:
            return waiting
        name, _, number = target.rpartition(".")
        return [
            pool
            for pool in waiting
            if target == pool.name
            or (
                name == pool.name
                and number.isdecimal()
                and int(number) < self.site.desired_in(pool.specification)
            )
        ]

    def _no_such(self, target: str, names: list[str]) -> str:
        if target in (HUB, f"{HUB}.0") and self.site.generation.hub is not None:
            return "the hub does not run yet: it starts when a process first uses the channel layer"
        return f"unknown pool or slot {target!r}: expected {', '.join(names) or 'none'}"

    def _refuse_while_stopping(self, what: str) -> None:
        if self._shutdown.asked.is_set():
            raise ChansupError(f"cannot {what}: the supervisor is stopping")
