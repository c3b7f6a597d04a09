"""Slow readers and stalled uploads: what they take, and whether others notice.

Three ways in which a stream gets stuck, a few of each at a time: a client that reads a response of
1 GB slowly, a client that stops in the middle of its upload, and an app that does not read what a
client sends as fast as it can.
"""

import asyncio
import contextlib
import socket
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import report
from benchmarks.contenders import INTERFACE, WORKERS, Contender, Relay, Site
from benchmarks.process import StartError, memory
from benchmarks.relay.contest import peer
from benchmarks.relay.options import add_contenders, changed
from benchmarks.relay.sockets import EchoSockets, quantiles
from tests.load import FreshConnections

MODULE = "benchmarks.relay.flow"
BAR = 256 * 1024  # bytes of a stuck stream, in the interface process and the worker together
SAMPLE = 0.5  # seconds between two looks at the memory
LARGE = 10**9  # bytes
SIP = 16 * 1024  # that a slow reader reads, each SIP_INTERVAL
SIP_INTERVAL = 0.25  # seconds
BEGUN = 2**20  # bytes of an upload that then stalls
REQUESTS = 100.0  # per second, of others
MESSAGES = 500.0  # per second, of others
SOCKETS = 50


@dataclass(frozen=True)
class Plan:
    """How many, and for how long. Times are seconds."""

    streams: int = 20
    seconds: float = 10.0  # of each phase


@dataclass(frozen=True)
class Phase:
    """What was seen in one phase. Bytes and seconds."""

    name: str
    grown: dict[str, int]  # the most, by part
    p50: float
    p99: float  # of others' requests
    failed: int  # of them
    slowest: float  # of others' messages
    closed: int  # of their WebSockets


Stuck = Callable[[str], Awaitable[None]]
Parts = dict[str, set[int]]  # pids


