"""What carrying costs a message: uvicorn alone, and under chansup with and without carry.

    python -m benchmarks.carry.echo [--rounds 5] [--clients 32] [--ws websockets-sansio] [--http]

Runs them in turns, with the same app and one process each, and shows medians of the rounds' ratios:
messages in a second, and processor time for a message, which a busy machine changes less.
"""

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from chansup.protocol import carry, launch, notify
from chansup.protocol.launch import Carry, Drain, Launch, Listener

APP = '''
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "http":
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": event["text"]})
'''  # fmt: skip
ALONE = """
import sys, socket, uvicorn
sys.path.insert(0, ".")
config = uvicorn.Config("echoing:app", log_level="warning", access_log=False, ws={ws!r},
                        loop="uvloop", ws_per_message_deflate=False)
uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
MESSAGE = b"\x81\xa0\0\0\0\0" + b"x" * 32
ECHO = len(MESSAGE) - 4
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Client(asyncio.Protocol):
    """Sends the next one when the echo of the one before is complete."""

    def __init__(self, is_http: bool) -> None:
        self.is_http = is_http
        self.opened = asyncio.get_running_loop().create_future()
        self.count = 0
        self.got = 0
        self.stopped = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.is_http:
            self.opened.set_result(None)
        else:
            transport.write(HANDSHAKE)

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            self.opened.set_result(None)
            return
        if self.is_http:
            done = data.endswith(b"ok")
        else:
            self.got += len(data)
            done = self.got >= ECHO
        if done:
            self.got = 0
            self.count += 1
            if not self.stopped:
                self.send()

    def send(self) -> None:
        self.transport.write(REQUEST if self.is_http else MESSAGE)


class Subject:
    """One way of serving the app."""

    def __init__(self, name: str, directory: Path, ws: str) -> None:
        self.name = name
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        os.set_inheritable(self.listener.fileno(), True)
        fd = self.listener.fileno()
        self.channel: socket.socket | None = None
        self.held: list[int] = []
        if name == "uvicorn":
            (directory / "alone.py").write_text(ALONE.format(ws=ws))
            command, environment, fds = [sys.executable, "alone.py", str(fd)], {}, [fd]
        else:
            theirs = None
            if name == "carry":
                self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                for one in (self.channel, theirs):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            document = Launch(
                pool="interface",
                slot=0,
                generation=1,
                server="uvicorn",
                application="echoing:app",
                gateway="asgi",
                directory=str(directory),
                listeners=[Listener(fd, "tcp", False)],
                options={"ws": ws, "loop": "uvloop", "ws_per_message_deflate": False},
                drain=Drain(0.0, 0.1, 0.1, 5.0),
                carry=Carry(theirs.fileno()) if theirs is not None else None,
            )
            command = [sys.executable, "-m", "chansup.launch", "uvicorn", "echoing:app"]
            environment = {
                launch.VARIABLE: launch.encode(document),
                notify.SOCKET_VARIABLE: str(directory / "nobody"),
                "PYTHONPATH": str(Path(__file__).parents[2]),
            }
            fds = [fd, *([theirs.fileno()] if theirs is not None else [])]
        self.process = subprocess.Popen(
            command, env={**os.environ, **environment}, pass_fds=fds, cwd=directory
        )

    def cpu(self) -> float:
        """Return the seconds of processor time so far."""
        with open(f"/proc/{self.process.pid}/schedstat") as file:
            return int(file.read().split()[0]) / 1e9

    def hold(self) -> None:
        """Take what the process says, as a supervisor does."""
        assert self.channel is not None
        _, descriptor = carry.receive_from_child(self.channel)
        if descriptor is not None:
            self.held.append(descriptor)

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self.listener.close()
        for descriptor in self.held:
            os.close(descriptor)


async def measure(
    subject: Subject, clients: int, seconds: float, is_http: bool
) -> tuple[float, float]:
    """Return messages in a second, and microseconds of processor time for each."""
    loop = asyncio.get_running_loop()
    if subject.channel is not None:
        loop.add_reader(subject.channel, subject.hold)
    protocols = []
    for _ in range(clients):
        _, protocol = await loop.create_connection(
            lambda: Client(is_http), "127.0.0.1", subject.port
        )
        await protocol.opened
        protocols.append(protocol)
    for protocol in protocols:
        protocol.send()
    await asyncio.sleep(0.3)
    count, cpu, began = sum(one.count for one in protocols), subject.cpu(), time.perf_counter()
    await asyncio.sleep(seconds)
    count = sum(one.count for one in protocols) - count
    cpu, took = subject.cpu() - cpu, time.perf_counter() - began
    for protocol in protocols:
        protocol.stopped = True
        protocol.transport.abort()
    if subject.channel is not None:
        loop.remove_reader(subject.channel)
    return count / took, cpu / count * 1e6


def main() -> None:
    """Measure in turns, and show the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--ws", default="websockets-sansio")
    parser.add_argument("--http", action="store_true")
    chosen = parser.parse_args()
    import uvloop

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "echoing.py").write_text(APP)
        subjects = [Subject(one, directory, chosen.ws) for one in ("uvicorn", "direct", "carry")]
        time.sleep(2.5)
        try:
            rates: dict[str, list[tuple[float, float]]] = {one.name: [] for one in subjects}
            for _ in range(chosen.rounds):
                for subject in subjects:
                    found = uvloop.run(
                        measure(subject, chosen.clients, chosen.seconds, chosen.http)
                    )
                    rates[subject.name].append(found)
        finally:
            for subject in subjects:
                subject.stop()
    for one, found in rates.items():
        rate = statistics.median(rate for rate, _ in found)
        cpu = statistics.median(cpu for _, cpu in found)
        ratios = [
            (rate / alone[0], cpu / alone[1])
            for (rate, cpu), alone in zip(found, rates["uvicorn"], strict=True)
        ]
        faster, dearer = (statistics.median(column) for column in zip(*ratios, strict=True))
        print(
            f"{one:8} {rate:8.0f} a second  {cpu:6.1f} µs  rate × {faster:.3f}  time × {dearer:.3f}"
        )


if __name__ == "__main__":
    main()
