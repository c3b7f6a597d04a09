"""The supervisor: it brings the site up, does what it is asked, and takes everything down again."""

import asyncio
import errno
import signal

from chansup.background import BackgroundTasks
from chansup.errors import ChansupError, ExitCode
from chansup.supervisor.api import report
from chansup.supervisor.api.admin import Admin, AdminAddress
from chansup.supervisor.api.control import Control
from chansup.supervisor.api.http import Server, control_server
from chansup.supervisor.api.malformed import MalformedRequests
from chansup.supervisor.api.operations import Operations, Shutdown
from chansup.supervisor.logs.log_writer import LogWriter
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.pool import stopping
from chansup.supervisor.pool.acceptance import Acceptance
from chansup.supervisor.pool.liveness import TICK, Liveness
from chansup.supervisor.process.guard import Guard
from chansup.supervisor.process.reaper import Reaper
from chansup.supervisor.runtime.runtime import RuntimeDirectory
from chansup.supervisor.signals.signal_reader import STOP, Received
from chansup.supervisor.signals.terminal import Terminal
from chansup.supervisor.site import Site
from chansup.supervisor.sockets.systemd import ServiceNotifier
from chansup.supervisor.upkeep import Upkeep
from chansup.waiting import wait_for

MORE_DESCRIPTORS = "raise the limit (ulimit -n, or LimitNOFILE= in a systemd unit)"
_HINTS: dict[int, str] = {
    signal.SIGUSR1: ": it has no log file to reopen, its log goes to stdout",
    signal.SIGUSR2: ": `chansup reload` deploys",
}
SWEEP_TIME = 5.0  # seconds to find and kill what children left behind


