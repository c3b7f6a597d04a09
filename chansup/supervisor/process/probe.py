"""Asking a program whether it is ready, when it cannot say so itself: `config.readiness`."""

import asyncio
import contextlib
import socket
from pathlib import Path

from chansup.config.readiness import (
    AcceptsTcp,
    AcceptsUnix,
    After,
    AnswersHttp,
    Notify,
    Readiness,
)

FIRST_PAUSE = 0.05  # seconds between two questions; each pause is longer than the last
LONGEST_PAUSE = 0.2
ANSWER_TIMEOUT = 5.0  # seconds for one connection or one HTTP response
MAX_STATUS_LINE = 1024  # bytes


async def wait(asked: Readiness, directory: Path = Path()) -> None:
    """Return as soon as the program is ready. Ask again and again; it is the caller's to give up.

    Paths of Unix sockets are relative to `directory`. `Notify` cannot be asked for: the notify
    socket hears of it, and this waits for ever.
    """
    if isinstance(asked, Notify):
        await asyncio.get_running_loop().create_future()
    if isinstance(asked, After):
        await asyncio.sleep(asked.seconds)
        return
    pause = FIRST_PAUSE
    while not await _is_ready(asked, directory):
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)


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
