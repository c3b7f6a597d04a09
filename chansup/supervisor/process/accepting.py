"""Whether a process takes connections from a listening socket that others have as well.

Sources: proc(5) on fd, fdinfo (``tfd`` of an epoll descriptor) and syscall.
"""

import os
import platform
import re
import struct
from collections.abc import Iterator

from chansup.supervisor.process import process_table

# By machine, number and name of the calls in which a process waits for a client, see syscalls(2)
_CALLS = {
    "x86_64": {43: "accept", 288: "accept", 7: "poll", 271: "poll", 23: "select", 270: "select"},
    "aarch64": {202: "accept", 242: "accept", 73: "poll", 72: "select"},
}.get(platform.machine(), {})
_MOST = 65536  # descriptors that a call names
_POLLED = struct.Struct("=ihh")  # pollfd of poll(2)
_TARGET = re.compile(r"^tfd:\s*(\d+)", re.MULTILINE)


def has(pid: int, inode: int) -> bool:
    """Whether the process, or one that descends from it, has the socket of that inode open."""
    return any(_descriptors(one, inode) for one in _family(pid))


def waits(pid: int, inode: int) -> bool | None:
    """Whether it, or one that descends from it, waits for connections to that socket.

    In accept(2), poll(2), select(2) or epoll(7).

    None: the kernel does not let us see.
    """
    unseen = False
    for one in _family(pid):
        descriptors = _descriptors(one, inode)
        if not descriptors:
            continue
        try:
            if _is_in_epoll(one, descriptors) or _is_waited_for(one, descriptors):
                return True
        except PermissionError:
            unseen = True
        except OSError:  # it ended
            continue
    return None if unseen or not _CALLS else False


def _family(pid: int) -> Iterator[int]:
    yield pid
    for one in process_table.with_descendants([pid]):
        if one.pid != pid:
            yield one.pid


def _descriptors(pid: int, inode: int) -> set[str]:
    """Return the descriptors of a process that are the socket of that inode."""
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{name}")
            except FileNotFoundError:
                continue
            if target == f"socket:[{inode}]":
                found.add(name)
    except OSError:
        return set()
    return found


def _is_in_epoll(pid: int, descriptors: set[str]) -> bool:
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{name}") != "anon_inode:[eventpoll]":
                continue
            with open(f"/proc/{pid}/fdinfo/{name}") as file:
                if descriptors & set(_TARGET.findall(file.read())):
                    return True
        except FileNotFoundError:
            continue
    return False


def _is_waited_for(pid: int, descriptors: set[str]) -> bool:
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/syscall") as file:
            words = file.read().split()
        if len(words) < 3:  # it runs
            continue
        number, first, second = (int(word, 0) for word in words[:3])
        call = _CALLS.get(number)
        if call == "accept":
            named = {first}
        elif call == "poll":
            named = set(_polled(pid, first, min(second, _MOST)))
        elif call == "select" and second:
            named = set(_selected(pid, second, min(first, _MOST)))
        else:
            continue
        if descriptors & set(map(str, named)):
            return True
    return False


def _polled(pid: int, address: int, count: int) -> Iterator[int]:
    for descriptor, _, _ in _POLLED.iter_unpack(_memory(pid, address, count * _POLLED.size)):
        yield descriptor


def _selected(pid: int, address: int, count: int) -> Iterator[int]:
    content = _memory(pid, address, (count + 7) // 8)
    for place, byte in enumerate(content):
        yield from (place * 8 + bit for bit in range(8) if byte >> bit & 1)


def _memory(pid: int, address: int, size: int) -> bytes:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        file.seek(address)
        content = file.read(size) or b""
    return content if len(content) == size else b""
