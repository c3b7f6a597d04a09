"""The processes of this machine as the kernel lists them. Source: proc(5)."""

import os
from collections.abc import Iterable
from typing import NamedTuple


class Identity(NamedTuple):
    """Names one process for ever: a pid alone may be reused."""

    pid: int
    started: int  # clock ticks after boot


class Row(NamedTuple):
    """One process, from /proc/PID/stat."""

    pid: int
    state: str  # "Z" and "X": it has ended
    parent: int
    group: int
    session: int
    started: int

    @property
    def identity(self) -> Identity:
        """Return what names it for ever."""
        return Identity(self.pid, self.started)


def row(pid: int) -> Row | None:
    """Return one process; None if there is no such."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name before the last parenthesis may hold anything, parentheses included.
            fields = file.read().rpartition(b")")[2].split()
        numbers = (int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))
    except (OSError, IndexError, ValueError):
        return None
    return Row(pid, fields[0].decode(), *numbers)


def rows() -> dict[int, Row]:
    """Return every process by its pid."""
    listed = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return {one.pid: one for one in map(row, listed) if one is not None}


def own_children() -> list[int]:
    """Return the children of this process, orphans that fell to it included."""
    pid = os.getpid()
    try:
        found: list[int] = []
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN
        return [one.pid for one in rows().values() if one.parent == pid]
    return found


def with_descendants(roots: Iterable[int]) -> list[Row]:
    """Return the living processes among `roots`, and all that descend from them."""
    table = rows()
    children: dict[int, list[int]] = {}
    for one in table.values():
        children.setdefault(one.parent, []).append(one.pid)
    found: dict[int, Row] = {}
    left = list(roots)
    while left:
        pid = left.pop()
        if pid in table and pid not in found:
            found[pid] = table[pid]
            left += children.get(pid, ())
    return [one for one in found.values() if one.state not in "ZX"]


def environment_value(pid: int, name: str) -> str | None:
    """Return a variable that `pid` was started with; None if it had none, or hides it."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:  # ended, or of a user that we may not ask
        return None
    start = name.encode() + b"="
    for variable in variables:
        if variable.startswith(start):
            return variable[len(start) :].decode(errors="replace")
    return None