class Supervisor:
    """One run, from the first process to the last."""

    def __init__(
        self,
        site: Site,
        log: LogWriter,
        runtime: RuntimeDirectory,
        service: ServiceNotifier,
        reaper: Reaper,
        guard: Guard,
        terminal: Terminal,
    ) -> None:
        self.site = site
        self._log = log
        self._runtime = runtime
        self._service = service
        self._reaper = reaper
        self._guard = guard
        self._terminal = terminal
        self._liveness = Liveness(site)
        self._acceptance = Acceptance(site)
        self._shutdown = Shutdown()
        self.operations = Operations(site, log, service, self._shutdown, self._admin_address)
        malformed = MalformedRequests(lambda text: site.say(text, "warning"))
        admin = Admin(self.operations, malformed)
        self._admin = AdminAddress(admin, site.generation.loaded.path.parent)
        self._control: Server | None = None
        self._upkeep = Upkeep(site, runtime, self._admin, self._serve_control_again)
        site.add_follower(self._apply)
        self._told_ready = False
        self._quiet_until = 0.0  # loop time; until then, nothing more about missing descriptors
        self._background = BackgroundTasks()
        self._unused: set[int] = set()  # signals that were told once to mean nothing

    # The course of a run

    async def run(self) -> ExitCode:
        """Run until asked to stop. Raises ChansupError when it cannot even start."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._handle_defect)
        await self._guard.start()
        try:
            await self.site.open_addresses()
            await self._serve()
            self.site.start()
            self.site.say(self._greeting())
            self.site.say_doubts(self.site.generation.loaded)
            self._tell_service()
            self._service.start_watchdog(loop)
            ticking = asyncio.create_task(self._tick())
            await self._shutdown.asked.wait()
            await self._stop()
            ticking.cancel()
        finally:
            await self._clean_up()
        return self._shutdown.exit_code

    def _admin_address(self) -> str | None:
        return self._admin.address

    def _greeting(self) -> str:
        where = ", ".join(self.site.addresses.names())
        address = self._admin_address()
        admin = f", admin on http://{address}" if address else ""
        return f"chansup runs {self.site.generation.loaded.path}" + (
            f", listening on {where}{admin}" if where else admin
        )

    async def _serve(self) -> None:
        self._control = control_server(Control(self.operations), self._runtime.control_socket())
        await self._control.start()
        await self._admin.open(self.site.generation.config.admin.bind)

    async def _serve_control_again(self) -> None:
        assert self._control is not None
        await self._control.listen_instead(self._runtime.control_socket())

    async def _apply(self, generation: Generation) -> None:
        """Take over what a new generation says of the supervisor itself. Raises AddressError."""
        await self._admin.open(generation.config.admin.bind)
        settings = generation.config.log
        self._log.configure(settings.format, settings.level)
        stores = [slot.recent for pool in self.site.pools.values() for slot in pool.slots]
        stores += [task.recent for task in self.site.tasks.values()]
        for recent in stores:
            recent.resize(settings.keep_lines)

    # What it is asked by signals

    def take_signal(self, received: Received, *, survives: bool) -> None:
        """Do what a signal asks for. `survives`: it was started to outlive its terminal."""
        if received.number in STOP:
            self._stop_signal(received)
        elif received.number != signal.SIGHUP:
            self._other_signal(received)
        elif received.by_kernel:
            self._terminal_closed(survives=survives)
        else:
            self._background.start(self._hangup(survives=survives))

    def _stop_signal(self, received: Received) -> None:
        if self._shutdown.ask():
            self.site.say(f"{received.name}: stopping{received.sent()}")
        else:
            self.site.say(f"{received.name} again: hurrying{received.sent()}", "warning")
            self._shutdown.hurried.set()

    def _other_signal(self, received: Received) -> None:
        if received.number in self._unused:
            return
        self._unused.add(received.number)
        hint = _HINTS.get(received.number, "")
        nothing = f"{received.name}: chansup does nothing on this signal{hint}"
        self.site.say(f"{nothing}{received.sent()}", "warning")

    def _terminal_closed(self, *, survives: bool) -> None:
        self._terminal.forget()
        if survives:
            self.site.say("the terminal was closed: running on, started with SIGHUP ignored")
        elif self._shutdown.ask():
            self.site.say(
                "the terminal was closed: stopping; to run on, start it as a service or with nohup"
            )

    async def _hangup(self, *, survives: bool) -> None:
        if await self._terminal.was_closed():
            self._terminal_closed(survives=survives)
        elif not self._shutdown.asked.is_set():
            await self._reload_quietly()

    async def _reload_quietly(self) -> None:
        self.site.say("SIGHUP: reloading")
        try:
            async for event in self.operations.reload():
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
                self.site.say_defect("the watch", error)
            last = now

    def _look(self, elapsed: float) -> None:
        for process in self.site.processes.alive():
            process.look_at_phase()
        self._liveness.tick(elapsed)
        self._acceptance.look(elapsed)
        self._terminal.look()
        self._upkeep.look()
        self.site.processes.look_for_orphans()
        for pool in self.site.pools.values():
            pool.changed()
        now = asyncio.get_running_loop().time()
        if self.site.recent.is_due(now):
            relayed, consumption = report.relayed(self.site), report.consumption(self.site)
            self.site.recent.sample(relayed, consumption, now)
        self._tell_service()

    def _tell_service(self) -> None:
        """Tell systemd how the site is, from the first moment on and whenever that changes."""
        reasons = report.reasons_not_ready(self.site)
        if not self._told_ready and not reasons:
            self._told_ready = True
            self._service.ready(report.summary(self.site))
        if not self.site.stopping:
            begins = "" if self._told_ready else "starting: "
            self._service.status(f"{begins}{'; '.join(reasons) or report.summary(self.site)}")

    def _handle_defect(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            if loop.time() >= self._quiet_until:
                self._quiet_until = loop.time() + 10.0
                self.site.say(f"{error.strerror}: {MORE_DESCRIPTORS}", "error")
            return
        if isinstance(error, BaseException):
            self.site.say_defect(str(context.get("message", "the loop")), error)
        else:
            self.site.say(f"a defect in chansup: {context.get('message')}", "error")

    # Stopping

    async def _stop(self) -> None:
        rollout = self.site.generation.config.rollout
        loop = asyncio.get_running_loop()
        deadline = loop.time() + rollout.stop_timeout
        self.site.announce_end()
        self._service.stopping("stopping")
        longest = rollout.shutdown_delay + stopping.longest(self.site)
        if longest > rollout.stop_timeout + rollout.shutdown_delay:
            self._service.extend_timeout(longest + SWEEP_TIME)
        if rollout.shutdown_delay and self._shutdown.exit_code is ExitCode.OK:
            self.site.say(f"accepting for another {rollout.shutdown_delay:g} s")
            await wait_for(rollout.shutdown_delay, self._shutdown.hurried)
        await self.site.stop(deadline, self._shutdown.hurried)
        await self._sweep()
        self.site.say("stopped")
        self._shutdown.done.set()

    async def _clean_up(self) -> None:
        await self._admin.close()
        if self._control is not None:
            await self._control.stop()
        self._service.stop_watchdog()
        self.site.addresses.close_all_but(())
        self.site.hub.close()
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
        self._shutdown.ask(ExitCode.RESTARTS_EXCEEDED)
