"""The supervisor's side of the guard: a tiny process that cleans up after a supervisor's SIGKILL.

What it does, and how it is told, stands in `launch/guard_process.py`.
"""

import asyncio
import contextlib
import os
import secrets
import subprocess
import sys

from chansup.backoff import Backoff
from chansup.protocol.run_mark import GUARD_PROGRAM

_PATIENCE = 2.0  # seconds for a guard that was told to leave


def new_run_id() -> str:
    """Return the secret that marks everything one supervisor starts."""
    return secrets.token_hex(16)


class Guard:
    """Keeps a guard process running beside the supervisor, from `start` to `stop`.

    Must be started before the first child, in the thread that starts the children.
    """

    def __init__(self, run: str) -> None:
        self.restarts = 0
        self._run = run
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._pipe = -1
        self._gone = asyncio.Event()
        self._backoff = Backoff()
        self._started = 0.0
        self._retry: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def pid(self) -> int | None:
        """The guard's pid: nobody else may reap or kill it."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the guard; from now on it is started again whenever it dies."""
        self._loop = asyncio.get_running_loop()
        self._spawn()

    def watch(self, group: int) -> None:
        """Have the process group of this child ended too, whatever its environment says."""
        self._groups.add(group)
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """Leave the group alone: it is empty, and its number may become somebody else's."""
        if group in self._groups:
            self._groups.discard(group)
            self._tell(f"-{group}\n")

    async def stop(self) -> None:
        """Send the guard away: the supervisor ends cleanly."""
        self._loop = None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._process is None:
            return
        self._tell("bye\n")
        self._close_pipe()
        try:
            await asyncio.wait_for(self._gone.wait(), _PATIENCE)
        except TimeoutError:
            if self._process is not None:
                self._process.kill()
                await self._gone.wait()

    def _spawn(self) -> None:
        assert self._loop is not None
        self._retry = None
        self._started = self._loop.time()
        try:
            reader, writer = os.pipe2(os.O_CLOEXEC)
        except OSError:  # no more descriptors: that passes
            self._spawn_later()
            return
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD_PROGRAM)],
                stdin=reader,
                stdout=subprocess.DEVNULL,  # not ours: who reads our output waits for its end
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=_environment(),
                start_new_session=True,
            )
        except OSError:  # no more processes or memory: both pass
            os.close(writer)
            self._spawn_later()
            return
        finally:
            os.close(reader)
        os.set_blocking(writer, False)
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError:
            os.close(writer)  # it ends by that
            process.wait()
            self._spawn_later()
            return
        self._process, self._pipe, self._pidfd = process, writer, pidfd
        self._gone.clear()
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)
        self._tell(self._run + "\n")
        for group in self._groups:
            self._tell(f"+{group}\n")

    def _ended(self) -> None:
        assert self._process is not None
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process.wait()
        self._process = None
        self._close_pipe()
        self._gone.set()
        if self._loop is not None:
            self.restarts += 1
            self._spawn_later()

    def _spawn_later(self) -> None:
        assert self._loop is not None
        delay = self._backoff.next_delay(self._loop.time() - self._started)
        self._retry = self._loop.call_later(delay, self._spawn)

    def _tell(self, line: str) -> None:
        # A pipe holds 64 KiB, thousands of lines; a guard that reads none of them is stopped, and
        # must not stop the loop as well.
        if self._pipe >= 0:
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(self._pipe, line.encode())

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def _environment() -> dict[str, str]:
    """Return what the interpreter itself may need to start, and nothing else."""
    names = ("LD_LIBRARY_PATH", "PATH")
    return {name: os.environ[name] for name in names if name in os.environ}