async def _read_slowly(address: str) -> None:
    with _dial(address) as connection:
        await _send(connection, f"GET /large HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
        loop = asyncio.get_running_loop()
        while await loop.sock_recv(connection, SIP):
            await asyncio.sleep(SIP_INTERVAL)


async def _stall(address: str) -> None:
    with _dial(address) as connection:
        await _send(connection, _upload(address, "/upload") + bytes(BEGUN))
        await asyncio.get_running_loop().sock_recv(connection, SIP)


async def _push(address: str) -> None:
    with _dial(address) as connection:
        await _send(connection, _upload(address, "/stall"))
        while True:
            await _send(connection, bytes(65536))


STUCK: dict[str, Stuck] = {
    "slow readers of 1 GB": _read_slowly,
    "uploads that stop": _stall,
    "uploads nobody reads": _push,
}


def _upload(address: str, path: str) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {LARGE}\r\n"
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()


def _dial(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SIP)
    connection.connect((host, int(port)))
    connection.setblocking(False)
    return connection


async def _send(connection: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(connection, data)


async def measure(carriers: list[str], peers: list[str], plan: Plan) -> report.Report:
    """Run every contender and report."""
    result = report.Report("Relay mode: slow readers and stalled uploads")
    for is_relay, servers in ((True, carriers), (False, peers)):
        for server in servers:
            await _run(server, is_relay, plan, result)
    result.notes.append(
        f"{plan.streams} stuck streams at a time, for {plan.seconds:g} s each way. KiB each: the "
        "most by which the private memory (USS) of all of them exceeded what it was before, by "
        f"stream. Others: {REQUESTS:.0f} GET/s, and {SOCKETS} WebSockets with {MESSAGES:.0f} "
        "messages/s in all."
    )
    return result


async def _run(server: str, is_relay: bool, plan: Plan, result: report.Report) -> None:
    with tempfile.TemporaryDirectory(prefix="relay-") as root:
        site = Site(Path(root), 1, 0)
        site.releases.deploy("1")
        contender = (Relay if is_relay else peer)(server, site)
        try:
            async with contender:
                phases = await _phases(contender, plan)
        except (StartError, TimeoutError) as error:
            report.progress(f"{contender.label}: {error}")
            result.claim(f"{contender.label} serves", str(error).splitlines()[0], not is_relay)
            return
    before = phases[0]
    result.details[contender.label] = [vars(phase) for phase in phases]
    for phase in phases:
        result.rows.append(_row(contender.label, phase, plan, is_relay))
        if is_relay and phase is not before:
            each = sum(phase.grown.values()) / plan.streams
            result.claim(
                f"{contender.label}: {phase.name} take at most {BAR // 1024} KiB each",
                f"{each / 1024:.0f} KiB",
                each <= BAR,
            )
            result.claim(
                f"{contender.label}: {phase.name} do not disturb others (p99 not doubled, "
                "or within 5 ms)",
                f"{before.p99 * 1000:.1f} → {phase.p99 * 1000:.1f} ms, {phase.failed} failed",
                phase.p99 <= max(2 * before.p99, before.p99 + 0.005)
                and phase.failed == phase.closed == 0,
            )


async def _phases(contender: Contender, plan: Plan) -> list[Phase]:
    requests = FreshConnections(contender.address, REQUESTS)
    sockets = EchoSockets(contender.address, SOCKETS, rate=MESSAGES, burst=1)
    phases = []
    async with requests, sockets:
        await asyncio.sleep(min(2.0, plan.seconds))
        for name, stuck in ((None, None), *STUCK.items()):
            report.progress(f"{contender.label}: {name or 'before'}")
            answered, failed = len(requests.result.latencies), requests.result.failed
            closed = sockets.result.closed
            sockets.take_waits()
            grown = await _grown(contender, stuck, plan)
            latencies = list(requests.result.latencies[answered:])
            p50, p99, _ = quantiles(latencies)
            phases.append(
                Phase(
                    name or "before",
                    grown,
                    p50,
                    p99,
                    requests.result.failed - failed,
                    max(sockets.take_waits()),
                    sockets.result.closed - closed,
                )
            )
            await asyncio.sleep(1.0)  # what was stuck goes
    return phases


async def _grown(contender: Contender, stuck: Stuck | None, plan: Plan) -> dict[str, int]:
    """Return by how much each part grew at most."""
    parts = _parts(contender)  # not each time: to look through all processes takes a while
    looks = [_taken(parts) for _ in range(3)]
    before = {part: int(statistics.median(look[part] for look in looks)) for part in looks[0]}
    grown = dict.fromkeys(before, 0)
    clients = [
        asyncio.create_task(_quietly(stuck(contender.address)))
        for _ in range(plan.streams if stuck else 0)
    ]
    loop = asyncio.get_running_loop()
    end = loop.time() + plan.seconds
    while loop.time() < end:
        await asyncio.sleep(SAMPLE)
        for part, taken in _taken(parts).items():
            grown[part] = max(grown[part], taken - before[part])
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    return grown


async def _quietly(stuck: Awaitable[None]) -> None:
    with contextlib.suppress(OSError):
        await stuck


def _parts(contender: Contender) -> Parts:
    if isinstance(contender, Relay):
        return {pool: contender.pids_of(pool) for pool in (INTERFACE, WORKERS)}
    return {"server": contender.pids()}


def _taken(parts: Parts) -> dict[str, int]:
    return {part: sum(memory(pid).private for pid in pids) for part, pids in parts.items()}


def _row(label: str, phase: Phase, plan: Plan, is_relay: bool) -> report.Row:
    def each(part: str) -> str | None:
        grown = phase.grown.get(part)
        if grown is None or phase.name == "before":
            return None
        return f"{grown / plan.streams / 1024:.0f}"

    return {
        "contender": label,
        "meanwhile": phase.name,
        "interface or server, KiB each": each(INTERFACE if is_relay else "server"),
        "worker, KiB each": each(WORKERS),
        "others' p50, ms": phase.p50 * 1000,
        "p99, ms": phase.p99 * 1000,
        "failed": phase.failed,
        "slowest message, ms": phase.slowest * 1000,
        "closed": phase.closed,
    }


def main() -> int:
    """Run from the command line."""
    options = report.parser(MODULE, __doc__)
    add_contenders(options)
    options.add_argument("--streams", type=int, help="stuck at a time")
    options.add_argument("--seconds", type=float, help="of each phase")
    arguments = options.parse_args()
    plan = changed(Plan(seconds=3.0) if arguments.quick else Plan(), arguments)
    return report.run(MODULE, arguments, lambda: measure(arguments.servers, arguments.peers, plan))


if __name__ == "__main__":
    sys.exit(main())
