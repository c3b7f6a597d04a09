"""Clients that read nothing and uploads that stall: they disturb nobody, and cost next to nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import psutil
import pytest

from tests.relay.stage import Stage, stage
from tests.relay.talk import PATIENCE, ask, dial

MEBIBYTE = 1024 * 1024
SERVERS = ["uvicorn", "granian", "hypercorn"]  # daphne buffers whatever it is given


def memory(site: Stage) -> int:
    """Return the resident bytes of interface and worker together."""
    pids = site.pids("interface") + site.pids("web")
    return sum(psutil.Process(pid).memory_info().rss for pid in pids)


async def latencies(site: Stage, number: int) -> list[float]:
    """Ask often, over HTTP and a WebSocket, and return how long the answers took, in order."""
    times = []
    connection = await dial(site.address, "/echo/fast")
    async with httpx.AsyncClient(base_url=site.url, timeout=PATIENCE) as client:
        for count in range(number):
            began = time.perf_counter()
            assert (await client.get("/pid")).status_code == 200
            assert await ask(connection, f"{count} 0 ") == f"{count} 0 "
            times.append(time.perf_counter() - began)
    await connection.close()
    return sorted(times)


class Slow:
    """Somebody who sends a head, and reads and sends nothing more."""

    def __init__(self, site: Stage, head: str, body: bytes = b"") -> None:
        self._site = site
        self._start = head.replace("\n", "\r\n").encode() + b"\r\nHost: slow\r\n\r\n" + body
        self.writer: asyncio.StreamWriter | None = None
        self.reader: asyncio.StreamReader | None = None

    async def begin(self) -> None:
        host, port = self._site.address.split(":")
        self.reader, self.writer = await asyncio.open_connection(host, int(port), limit=1024)
        self.writer.write(self._start)
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]

    def end(self) -> None:
        assert self.writer is not None
        self.writer.transport.abort()


async def settled(measure: Callable[[], float], tolerance: float) -> float:
    """Wait until a measure does not grow any more, and return it."""
    async with asyncio.timeout(PATIENCE):
        before, unmoved = measure(), 0
        while unmoved < 5:
            await asyncio.sleep(0.1)
            now = measure()
            unmoved = unmoved + 1 if now <= before + tolerance else 0
            before = now
    return before


async def undisturbed(site: Stage, disturbance: Callable[[], Awaitable[None]]) -> float:
    """Have others served before and during a disturbance; return the growth of memory, in MiB."""
    await latencies(site, 20)  # warm
    before, size = await latencies(site, 50), memory(site)
    await disturbance()
    await settled(lambda: memory(site), MEBIBYTE / 4)
    during = await latencies(site, 50)
    growth = (memory(site) - size) / MEBIBYTE
    print(
        f"median {before[25] * 1000:.2f} ms, then {during[25] * 1000:.2f} ms; "
        f"90 % in {before[45] * 1000:.2f} ms, then {during[45] * 1000:.2f} ms; {growth:.1f} MiB more"
    )
    return growth


@pytest.mark.parametrize("server", SERVERS)
def test_who_does_not_read_a_large_response(tmp_path: Path, server: str) -> None:
    with stage(tmp_path, server=server) as site:
        slow = [Slow(site, f"GET /big/sent?size={10**9} HTTP/1.1") for _ in range(10)]

        async def disturb() -> None:
            for one in slow:
                await one.begin()

        async def run() -> None:
            growth = await undisturbed(site, disturb)
            # Of 10 GB. The server's own buffers and the heap's whims are in it; benchmarks/relay is exact.
            assert growth < 10 * 2.5
            for one in slow:
                one.end()
            sent = await asyncio.to_thread(site.wait_for_line, "sent", 10)
            # What the app could send: the windows, and what the kernel holds for the client.
            assert all(0 < int(each) < 16 * MEBIBYTE for each in sent), sent
            await asyncio.to_thread(
                site.wait_for, lambda: site.metric("requests_in_flight") == 0, "the end of all"
            )

        asyncio.run(run())
        assert site.metric("credits_exhausted_total", direction="to_client") >= 0


def test_who_does_not_read_a_websocket(tmp_path: Path) -> None:
    with stage(tmp_path) as site:
        opened = []

        async def disturb() -> None:
            for number in range(10):
                size = (100, 16_385, 100_000)[number % 3]
                connection = await dial(site.address, f"/flood/slow?size={size}", max_queue=1)
                opened.append(connection)

        async def run() -> None:
            growth = await undisturbed(site, disturb)
            assert growth < 25
            for connection in opened:
                connection.transport.abort()
            await asyncio.to_thread(site.wait_for_line, "slow.flooded", 10)

        asyncio.run(run())


@pytest.mark.thorough
def test_who_stalls_an_upload_or_whose_app_does(tmp_path: Path) -> None:
    """A client that sends a part, and an app that reads a part of what a client sends."""
    with stage(tmp_path) as site:
        head = f"POST /upload/NAME?until=go HTTP/1.1\nContent-Length: {64 * MEBIBYTE}"
        silent = [Slow(site, head.replace("NAME", "silent"), b"x" * 1000) for _ in range(5)]
        pressing = [
            Slow(site, head.replace("NAME", "pressing"), bytes(64 * MEBIBYTE)) for _ in range(5)
        ]

        async def disturb() -> None:
            for one in silent + pressing:
                await one.begin()
            await asyncio.to_thread(site.wait_for_line, "pressing", 5)
            await asyncio.to_thread(site.wait_for_line, "silent", 5)

        def gone_ones() -> list[str]:
            return [line for line in site.lines("silent") if "gone" in line]

        async def run() -> None:
            growth = await undisturbed(site, disturb)
            assert growth < 25
            for one in silent:
                one.end()
            site.tell("go")
            gone = ["gone 1000"] * 5
            await asyncio.to_thread(site.wait_for, lambda: gone_ones() == gone, "disconnects")
            for one in pressing:
                assert one.reader is not None and one.writer is not None
                one.writer.transport.resume_reading()  # type: ignore[attr-defined]
                answer = await asyncio.wait_for(one.reader.read(1000), PATIENCE)
                assert answer.startswith(b"HTTP/1.1 200")
                one.end()

        asyncio.run(run())
        reads = [line for line in site.lines("pressing") if line == f"read {64 * MEBIBYTE}"]
        assert len(reads) == 5
        assert site.metric("credits_exhausted_total", direction="to_worker") > 0


def test_a_client_that_sends_more_than_the_app_takes(tmp_path: Path) -> None:
    """A WebSocket's messages wait with the client, not in the relay; none is lost."""
    with stage(tmp_path) as site:
        count, size = 400, 50_000

        async def run() -> None:
            connection = await dial(site.address, "/echo/a")
            await connection.send("1 0 wait go ")
            await asyncio.to_thread(site.wait_for_line, "a")
            before = memory(site)

            async def press() -> None:
                for number in range(2, count):
                    await connection.send(f"{number} 0 " + "x" * size)

            pressing = asyncio.create_task(press())
            await settled(lambda: memory(site), MEBIBYTE / 4)
            growth = (memory(site) - before) / MEBIBYTE
            print(f"{growth:.1f} MiB more")
            assert not pressing.done() and growth < 12
            site.tell("go")
            for number in range(1, count):
                message = await asyncio.wait_for(connection.recv(), PATIENCE)
                assert int(str(message).split()[0]) == number
            await pressing
            await connection.close()

        asyncio.run(run())
