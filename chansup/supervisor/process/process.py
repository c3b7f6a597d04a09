"""A handle on one child: its state, its end, and the two ways to end it."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chansup.clock import Moment
from chansup.config import signals
from chansup.protocol.launch import STACK_DUMP_SIGNAL
from chansup.protocol.scoreboard import (
    ACCEPTING,
    BEATS,
    LAME_DUCK,
    LEAVING,
    PHASE,
    WEBSOCKETS_OPEN,
)
from chansup.protocol.states import ALIVE, Event, State, after
from chansup.supervisor.process import orphans, process_table
from chansup.supervisor.process.orphans import Orphans, Remains
from chansup.supervisor.process.process_table import Identity
from chansup.supervisor.process.spawn import Child
from chansup.waiting import wait_for

if TYPE_CHECKING:
    from chansup.protocol.bulletin import Bulletin
    from chansup.protocol.relay_board import RelayBoard
    from chansup.supervisor.carry.carrier import Carrier
    from chansup.supervisor.plan.generation import Generation
    from chansup.supervisor.plan.specification import PoolSpecification
    from chansup.supervisor.process.notify import NotifySocket
    from chansup.supervisor.process.resources import ProcessResources
    from chansup.supervisor.process.roster_pipe import RosterPipe
    from chansup.unix import UnixListener

_BENEFIT_OF_DOUBT = 0.5  # of the time left, for what its own parent may have told to end


@dataclass(frozen=True)
class Exit:
    """How a process ended. `code` is the exit code, or minus the signal that killed it."""

    code: int

    def __str__(self) -> str:
        if self.code >= 0:
            return f"exit code {self.code}"
        try:
            return f"killed by {signal.Signals(-self.code).name}"
        except ValueError:
            return f"killed by signal {-self.code}"


class Process:
    """One child of one slot, from spawned to gone."""

    address: str | None = None  # of an app worker: the path that it listens on
    notify: "NotifySocket | None" = None  # where it reports
    socket: "UnixListener | None" = None  # of an app worker
    in_service = False  # an app worker that was once in its slot, ready: interfaces may use it
    leaves_soon = False  # a command is to replace it
    apart = False  # an app worker that the interface before cannot speak to, but the next one can
    refused = ""  # why it can never be of use to those that run
    admits: "Callable[[Process], bool] | None" = None  # asked before it counts as ready
    has_booted = False  # it said that it is ready
    booted_monotonic = 0.0  # when it did
    roster_pipe: "RosterPipe | None" = None  # of an interface process in relay mode, as is the next
    relay_board: "RelayBoard | None" = None
    carrier: "Carrier | None" = None  # one whose WebSockets outlive it
    bulletin: "Bulletin | None" = None  # of a channel worker, and of the hub
    asked_at: float | None = None  # loop time at which it began to drain
    remains: "Remains | None" = None  # what it left behind, from its end on
    accepts: Callable[[], Awaitable[None]]  # returns when it took a connection
    lost = ""  # why a hub did not get what the one before it had

    def __init__(
        self,
        slot: str,
        specification: "PoolSpecification",
        generation: "Generation",
        child: Child,
        resources: "ProcessResources",
        strays: Orphans,
        mark: str,
        on_exit: Callable[["Process"], None],
        on_leave: Callable[["Process"], None] = lambda process: None,
        on_gone: Callable[["Process"], None] = lambda process: None,
    ) -> None:
        """Watch `child`; `mark` stands in the environment of all that descends from it.

        `on_exit` hears that it has ended, `on_gone` that nothing of what it left runs any more.
        """
        self.slot = slot
        self.specification = specification
        self.generation = generation
        self.pid = child.pid
        self.began = Moment()
        self.started_monotonic = time.monotonic()
        self.state = after(State.GONE, Event.SPAWNED)
        self.scoreboard = resources.scoreboard
        self.relay_board = resources.relay_board
        self.bulletin = resources.bulletin
        self.roster_pipe = resources.roster_pipe
        self.carrier = resources.carrier
        self.notify = resources.notify
        self.socket = resources.socket
        if resources.socket is not None:
            self.address = resources.socket.path
        self.greeted: dict[str, str] = {}  # by address of a worker: why it refuses it, or ""
        self.status: str | None = None  # what it says of itself
        self.exit: Exit | None = None
        self.late = False  # killed because it was not ready in time
        self.hung = False  # killed because its loop stood still
        self.watchdog = False  # it sent WATCHDOG=1 at least once
        self.signs_of_life = 0
        self.draining_since: float | None = None
        self.ready = asyncio.Event()
        self.accepts_no_more = asyncio.Event()  # set by STOPPING=1, and by its end
        self.ended = asyncio.Event()
        self.gone = asyncio.Event()  # with all that it left behind
        self.settled = asyncio.Event()  # ready or gone: the boot is decided
        self._child = child
        self._on_exit = on_exit
        self._on_leave = on_leave
        self._on_gone = on_gone
        self._orphans = strays
        self.mark = mark
        born = process_table.row(child.pid)
        self._identity = Identity(child.pid, born.started if born else 0)
        self._told: set[int] = set()  # of its group, with itself
        self._stop_signal: int | None = None  # that it was asked to end by
        self._ending: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(child.pidfd, self._reap)

    def __repr__(self) -> str:
        return f"<Process {self.slot} pid={self.pid} {self.state}>"

    @property
    def started(self) -> float:
        """When it was spawned, by the clock of the present: time.time()."""
        return self.began.wall()

    @property
    def alive(self) -> bool:
        """Whether the child still runs."""
        return self.state in ALIVE

    def became_ready(self) -> bool:
        """Take the news that the process does its work; False if that is not news.

        Whether it is of use to others is asked as well: `admits`.
        """
        if self.state is not State.STARTING:
            return False
        if not self.has_booted:
            self.has_booted = True
            self.booted_monotonic = time.monotonic()
        if self.admits is not None and not self.admits(self):
            return False
        self.state = after(self.state, Event.BECAME_READY)
        self.ready.set()
        self.settled.set()
        return True

    def stopped_accepting(self) -> None:
        """Take the news that the process takes nothing new any more, asked or not."""
        self.accepts_no_more.set()
        if self.state is State.READY and not self.hung:
            self._on_leave(self)

    def look_at_phase(self) -> None:
        """Take what the scoreboard says, in case the message about it was lost."""
        if self.specification.takes_over and self.bulletin is not None and self.bulletin.beats():
            self.became_ready()
        if self.scoreboard is None:
            return
        phase = self.scoreboard.read(PHASE)
        if phase >= ACCEPTING:
            self.became_ready()
        if phase >= LEAVING and not self.accepts_no_more.is_set():
            self.stopped_accepting()

    def announce_end(self) -> None:
        """Let it say 503 on its health path while it serves on."""
        if self.scoreboard is not None:
            self.scoreboard.cells[LAME_DUCK] = 1.0

    def drain(self) -> None:
        """Mark it as one that takes nothing new; the signal comes separately."""
        if self.state in (State.STARTING, State.READY):
            self.state = after(self.state, Event.ASKED_TO_STOP)
            self.draining_since = time.time()
            self.asked_at = asyncio.get_running_loop().time()

    def booted_for(self) -> float:
        """Return for how many seconds it has said that it is ready."""
        return time.monotonic() - self.booted_monotonic if self.has_booted else 0.0

    def healthy_for(self) -> float:
        """Return for how many seconds it has worked; 0 if it was never ready."""
        return time.monotonic() - self.started_monotonic if self.ready.is_set() else 0.0

    def was_crowded(self) -> None:
        """Take notice that the queue of its messages was full: what was lost may have been a sign.

        Whoever fills it is of its own process group, so that something in there lives.
        """
        self.signs_of_life += 1

    @property
    def websockets(self) -> int:
        """How many WebSockets it holds, as it counts them."""
        return int(self.scoreboard.read(WEBSOCKETS_OPEN)) if self.scoreboard is not None else 0

    def beats(self) -> int:
        """Return a number that changes as long as the event loop turns."""
        if self.scoreboard is not None:
            return int(self.scoreboard.read(BEATS))
        if self.specification.takes_over and self.bulletin is not None:
            return self.bulletin.beats()
        return self.signs_of_life

    def signal(self, number: int) -> None:
        """Send a signal to the process itself; nothing happens if it has ended."""
        try:
            signal.pidfd_send_signal(self._child.pidfd, number)
        except OSError:  # ended, or its pidfd closed after that
            pass

    def dump_stacks(self) -> None:
        """Ask a launcher to print the stack of every thread."""
        self.signal(STACK_DUMP_SIGNAL)

    def ask_to_end(self) -> None:
        """Send the stop signal of its pool, to its process group if the pool wants that."""
        settings = self.specification.settings
        number = self._stop_signal = signals.parse(settings.stop_signal)
        if settings.stop_signal_to == "process" or not self.alive:
            self.signal(number)
            return
        table = process_table.rows()
        group = [one for one in table.values() if one.group == self.pid]
        self._told.update(one.pid for one in group)
        for one in group:
            orphans.send(one, number)

    def kill_alone(self) -> None:
        """Kill the process itself; what it started gets the stop signal, and time."""
        self.signal(signal.SIGKILL)

    def kill(self) -> None:
        """Kill the process, and all that descends from it, at once."""
        if self.alive:
            family = process_table.with_descendants([self.pid])
            family += self._orphans.of(self._identity, self.mark)
            for one in family:
                orphans.send(one, signal.SIGKILL)
            self._kill_group()
        elif self.remains is not None:
            self.remains.signal(signal.SIGKILL)

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self.signal(signal.SIGKILL)

    @property
    def left(self) -> int:
        """How many processes it left behind that still run."""
        return len(self.remains.rows()) if self.remains is not None and self.exit else 0

    def reap(self) -> None:
        """Look whether it has ended. Called when the pidfd or SIGCHLD says so."""
        self._reap()

    def _reap(self) -> None:
        if self.exit is not None:
            return
        # WNOWAIT: while the zombie holds the pid, the group's number cannot be anybody else's.
        options = os.WEXITED | os.WNOHANG
        result = os.waitid(os.P_PIDFD, self._child.pidfd, options | os.WNOWAIT)
        if result is None:
            return
        remains = self._orphans.remains(self._identity, self.mark, self._all_gone)
        os.waitid(os.P_PIDFD, self._child.pidfd, options)
        code = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        self.exit = Exit(code)
        self._child.popen.returncode = code  # subprocess must not wait for it again
        self._loop.remove_reader(self._child.pidfd)
        os.close(self._child.pidfd)
        self.state = after(self.state, Event.EXITED)
        for event in (self.accepts_no_more, self.settled, self.ended):
            event.set()
        remains.told |= self._told
        self.remains = remains if remains.rows() else None
        self._on_exit(self)
        remains.watch()
        if not self.gone.is_set():
            self._ending = self._loop.create_task(self._end_remains(remains))

    async def _end_remains(self, remains: Remains) -> None:
        """Give what it left the stop signal, and the rest of stop_timeout."""
        begun = self._loop.time()
        patience = self.specification.stop_timeout
        if self.asked_at is not None:
            patience -= begun - self.asked_at
        if self._may_have_told():
            await wait_for(patience * _BENEFIT_OF_DOUBT, self.gone)
            patience -= self._loop.time() - begun
        if not self.gone.is_set():
            remains.signal(self._stop_signal or self._own_stop_signal())
        if not await wait_for(patience, self.gone):
            remains.signal(signal.SIGKILL)

    def _may_have_told(self) -> bool:
        """Whether it was asked to end and did so by itself: it may have passed the signal on.

        Some take a second one as an order to hurry. A signal that has killed it, it has not passed
        on; a launcher passes on none.
        """
        assert self.exit is not None
        asked = self._stop_signal is not None and not self._told
        return asked and self.exit.code >= 0 and not self.specification.launcher

    def _own_stop_signal(self) -> int:
        return signals.parse(self.specification.settings.stop_signal)

    def _all_gone(self) -> None:
        self.gone.set()
        self._on_gone(self)
