"""Runs `volley.c`: a client that costs little, for messages and requests one after the other."""

import asyncio
import functools
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.process import Process
from benchmarks.relay.sockets import EchoSockets, frame, handshake
from tests.load import KeepAlive

SOURCE = Path(__file__).with_name("volley.c")


@dataclass(frozen=True)
class Volley:
    """What came back. Times are seconds; the latencies were measured to the microsecond."""

    answers: int
    failed: int
    seconds: float
    p50: float
    p99: float
    processor: float = 0.0  # that the client itself used

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.answers / self.seconds if self.seconds else 0.0


def has_compiler() -> bool:
    """Say whether the program in C can be used; a Python client stands in for it otherwise."""
    return shutil.which("cc") is not None


async def messages(
    address: str, connections: int, seconds: float, payload: bytes = b"0123456789abcdef"
) -> Volley:
    """Have WebSockets send a message, wait for the echo, and go on at once."""
    if not has_compiler():
        return await _messages_in_python(address, connections, seconds)
    opening = handshake(address, "/echo")
    return await _run(address, connections, seconds, 2 + len(payload), opening, frame(payload))


async def requests(address: str, connections: int, seconds: float) -> Volley:
    """Have kept-alive connections ask for `/`, wait for the answer, and go on at once."""
    if not has_compiler():
        return await _requests_in_python(address, connections, seconds)
    request = f"GET / HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()
    size = await _size_of_answer(address, request)
    return await _run(address, connections, seconds, size, b"", request)


@functools.cache
def _program() -> "tempfile.TemporaryDirectory[str]":
    """Return where the compiled program is, until this process ends."""
    directory = tempfile.TemporaryDirectory(prefix="volley-")
    target = Path(directory.name) / "volley"
    subprocess.run(["cc", "-O2", "-o", str(target), str(SOURCE)], check=True)
    return directory


async def _run(
    address: str, connections: int, seconds: float, size: int, opening: bytes, request: bytes
) -> Volley:
    with tempfile.TemporaryDirectory(prefix="volley-") as directory:
        files = [Path(directory) / "opening", Path(directory) / "request"]
        for file, content in zip(files, (opening, request), strict=True):
            file.write_bytes(content)
        port = address.rpartition(":")[2]
        numbers = (port, connections, seconds, size)
        program = await Process.start(
            [f"{_program().name}/volley", *map(str, numbers), *map(str, files)],
            directory=Path("/"),
            environment={},
        )
        try:
            code = await program.wait(seconds + 60)
        finally:
            await program.stop()
    if code != 0:
        raise RuntimeError(f"volley exited {code}:\n{program.tail()}")
    said = msgspec.json.decode(program.tail(1).encode(), type=Volley)
    return Volley(
        said.answers, said.failed, said.seconds, said.p50 / 1e6, said.p99 / 1e6, said.processor
    )


async def _size_of_answer(address: str, request: bytes) -> int:
    """Ask once, and return how many bytes the answer has."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            ]
    finally:
        writer.close()
    if not lengths:
        raise RuntimeError(f"{address}: no Content-Length in {head!r}")
    return len(head) + lengths[0]


async def _messages_in_python(address: str, connections: int, seconds: float) -> Volley:
    sockets = EchoSockets(address, connections, rate=float("inf"), burst=1)
    async with sockets:
        before, begun = sockets.result.echoed, time.monotonic()
        await asyncio.sleep(seconds)
        answers, took = sockets.result.echoed - before, time.monotonic() - begun
    mean = connections * took / max(1, answers)
    return Volley(answers, sockets.result.closed, took, mean, mean)


async def _requests_in_python(address: str, connections: int, seconds: float) -> Volley:
    load = KeepAlive(address, connections, interval=0)
    async with load:
        await asyncio.sleep(seconds)
    result = load.result
    return Volley(
        result.succeeded, result.failed, seconds, result.latency(0.5), result.latency(0.99)
    )
