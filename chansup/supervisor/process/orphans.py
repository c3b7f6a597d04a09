"""What processes leave behind: descendants that outlive them, in their process group or out of it.

A shell dies of SIGTERM, and the program that it runs continues; a daemon puts itself into a session
of its own. As a subreaper the supervisor becomes the parent of both. Whose they were tells

1. their process group or session, which is that of the process that the supervisor started;
2. a mark in the environment, which whoever sets itself apart takes along;
3. the moment: what falls to the supervisor when a process ends, and has hidden its mark (as nginx
   does, which writes its title over its environment), was that process's.

Sources: PR_SET_CHILD_SUBREAPER in prctl(2), setsid(2), proc(5).
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Collection

from chansup.supervisor.process import process_table
from chansup.supervisor.process.process_table import Identity, Row

VARIABLE = "CHANSUP_PROCESS"  # differs for each process that a supervisor starts
_LOOK_AGAIN = 1.0  # seconds; the end of each one that is known is seen at once
_PATIENCE = 10.0  # seconds between SIGTERM and SIGKILL for what was found late


class Orphans:
    """The children of the supervisor that it did not start."""

    def __init__(self, run: str, is_known: Callable[[int], bool]) -> None:
        """`run` begins every mark; `is_known` says whether the supervisor started a pid."""
        self._run = run
        self._is_known = is_known
        self._nobodys: set[Identity] = set()  # pid and start of those without a mark
        self._watched: dict[str, Remains] = {}  # by mark
        self._late: dict[int, float] = {}  # pid: loop time of its SIGTERM

    def remains(self, leader: Identity, mark: str, on_gone: Callable[[], None]) -> "Remains":
        """Return what the process `leader` leaves behind. It has ended, and is not reaped yet."""
        remains = self._watched[mark] = Remains(self, leader, mark, on_gone)
        remains.adopt(self._new(leader))
        return remains

    def forget(self, mark: str) -> None:
        """Take notice that nothing of that process is left."""
        self._watched.pop(mark, None)

    def of(self, leader: Identity, mark: str, adopted: Collection[Identity] = ()) -> list[Row]:
        """Return the living processes that one process left, with all that descends from them."""
        now = process_table.row(leader.pid)
        reused = now is not None and now.started != leader.started
        roots = [
            one.pid
            for one in self._rows()
            if (not reused and leader.pid in (one.group, one.session))
            or one.identity in adopted
            or process_table.environment_value(one.pid, VARIABLE) == mark
        ]
        return process_table.with_descendants(roots) if roots else []

    def look(self, living: Collection[str], now: float) -> None:
        """Note who has no mark, and end those whose process is not among `living` any more.

        `now` is a time of the loop's clock.
        """
        late: dict[int, float] = {}
        nobodys: set[Identity] = set()
        for one in self._rows():
            mark = process_table.environment_value(one.pid, VARIABLE)
            if mark is None or not mark.startswith(f"{self._run}."):
                nobodys.add(one.identity)
            elif mark not in living and mark not in self._watched:
                late[one.pid] = self._late.get(one.pid, now)
                if one.pid not in self._late or now - late[one.pid] > _PATIENCE:
                    forced = one.pid in self._late
                    send(one, signal.SIGKILL if forced else signal.SIGTERM)
        self._late, self._nobodys = late, nobodys

    def _new(self, leader: Identity) -> set[Identity]:
        """Return who has no mark and fell to the supervisor now, with the end of `leader`."""
        return {
            one.identity
            for one in self._rows()
            if one.identity not in self._nobodys
            and one.started >= leader.started
            and not self._has_a_living_leader(one, leader)
            and process_table.environment_value(one.pid, VARIABLE) is None
        }

    def _has_a_living_leader(self, one: Row, but: Identity) -> bool:
        leaders = {one.group, one.session} - {but.pid}
        return any(map(self._is_known, leaders))

    def _rows(self) -> list[Row]:
        strangers = (pid for pid in process_table.own_children() if not self._is_known(pid))
        found = map(process_table.row, strangers)
        return [one for one in found if one is not None and one.state not in "ZX"]


class Remains:
    """What one process left behind, until nothing of it is there any more."""

    def __init__(
        self, orphans: Orphans, leader: Identity, mark: str, on_gone: Callable[[], None]
    ) -> None:
        self.told: set[int] = set()  # pids that got the signal to end
        self._orphans = orphans
        self._leader = leader
        self._mark = mark
        self._on_gone = on_gone
        self._adopted: set[Identity] = set()
        self._number: int | None = None  # the signal for whoever is found
        self._descriptors: dict[int, int] = {}  # pid: pidfd
        self._again: asyncio.TimerHandle | None = None
        self._is_over = False

    def adopt(self, orphans: set[Identity]) -> None:
        """Count these among its own."""
        self._adopted |= orphans

    def rows(self) -> list[Row]:
        """Return the processes that live now."""
        return self._orphans.of(self._leader, self._mark, self._adopted)

    def watch(self) -> None:
        """Call `on_gone` once nothing is left."""
        self._look()

    def signal(self, number: int) -> None:
        """Send a signal to all that have not got it, and to whatever of theirs appears later."""
        if number == signal.SIGKILL:
            self.told.clear()
        self._number = number
        self._tell(self.rows())

    def _tell(self, found: list[Row]) -> None:
        if self._number is None:
            return
        for one in found:
            if one.pid not in self.told:
                self.told.add(one.pid)
                send(one, self._number)

    def _look(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._is_over:
            return
        found = self.rows()
        for pid in self._descriptors.keys() - {one.pid for one in found}:
            self._release(pid)
        if not found:
            self._is_over = True
            self._orphans.forget(self._mark)
            self._on_gone()
            return
        self._tell(found)
        loop = asyncio.get_running_loop()
        for one in found:
            if one.pid not in self._descriptors:
                with contextlib.suppress(OSError):  # ended, or no descriptor is left: looked for
                    descriptor = self._descriptors[one.pid] = os.pidfd_open(one.pid)
                    loop.add_reader(descriptor, self._ended, one.pid)
        self._again = loop.call_later(_LOOK_AGAIN, self._look)

    def _ended(self, pid: int) -> None:
        self._release(pid)
        self._look()

    def _release(self, pid: int) -> None:
        descriptor = self._descriptors.pop(pid)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


def send(one: Row, number: int) -> None:
    """Send a signal to the process of this row, and to no other that may have its pid by now."""
    try:
        descriptor = os.pidfd_open(one.pid)
    except OSError:
        return
    try:
        now = process_table.row(one.pid)
        if now is not None and now.identity == one.identity:
            signal.pidfd_send_signal(descriptor, number)
    except OSError:  # ended, or of a user that we may not end
        pass
    finally:
        os.close(descriptor)
