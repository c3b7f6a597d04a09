"""The boot of a process: from spawned to ready, or to too late.

A program that cannot say that it is ready is asked: `config.readiness`.
"""

import asyncio
import contextlib
import socket
import time
from pathlib import Path
from typing import Protocol

from chansup.backoff import Backoff
from chansup.config import readiness
from chansup.config.readiness import AcceptsTcp, AcceptsUnix, After, AnswersHttp, Notify, Readiness
from chansup.supervisor.logs.levels import Level
from chansup.supervisor.process.process import Process
from chansup.waiting import wait_for

LAST_WORDS = 0.5  # seconds for the stack dump of a process that is late, before it is killed
NO_ACCEPT = (
    "it accepts no connections: it must take its socket from descriptor 3 ({fd}) or LISTEN_FDS"
)
UNDEAD = 5.0  # seconds after SIGKILL until a process counts as stuck in the kernel

FIRST_PAUSE = 0.05  # seconds between two questions; each pause is longer than the last
LONGEST_PAUSE = 0.2
ANSWER_TIMEOUT = 5.0  # seconds for one connection or one HTTP response
MAX_STATUS_LINE = 1024  # bytes


class Say(Protocol):
    """Writes a line about a process to the log."""

    def __call__(self, text: str, process: Process, level: Level = "info") -> None:
        """Write `text`."""


async def wait(process: Process, say: Say) -> bool:
    """Wait until `process` is ready; False when it ended, or was too late and is killed."""
    asking = asyncio.create_task(_ask(process))
    try:
        decided = await wait_for(process.specification.start_timeout, process.settled)
    finally:
        asking.cancel()
    if not decided:
        await _end_late(process, say)
    if process.ready.is_set() and process.alive:
        say(f"ready after {time.monotonic() - process.started_monotonic:.1f} s", process)
        return True
    return False


async def _ask(process: Process) -> None:
    """Ask a program that does not say by itself when it is ready."""
    asked = readiness.parse(process.specification.ready)
    if isinstance(asked, readiness.Accepts):
        await process.accepts()
        process.became_ready()
    elif not isinstance(asked, Notify):
        await wait_until_ready(asked, Path(process.specification.command.directory))
        process.became_ready()


async def _end_late(process: Process, say: Say) -> None:
    limit = process.specification.start_timeout
    why = f": {NO_ACCEPT}" if process.specification.ready == "accepts" else ""
    say(f"not ready within start_timeout = {limit:g} s{why}, killing it", process)
    process.late = True
    if process.specification.launcher:
        process.dump_stacks()
        await wait_for(LAST_WORDS, process.ended)
    process.kill_alone()
    await wait_for(UNDEAD, process.ended)


async def wait_until_ready(asked: Readiness, directory: Path = Path()) -> None:
    """Return as soon as a program is ready that cannot say so itself. Giving up is the caller's.

    Paths of Unix sockets are relative to `directory`. `Notify` cannot be asked for: the notify
    socket hears of it, and this waits for ever.
    """
    if isinstance(asked, Notify):
        await asyncio.get_running_loop().create_future()
    if isinstance(asked, After):
        await asyncio.sleep(asked.seconds)
        return
    backoff = Backoff(FIRST_PAUSE, 1.5, LONGEST_PAUSE, jitter=0)
    while not await _is_ready(asked, directory):
        pause = backoff.next_delay()
        await asyncio.sleep(pause)


async def _is_ready(asked: Readiness, directory: Path) -> bool:
    """Ask once."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            if isinstance(asked, AcceptsUnix):
                reader, writer = await asyncio.open_unix_connection(directory / asked.path)
            elif isinstance(asked, AcceptsTcp | AnswersHttp):
                reader, writer = await asyncio.open_connection(
                    asked.host, asked.port, limit=MAX_STATUS_LINE
                )
            else:
                return False
            try:
                if _is_connected_to_itself(writer):
                    return False
                return not isinstance(asked, AnswersHttp) or await _answers(asked, reader, writer)
            finally:
                writer.transport.abort()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
        return False


def _is_connected_to_itself(writer: asyncio.StreamWriter) -> bool:
    # TCP allows it where nobody listens on a port that the kernel also gives to clients.
    own: socket.socket = writer.get_extra_info("socket")
    if own.family == socket.AF_UNIX:
        return False
    return bool(own.getsockname() == own.getpeername())


async def _answers(
    asked: AnswersHttp, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    host = f"[{asked.host}]" if ":" in asked.host else asked.host
    request = (
        f"GET {asked.target} HTTP/1.1\r\n"
        f"Host: {host}:{asked.port}\r\n"
        "User-Agent: chansup\r\n"
        "Accept: */*\r\n"
        "Connection: close\r\n\r\n"
    )
    writer.write(request.encode("ascii"))
    line = await reader.readline()
    version, _, rest = line.partition(b" ")
    status = rest[:3]
    return version.startswith(b"HTTP/1.") and status.isdigit() and 200 <= int(status) < 400
