"""Real servers: uvicorn with a small app, and raw ones that answer as no server should."""

import asyncio
import contextlib
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running import PATIENCE, wait_for

ROOT = Path(__file__).parents[2]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Result:
    """What a run printed, and how it ended."""

    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code = code
        self.stdout = stdout
        self.stderr = stderr

    def __getitem__(self, key: str) -> Any:
        return json.loads(self.stdout)[key]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "chansup", "bench", *arguments]


def bench(*arguments: str) -> Result:
    done = subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


def measured(*arguments: str) -> Result:
    return bench(*arguments, "--json")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def uvicorn(*options: str) -> Iterator[str]:
    """Run the app; yield "host:port"."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "uvicorn", "tests.bench.app:app", "--no-access-log"),
                *("--fd", str(listener.fileno()), "--log-level", "warning", *options),
            ],
            cwd=ROOT,
            pass_fds=[listener.fileno()],
        )
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"  # whoever connects early waits
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with uvicorn() as address:
        yield address


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    made = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*made.split(), *files], check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def raw() -> Iterator[Callable[[Handler], str]]:
    """Serve connections with a coroutine, in a thread; return "host:port"."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    servers: list[asyncio.Server] = []

    def serve(handler: Handler) -> str:
        async def start() -> str:
            async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                with contextlib.suppress(OSError, EOFError, ssl.SSLError):
                    await handler(reader, writer)
                writer.close()

            server = await asyncio.start_server(handle, "127.0.0.1", 0)
            servers.append(server)
            return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

        return asyncio.run_coroutine_threadsafe(start(), loop).result(PATIENCE)

    async def finish() -> None:
        for server in servers:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    yield serve
    asyncio.run_coroutine_threadsafe(finish(), loop).result(PATIENCE)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(PATIENCE)
    loop.close()


async def request(reader: asyncio.StreamReader) -> bytes:
    """Read the head of a request."""
    return await reader.readuntil(b"\r\n\r\n")


def answering(answer: bytes, *, close: bool = False) -> Handler:
    """Answer each request with the same bytes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request(reader)
            writer.write(answer)
            await writer.drain()
            if close:
                return

    return handle


__all__ = [
    "answering",
    "bench",
    "command",
    "free_port",
    "measured",
    "request",
    "uvicorn",
    "wait_for",
]
