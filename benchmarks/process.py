"""Processes that the benchmarks start, watch and stop."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

STOP_TIMEOUT = 40.0  # seconds from SIGTERM to SIGKILL
KEPT_LINES = 5_000


class StartError(Exception):
    """A server did not come up. The message ends with what it printed last."""


class Process:
    """A program with its descendants, in a session of its own, and what it prints."""

    def __init__(
        self, child: asyncio.subprocess.Process, arguments: Sequence[str], spawned: float
    ) -> None:
        self.arguments = arguments
        self.pid = child.pid
        self.spawned = spawned  # time.monotonic() just before
        self.lines: deque[tuple[float, str]] = deque(maxlen=KEPT_LINES)  # when, what
        self._child = child
        self._printed = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls,
        arguments: Sequence[str],
        *,
        directory: Path,
        environment: Mapping[str, str],
        descriptors: Sequence[int] = (),
    ) -> "Process":
        """Start it. Its output is read, so that it never blocks on a full pipe."""
        spawned = time.monotonic()
        child = await asyncio.create_subprocess_exec(
            *arguments,
            cwd=directory,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            pass_fds=descriptors,
        )
        return cls(child, arguments, spawned)

    @property
    def is_running(self) -> bool:
        """Say whether the process itself has not ended."""
        return self._child.returncode is None

    @property
    def exit_code(self) -> int | None:
        """The exit status; negative: the signal that ended it."""
        return self._child.returncode

    async def wait(self, timeout: float) -> int | None:
        """Wait for its end; return the exit status, or None when it runs on."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._child.wait()
        return self._child.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself, not to its children."""
        if self.is_running:
            os.kill(self.pid, number)

    def children(self) -> set[int]:
        """Return the pids of its direct children, cheaply enough to ask every millisecond."""
        pids: set[int] = set()
        try:
            for task in os.listdir(f"/proc/{self.pid}/task"):
                with open(f"/proc/{self.pid}/task/{task}/children") as file:
                    pids.update(int(pid) for pid in file.read().split())
        except (FileNotFoundError, ProcessLookupError):
            pass
        return pids

    def descendants(self) -> list[psutil.Process]:
        """Return all processes below this one."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    async def line(self, pattern: str, since: float, timeout: float) -> float | None:
        """Wait for a line that matches, printed after `since`; return when it came."""
        matcher = re.compile(pattern)
        deadline = time.monotonic() + timeout
        while True:
            for moment, text in self.lines:
                if moment >= since and matcher.search(text):
                    return moment
            self._printed.clear()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._printed.wait()
            except TimeoutError:
                return None

    def tail(self, count: int = 15) -> str:
        """Return the last lines it printed."""
        return "\n".join(text for _, text in list(self.lines)[-count:])

    async def stop(self) -> int | None:
        """Stop it and everything below it; return its exit status, None if it had to be killed."""
        descendants = self.descendants()
        self.send_signal(signal.SIGTERM)
        code = await self.wait(STOP_TIMEOUT)
        if code is None:
            self.send_signal(signal.SIGKILL)
            await self._child.wait()
        for descendant in descendants:
            with contextlib.suppress(psutil.NoSuchProcess):
                descendant.kill()  # psutil checks that the pid is still the same process
            with contextlib.suppress(ChildProcessError):
                os.waitpid(descendant.pid, 0)  # ours only if it was orphaned: see report.run
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):  # a killed descendant has closed the pipe by then
                await self._reader
        self._reader.cancel()
        return code

    async def _read(self) -> None:
        assert self._child.stdout is not None
        rest = b""
        while data := await self._child.stdout.read(65536):
            moment = time.monotonic()
            *lines, rest = (rest + data).split(b"\n")
            self.lines.extend((moment, line.decode(errors="replace")) for line in lines)
            self._printed.set()
        if rest:
            self.lines.append((time.monotonic(), rest.decode(errors="replace")))
            self._printed.set()


def processor_seconds(pid: int) -> float:
    """Return what all threads of a process have used, in nanosecond resolution."""
    total = 0
    with contextlib.suppress(FileNotFoundError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


@dataclass(frozen=True)
class Memory:
    """What a process takes, in bytes."""

    resident: int  # RSS
    proportional: int  # PSS: shared pages divided by their users
    private: int  # USS: what would be free without the process


def memory(pid: int) -> Memory:
    """Return what a process takes now."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    values = {
        name: int(size) * 1024
        for name, size in re.findall(r"^(\w+):\s+(\d+) kB", rollup, re.MULTILINE)
    }
    private = values["Private_Clean"] + values["Private_Dirty"]
    return Memory(values["Rss"], values["Pss"], private)


def free_port() -> int:
    """Return a loopback port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def output_of(
    arguments: Sequence[str], *, directory: Path, environment: Mapping[str, str], timeout: float
) -> tuple[int | None, str, float]:
    """Run a command to its end; return its exit status, what it printed, and how long it took."""
    process = await Process.start(arguments, directory=directory, environment=environment)
    try:
        code = await process.wait(timeout)
        took = time.monotonic() - process.spawned
    finally:
        await process.stop()
    return code, process.tail(200), took
