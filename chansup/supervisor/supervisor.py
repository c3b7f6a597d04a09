"""The supervisor: it brings the site up, does what it is asked, and takes everything down again."""

import asyncio
import signal
import time
import traceback
from collections.abc import AsyncIterable, AsyncIterator, Coroutine

from chansup.errors import ChansupError, ExitCode
from chansup.supervisor import report
from chansup.supervisor.admin import Admin
from chansup.supervisor.control import Control
from chansup.supervisor.endpoint import Endpoint
from chansup.supervisor.errors import BootFailed, UnknownTarget
from chansup.supervisor.generation import Generation
from chansup.supervisor.guard import Guard
from chansup.supervisor.http import Server, control_server
from chansup.supervisor.liveness import TICK, Liveness
from chansup.supervisor.logs import LogWriter
from chansup.supervisor.pool import Pool
from chansup.supervisor.progress import Progress
from chansup.supervisor.reaper import Reaper
from chansup.supervisor.runtime import RuntimeDirectory
from chansup.supervisor.site import Site
from chansup.supervisor.slot import Slot
from chansup.supervisor.status import Event, LogLine, Measurement, Status
from chansup.supervisor.systemd import ServiceNotifier
from chansup.supervisor.waiting import within

SWEEP_TIME = 5.0  # seconds to find and kill what children left behind


