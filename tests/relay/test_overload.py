"""More than the workers can do, and no workers at all: bounded, honest, and counted."""

import asyncio
import os
import signal
import time
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.relay.stage import Stage, stage
from tests.relay.talk import PATIENCE, ask, closed, dial

QUEUE = """
concurrency = 2
queue_limit = 3
queue_timeout = 4
worker_timeout = 1.5
websocket_timeout = 1.5
"""


def client_of(site: Stage) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=site.url, timeout=PATIENCE, limits=limits)


def assert_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


async def assert_websocket_unavailable(site: Stage) -> None:
    with pytest.raises(InvalidStatus) as denied:
        await dial(site.address, "/echo/denied")
    assert denied.value.response.status_code == 503
    assert int(denied.value.response.headers["retry-after"]) > 0


async def timed(work: "asyncio.Future[httpx.Response]") -> tuple[httpx.Response, float]:
    began = time.monotonic()
    return await work, time.monotonic() - began


@pytest.mark.thorough
def test_the_queue_is_bounded_in_length_and_time(tmp_path: Path) -> None:
    with stage(tmp_path, web=QUEUE) as site:

        async def run() -> None:
            async with client_of(site) as client:

                def ask_for(name: str, method: str = "GET") -> "asyncio.Task[httpx.Response]":
                    content = b"x" * 1000 if method == "POST" else None
                    path = f"/take/{name}?until=go"
                    return asyncio.create_task(client.request(method, path, content=content))

                working = [ask_for("working"), ask_for("working", "POST")]
                await asyncio.to_thread(site.wait_for_line, "working", 2)
                waiting = [
                    asyncio.create_task(timed(ask_for("late", method)))
                    for method in ("GET", "POST", "GET")
                ]
                await asyncio.to_thread(site.wait_for, lambda: site.waiting() == 3, "a full queue")
                assert_unavailable(await ask_for("full"))
                await assert_websocket_unavailable(site)
                assert not any(late.done() for late in waiting)  # at once, that is
                for late in waiting:
                    answer, needed = await late
                    assert_unavailable(answer)
                    assert needed > 3.9
                # Who waits when there is room again is served.
                again = [ask_for("again"), ask_for("again", "POST")]
                await asyncio.to_thread(site.wait_for, lambda: site.waiting() == 2, "a queue again")
                site.tell("go")
                for answer in await asyncio.gather(*working, *again):
                    assert answer.status_code == 200
                assert (await again[1]).content.endswith(b" " + b"x" * 1000)

        asyncio.run(run())
        assert not site.lines("late") and not site.lines("full") and not site.lines("denied.scopes")
        found = site.metrics()
        rejected = {
            reason: site.sum(found, "rejected_total", reason=reason)
            for reason in ("full", "late", "no_worker")
        }
        assert rejected == {"full": 2, "late": 3, "no_worker": 0}
        assert site.sum(found, "queue_depth") == site.sum(found, "requests_in_flight") == 0
        assert site.sum(found, "queue_wait_seconds_count") == 4
        assert site.sum(found, "queue_wait_seconds_sum") > 0.01


@pytest.mark.thorough
def test_who_waits_and_leaves_makes_room(tmp_path: Path) -> None:
    with stage(tmp_path, web=QUEUE.replace("queue_timeout = 4", "queue_timeout = 60")) as site:

        async def run() -> None:
            async with client_of(site) as client:
                working = [
                    asyncio.create_task(client.get("/take/working?until=go")) for _ in range(2)
                ]
                await asyncio.to_thread(site.wait_for_line, "working", 2)
                for _ in range(2):
                    leaving = [asyncio.create_task(client.get("/take/never")) for _ in range(3)]
                    await asyncio.to_thread(
                        site.wait_for, lambda: site.waiting() == 3, "a full queue"
                    )
                    for task in leaving:
                        task.cancel()
                    await asyncio.gather(*leaving, return_exceptions=True)
                    await asyncio.to_thread(
                        site.wait_for, lambda: site.waiting() == 0, "an empty queue"
                    )
                last = asyncio.create_task(client.get("/take/last"))
                await asyncio.to_thread(site.wait_for, lambda: site.waiting() == 1, "one")
                site.tell("go")
                assert (await last).status_code == 200
                for task in working:
                    assert (await task).status_code == 200

        asyncio.run(run())
        assert not site.lines("never")


