"""Processes that nobody waits for: orphans that fall to the supervisor, and the last sweep.

Sources: PR_SET_CHILD_SUBREAPER in prctl(2), waitid(2), proc(5).
"""

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
_LOOK_AGAIN = 0.5  # seconds, while the zombie of a known child stands in the way
_FORGET_AFTER = 20  # looks at all processes
_EXITED = os.WEXITED | os.WNOHANG


def become_subreaper() -> bool:
    """Have orphaned descendants reparented to this process; False if the kernel cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(PR_SET_CHILD_SUBREAPER, *map(ctypes.c_ulong, (1, 0, 0, 0))) == 0)


class Reaper:
    """Reaps the children that are nobody's, and leaves known ones to those who wait for them."""

    def __init__(
        self,
        known: Callable[[int], bool],
        on_known: Callable[[int], None] = lambda pid: None,
        spare: Callable[[], Collection[int]] = tuple,
    ) -> None:
        """`known` says whether somebody waits for a pid; `on_known` hears that such a one ended.

        `spare` returns the pids that a sweep leaves alone, with what descends from them.
        """
        self.reaped = 0  # strangers so far
        self._known = known
        self._on_known = on_known
        self._spare = spare
        self._loop: asyncio.AbstractEventLoop | None = None
        self._again: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Reap on every SIGCHLD from now on."""
        self._loop = loop
        loop.add_signal_handler(signal.SIGCHLD, self.reap)
        self.reap()

    def stop(self) -> None:
        """Reap no more."""
        if self._loop is not None:
            self._loop.remove_signal_handler(signal.SIGCHLD)
            self._loop = None
        self._forget_timer()

    def reap(self) -> None:
        """Reap every stranger that has ended; never waits."""
        self._forget_timer()
        told: set[int] = set()
        while (pid := _first_zombie()) is not None:
            if not self._known(pid):
                self._reap_stranger(pid)
            elif pid not in told:
                told.add(pid)
                self._on_known(pid)
            else:  # nobody has taken it yet, and it hides the zombies behind it
                self._reap_behind()
                if self._loop is not None:
                    self._again = self._loop.call_later(_LOOK_AGAIN, self.reap)
                return

    def _reap_behind(self) -> None:
        for pid, parent, state in _processes():
            if parent == os.getpid() and state == "Z" and not self._known(pid):
                self._reap_stranger(pid)

    def _reap_stranger(self, pid: int) -> None:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG)[0]:
                self.reaped += 1

    def _forget_timer(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None

    async def sweep(self, deadline: float) -> list[int]:
        """Kill every descendant that is left, again and again until there is none.

        Returns the pids that are still there at `deadline`, a time of the loop's clock: they are
        stuck in the kernel, most likely.
        """
        loop = asyncio.get_running_loop()
        scan = _Scan(self._spare)
        killed: set[int] = set()
        dead: set[int] = set()
        pause = 0.0
        while True:
            living, zombies = scan.descendants()
            # One that ended meanwhile may have forked after the list of processes was read, so only
            # a look that finds no new zombie proves that all are gone. (Orphans fall to us, and
            # cannot vanish before we reap them.)
            if not living and dead.issuperset(zombies):
                return []
            dead = set(zombies)
            for pid in living:
                _kill(pid)
            if loop.time() >= deadline:
                return living
            # Who forks all the time is caught by looking fast; the others only have to die.
            pause = min(pause + 0.005, 0.1) if killed.issuperset(living) else 0.0
            killed.update(living)
            await asyncio.sleep(pause)
            self.reap()


class _Scan:
    """Looks for descendants again and again, and remembers who is none, to be fast."""

    def __init__(self, spare: Callable[[], Collection[int]] = tuple) -> None:
        self._spare = spare
        self._others: set[int] = set()
        self._looks = 0

    def descendants(self) -> tuple[list[int], list[int]]:
        """Return the living descendants of this process, and the zombies among them."""
        self._looks += 1
        if self._looks % _FORGET_AFTER == 0:  # a pid may be reused
            self._others.clear()
        spare = self._spare()
        parents: dict[int, int] = {}
        states: dict[int, str] = {}
        for pid, parent, state in _processes(self._others):
            parents[pid], states[pid] = parent, state
        living: list[int] = []
        zombies: list[int] = []
        own = os.getpid()
        for pid, state in states.items():
            line = [pid]
            while line[-1] != own and line[-1] in parents and line[-1] not in spare:
                line.append(parents[line[-1]])
                if len(line) > len(parents):  # a circle, of pids that were reused meanwhile
                    break
            if line[-1] != own:
                if line[-1] == 0 or line[-1] in self._others:  # not merely cut by an end meanwhile
                    self._others.add(pid)
            elif pid != own:
                (zombies if state in "ZX" else living).append(pid)
        return living, zombies


def _kill(pid: int) -> None:
    """Kill `pid` if it is still a descendant: its number may be somebody else's by now."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if _descends(pid):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _descends(pid: int) -> bool:
    own = os.getpid()
    while pid not in (0, own):
        try:
            pid = _parent_and_state(pid)[0]
        except (OSError, ValueError):
            return False
    return pid == own


def _first_zombie() -> int | None:
    """Return a child that ended, without reaping it."""
    try:
        result = os.waitid(os.P_ALL, 0, _EXITED | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if result is None else result.si_pid


def _processes(but: Collection[int] = ()) -> Iterator[tuple[int, int, str]]:
    """Yield pid, parent and state of every process."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in but:
            with contextlib.suppress(OSError, ValueError):  # ended meanwhile
                yield int(name), *_parent_and_state(int(name))


def _parent_and_state(pid: int) -> tuple[int, str]:
    content = Path(f"/proc/{pid}/stat").read_bytes()
    # The name before the last parenthesis may hold anything, spaces and parentheses included.
    state, parent = content.rpartition(b")")[2].split(None, 2)[:2]
    return int(parent), state.decode()
