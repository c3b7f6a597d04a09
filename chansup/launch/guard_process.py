"""Ends everything that a supervisor started, when the supervisor was killed with SIGKILL.

Children die with their supervisor (PR_SET_PDEATHSIG); what they forked does not. This process
reads a pipe on its standard input whose other end only the supervisor holds, line by line:

- first the run id that stands in the environment of everything the supervisor starts;
- ``+PID`` and ``-PID``: a process group to end as well, or no more. A program that rewrites its
  title may overwrite what /proc/PID/environ shows; its group still tells where it belongs;
- ``bye``: a clean stop, nothing to do.

When the pipe ends without ``bye`` it kills until nothing is left. Source: proc(5).
"""

import os
import signal
import sys
import time
from collections.abc import Iterator

VARIABLE = b"CHANSUP_RUN"
PATIENCE = 60.0  # seconds; what survives SIGKILL for longer is stuck in the kernel
CLEAN_LOOKS = 4  # in a row, with nothing to kill: nothing is left
FORGET_AFTER = 20  # looks


def main() -> int:
    """Follow the supervisor until it ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    lines = _lines(0)
    run = next(lines, b"")
    groups: dict[int, str] = {}  # by id: when its leader started
    for line in lines:
        if line == b"bye":
            return 0
        if line.startswith(b"+"):
            groups[int(line[1:])] = _started(int(line[1:]))
        elif line.startswith(b"-"):
            groups.pop(int(line[1:]), None)
    if run:
        kill_all(VARIABLE + b"=" + run, groups)
    return 0


def kill_all(mark: bytes, groups: dict[int, str]) -> None:
    """Kill what has `mark` in its environment or runs in one of `groups`, until none is left."""
    deadline = time.monotonic() + PATIENCE
    pause = 0.0
    clean = looks = 0
    others: set[int] = set()
    killed: set[int] = set()
    # One that forks and ends at once can slip through a look at all processes, but not many times.
    while clean < CLEAN_LOOKS and time.monotonic() < deadline:
        looks += 1
        if looks % FORGET_AFTER == 0:  # a pid may be reused
            others.clear()
        found = _kill_once(mark, groups, others)
        clean = 0 if found else clean + 1
        # Who forks all the time is caught by looking fast; the others only have to die.
        pause = min(pause + 0.002, 0.1) if killed.issuperset(found) else 0.0
        killed.update(found)
        time.sleep(pause)


def _kill_once(mark: bytes, groups: dict[int, str], others: set[int]) -> list[int]:
    """Kill what can be found now; return what that was. Note who does not belong in `others`."""
    ours = {group for group, start in groups.items() if _started(group) in ("", start)}
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in others:
            continue
        pid = int(name)
        belongs = pid != os.getpid() and _belongs(pid, mark, ours)
        if belongs:
            found.append(pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:  # ended meanwhile
                pass
        elif belongs is not None:
            others.add(pid)
    return found


def _belongs(pid: int, mark: bytes, groups: set[int]) -> bool | None:
    """Return whether to kill `pid`; None if that cannot be said now, in the middle of an exec."""
    fields = _stat(pid)
    if not fields or fields[0] in ("Z", "X"):
        return None
    if int(fields[2]) in groups:
        return True
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environ = file.read()
    except OSError:  # ended, or another user's
        return False
    return mark in environ.split(b"\0") if environ else None


def _started(pid: int) -> str:
    """Return when `pid` started, in clock ticks since boot; nothing if there is no such process."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third, the state, on."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field, the name, may hold anything, spaces and parentheses included.
            return file.read().rpartition(b")")[2].decode().split()
    except OSError:
        return []


def _lines(descriptor: int) -> Iterator[bytes]:
    """Yield whole lines until the pipe ends."""
    rest = b""
    while chunk := os.read(descriptor, 65536):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


if __name__ == "__main__":
    sys.exit(main())