@pytest.mark.thorough
def test_without_any_worker(tmp_path: Path) -> None:
    """Open WebSockets are closed in time, never "connected but dead"; requests are told."""
    with stage(tmp_path, web=QUEUE) as site:

        async def run() -> None:
            opened = [await dial(site.address, f"/echo/{number}") for number in range(5)]
            for connection in opened:
                assert await ask(connection, "1 0 ") == "1 0 "
            ends = [asyncio.create_task(closed(one)) for one in opened]
            began = time.monotonic()
            site.lose_all_workers()
            for end in ends:
                assert (await end)[0] == 1013
            assert 1.4 < time.monotonic() - began < 12  # the default would be 15
            async with client_of(site) as client:
                answers = await asyncio.gather(
                    timed(asyncio.ensure_future(client.get("/pid"))),
                    timed(asyncio.ensure_future(client.post("/take/a", content=b"body"))),
                    assert_websocket_unavailable(site),
                )
                for answer, needed in answers[:2]:
                    assert_unavailable(answer)
                    assert needed > 1.4

        asyncio.run(run())
        found = site.metrics()
        assert site.sum(found, "handovers_total", result="no_worker") == 5
        assert site.sum(found, "rejected_total", reason="no_worker") == 3
        assert site.sum(found, "websockets_paused") == 0


@pytest.mark.thorough
def test_requests_wait_for_a_worker_that_is_still_to_come(tmp_path: Path) -> None:
    with stage(tmp_path) as site:

        async def run() -> None:
            site.lose_all_workers()
            await asyncio.to_thread(site.wait_for, lambda: not site.pids(), "the end of all")
            async with client_of(site) as client:
                asking = [
                    asyncio.create_task(client.post(f"/take/{n}", content=b"z" * 50_000))
                    for n in range(5)
                ]
                calling = asyncio.create_task(dial(site.address, "/echo/a"))
                await asyncio.to_thread(site.wait_for, lambda: site.waiting() == 6, "six")
                site.let_workers_start()
                for answer in await asyncio.gather(*asking):
                    assert answer.status_code == 200
                    assert len(answer.content.split()[1]) == 50_000
                connection = await calling
                assert await ask(connection, "1 0 ") == "1 0 "
                await connection.close()

        asyncio.run(run())


def test_concurrency_is_never_exceeded(tmp_path: Path) -> None:
    """Two interface processes share the permits of two workers; everybody is served."""
    web = "concurrency = 4\nqueue_limit = 1000"
    with stage(tmp_path, interfaces=2, workers=2, web=web) as site:

        async def run() -> list[int]:
            async with client_of(site) as client:
                codes = []

                async def ask_often() -> None:
                    for _ in range(10):
                        codes.append((await client.get("/crowd/most?work=0.01")).status_code)

                await asyncio.gather(*(ask_often() for _ in range(30)))
                return codes

        codes = asyncio.run(run())
        assert codes == [200] * 300
        most: dict[str, int] = {}
        for line in site.lines("most"):
            pid, number = line.split()
            most[pid] = max(most.get(pid, 0), int(number))
        assert list(most.values()) == [4, 4]
        found = site.metrics()
        assert site.sum(found, "queue_wait_seconds_count") == 300
        assert site.sum(found, "queue_depth") == site.sum(found, "requests_in_flight") == 0


@pytest.mark.thorough
def test_permits_of_a_killed_interface_come_back(tmp_path: Path) -> None:
    with stage(tmp_path, interfaces=2, web="concurrency = 3") as site:

        async def run() -> None:
            async with client_of(site) as client:
                for _ in range(2):
                    working = [
                        asyncio.create_task(client.get("/take/working?until=go")) for _ in range(3)
                    ]
                    before = len(site.lines("working"))
                    await asyncio.to_thread(site.wait_for_line, "working", before + 3)
                    doomed = site.pids("interface")
                    for pid in doomed:
                        os.kill(pid, signal.SIGKILL)
                    await asyncio.gather(*working, return_exceptions=True)
                    site.tell("go")
                    await asyncio.to_thread(site.wait_for_workers, 2, doomed, "interface")
                    answers = await asyncio.gather(
                        *(client.get("/crowd/most?work=0.05") for _ in range(12))
                    )
                    assert {answer.status_code for answer in answers} == {200}
                    (site.place / "go").unlink()

        asyncio.run(run())
        assert max(int(line.split()[1]) for line in site.lines("most")) <= 3


@pytest.mark.thorough
def test_the_least_busy_worker_is_next(tmp_path: Path) -> None:
    with stage(tmp_path, workers=2) as site:

        async def run() -> set[str]:
            async with client_of(site) as client:
                working = asyncio.create_task(client.get("/take/working?until=go"))
                (line,) = await asyncio.to_thread(site.wait_for_line, "working")
                busy = line.split()[1]
                others = {(await client.get("/pid")).text.split()[1] for _ in range(10)}
                site.tell("go")
                assert (await working).status_code == 200
                assert busy not in others
                return {(await client.get("/pid")).text.split()[1] for _ in range(10)}

        assert len(asyncio.run(run())) == 2
