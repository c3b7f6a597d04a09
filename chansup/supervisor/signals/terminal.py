"""The terminal that the supervisor was started on, and its end.

SIGHUP has two meanings: a person or a script asks for a reload, or the terminal was closed. The
kernel, or the shell of the terminal, sends the second. Sources: proc(5), credentials(7), setsid(2).
"""

import asyncio
import contextlib
import os
from pathlib import Path

_PATIENCE = 0.5  # seconds between the SIGHUP of a shell and its own end


class Terminal:
    """The controlling terminal, while there is one."""

    def __init__(self) -> None:
        self.is_there = _controlling_terminal() != 0

    def forget(self) -> None:
        """Take every SIGHUP for a request from now on."""
        self.is_there = False

    def look(self) -> None:
        """Forget it if it has gone: no SIGHUP came with its end, so the next one means a reload."""
        if self.is_there and _controlling_terminal() == 0:
            self.forget()

    async def was_closed(self) -> bool:
        """Say whether the SIGHUP that a process just sent tells of the end of the terminal.

        A shell that ends sends it to its jobs first and takes the terminal along a moment later.
        """
        if not self.is_there:
            return False
        if _controlling_terminal() != 0:
            await _end_of(os.getsid(0), _PATIENCE)
        return _controlling_terminal() == 0


async def _end_of(pid: int, patience: float) -> None:
    """Wait until the process `pid` has ended, `patience` seconds at most."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _controlling_terminal() -> int:
    """Return the device number of this process's controlling terminal; 0 if there is none."""
    # The name before the last parenthesis may hold anything, spaces and parentheses included.
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[4])