class Supervisor:
    """One run, from the first process to the last. Implements `commands.Commands`."""

    def __init__(
        self,
        site: Site,
        log: LogWriter,
        runtime: RuntimeDirectory,
        service: ServiceNotifier,
        reaper: Reaper,
        guard: Guard,
    ) -> None:
        self.site = site
        self._log = log
        self._runtime = runtime
        self._service = service
        self._reaper = reaper
        self._guard = guard
        self._liveness = Liveness(site)
        self._started = time.time()
        self._endpoint = Endpoint(Admin(self), site.generation.loaded.path.parent)
        self._control: Server | None = None
        site.apply = self._apply
        self._asked_to_stop = asyncio.Event()
        self._hurried = asyncio.Event()
        self._stopped = asyncio.Event()
        self._exit_code = ExitCode.OK
        self._told_ready = False
        self._tasks: set[asyncio.Task[object]] = set()

    # The course of a run

    async def run(self) -> ExitCode:
        """Run until asked to stop. Raises ChansupError when it cannot even start."""
        loop = asyncio.get_running_loop()
        self._handle_signals(loop)
        loop.set_exception_handler(self._handle_defect)
        await self._guard.start()
        try:
            await self.site.open_addresses()
            await self._serve()
            self.site.start()
            self.site.say(self._greeting())
            self._service.start_watchdog(loop)
            ticking = asyncio.create_task(self._tick())
            await self._asked_to_stop.wait()
            await self._stop()
            ticking.cancel()
        finally:
            await self._clean_up()
        return self._exit_code

    def _greeting(self) -> str:
        where = ", ".join(self.site.addresses.names())
        admin = f", admin on http://{self._endpoint.address}" if self._endpoint.address else ""
        return f"chansup runs {self.site.generation.loaded.path}" + (
            f", listening on {where}{admin}" if where else admin
        )

    async def _serve(self) -> None:
        self._control = control_server(Control(self), self._runtime.control_socket())
        await self._control.start()
        await self._endpoint.open(self.site.generation.config.admin.bind)

    async def _apply(self, generation: Generation) -> None:
        """Take over what a new generation says of the supervisor itself. Raises AddressError."""
        await self._endpoint.open(generation.config.admin.bind)
        self._log.configure(generation.config.log.format, generation.config.log.level)

    def _handle_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload_signal)

    def _stop_signal(self, number: signal.Signals) -> None:
        if self._asked_to_stop.is_set():
            self.site.say(f"{number.name} again: hurrying", "warning")
            self._hurried.set()
        else:
            self.site.say(f"{number.name}: stopping")
            self._asked_to_stop.set()

    def _reload_signal(self) -> None:
        self._background(self._reload_quietly())

    async def _reload_quietly(self) -> None:
        self.site.say("SIGHUP: reloading")
        try:
            async for event in self.reload():
                for line in event.lines:
                    self.site.say(line, "error")
        except ChansupError as error:
            for line in str(error).splitlines():
                self.site.say(f"reload: {line}", "error")

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(TICK)
            now = loop.time()
            try:
                self._look(now - last)
            except Exception as error:  # a defect must not end the watch
                self._say_defect("the watch", error)
            last = now

    def _look(self, elapsed: float) -> None:
        self._liveness.tick(elapsed)
        for pool in self.site.pools.values():
            pool.changed()
        if not self._told_ready and not report.reasons_not_ready(self.site):
            self._told_ready = True
            self._service.ready(self._summary())

    def _say_defect(self, where: str, error: BaseException) -> None:
        lines = "".join(traceback.format_exception(error))
        self.site.say(f"a defect in chansup, in {where}; please report it:\n{lines}", "error")

    def _handle_defect(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException):
            self._say_defect(str(context.get("message", "the loop")), error)
        else:
            self.site.say(f"a defect in chansup: {context.get('message')}", "error")

    def _summary(self) -> str:
        pools = self.site.pools.values()
        counts = ", ".join(f"{pool.name} {pool.ready}/{pool.desired}" for pool in pools)
        return f"generation {self.site.generation.number}: {counts}"

    # Stopping

    async def _stop(self) -> None:
        rollout = self.site.generation.config.rollout
        loop = asyncio.get_running_loop()
        deadline = loop.time() + rollout.stop_timeout
        self.site.stopping = True  # /readyz turns red
        self._service.stopping("stopping")
        if rollout.shutdown_delay and self._exit_code is ExitCode.OK:
            self.site.say(f"accepting for another {rollout.shutdown_delay:g} s")
            await within(rollout.shutdown_delay, self._hurried)
        await self.site.stop(deadline, self._hurried)
        await self._sweep()
        self.site.say("stopped")
        self._stopped.set()

    async def _clean_up(self) -> None:
        await self._endpoint.close()
        if self._control is not None:
            await self._control.stop()
        self._service.stop_watchdog()
        self.site.addresses.close_all_but(())
        await self._sweep()
        await self._guard.stop()

    async def _sweep(self) -> None:
        """End whatever children left behind, grandchildren that became our own included."""
        left = await self._reaper.sweep(asyncio.get_running_loop().time() + SWEEP_TIME)
        if left:
            pids = ", ".join(map(str, left))
            self.site.say(f"processes that cannot be killed: {pids}", "error")

    def fail(self, reason: str) -> None:
        """Stop because a pool crashed too often."""
        self.site.say(f"{reason}: exiting", "error")
        self._exit_code = ExitCode.RESTARTS_EXCEEDED
        self._asked_to_stop.set()

    # What it can be asked

    def status(self) -> Status:
        """Return the present state."""
        return report.status(self.site, self._started, self._endpoint.address, self._log.dropped)

    def measurements(self) -> list[Measurement]:
        """Return the numbers of every slot."""
        return report.measurements(self.site)

    def rollouts(self) -> dict[str, tuple[int, float]]:
        """Return for each outcome how many rollouts ended so, and their seconds in total."""
        seconds = self.site.rollout_seconds
        return {outcome: (n, seconds[outcome]) for outcome, n in self.site.rollouts.items()}

    async def reload(self) -> AsyncIterator[Event]:
        """Roll a new generation out."""
        self._refuse_while_stopping("reload")
        progress = Progress()
        rolling = self.site.begin_rollout(progress.tell)
        self._service.reloading("reloading")
        rolling.add_done_callback(lambda _: self._service.ready(self._summary()))
        async for event in progress.events():
            yield event

    async def restart(self, target: str | None) -> AsyncIterator[Event]:
        """Replace the processes of a pool, of a slot, or all, with their own generation."""
        self._refuse_while_stopping("restart")
        slots = self._slots(target)
        if target is None:
            slots = [slot for slot in slots if slot.pool.specification.on_reload != "keep"]
        progress = Progress()
        self._background(self._restart(slots, progress))
        async for event in progress.events():
            yield event

    async def _restart(self, slots: list[Slot], progress: Progress) -> None:
        for done, slot in enumerate(slots):
            progress.tell(self._progress(slot, "starting", done, len(slots)))
            try:
                await slot.replace(slot.generation or self.site.generation, "command")
            except BootFailed as failure:
                if failure.lines:
                    progress.tell(Event("output", str(failure), lines=failure.lines))
                progress.tell(Event("result", str(failure), outcome="failed", exit_code=1))
                return
            progress.tell(self._progress(slot, "replaced", done + 1, len(slots)))
        count = "1 process was" if len(slots) == 1 else f"{len(slots)} processes were"
        progress.tell(Event("result", f"{count} replaced", outcome="succeeded"))

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
        if pool not in self.site.pools:
            raise UnknownTarget(self._no_such(pool, list(self.site.pools)))
        one = self.site.pools[pool]
        before = one.desired
        progress = Progress()
        self._background(self._scale(one, processes, progress))
        yield Event("progress", f"{pool}: from {before} to {processes} processes", pool=pool)
        async for event in progress.events():
            yield event

    async def _scale(self, pool: Pool, processes: int, progress: Progress) -> None:
        try:
            await self.site.scale(pool, processes)
            for slot in list(pool.slots):
                await slot.booted()
        except BootFailed as failure:
            progress.tell(Event("output", str(failure), lines=failure.lines))
            progress.tell(Event("result", str(failure), outcome="failed", exit_code=1))
        except ChansupError as error:
            progress.tell(Event("result", str(error), outcome="failed", exit_code=1))
        else:
            message = f"{pool.name} has {pool.ready} of {pool.desired} processes ready"
            progress.tell(Event("result", message, outcome="succeeded"))

    async def stop(self) -> AsyncIterator[Event]:
        """Stop everything; the result comes when only the supervisor itself is left."""
        again = self._asked_to_stop.is_set()
        self._asked_to_stop.set()
        yield Event("progress", "already stopping" if again else "stopping", step="retiring")
        await self._stopped.wait()
        yield Event("result", "stopped", outcome="succeeded")

    def logs(self, target: str | None, lines: int) -> list[LogLine]:
        """Return the last lines of a pool, a slot or all. Raises UnknownTarget."""
        if target == "chansup":
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
        """Return lines as they come; a slow reader misses some. Raises UnknownTarget."""
        if target is None:
            return self._log.follow()
        if target in ("chansup", *self.site.tasks):
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
        raise UnknownTarget(self._no_such(target, [*pools, *(slot.name for slot in slots)]))

    def _no_such(self, target: str, names: list[str]) -> str:
        return f"there is no pool or slot {target!r}; there are {', '.join(names) or 'none at all'}"

    def _refuse_while_stopping(self, what: str) -> None:
        if self._asked_to_stop.is_set():
            raise ChansupError(f"cannot {what}: the supervisor is stopping")

    def _background(self, work: Coroutine[object, object, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
