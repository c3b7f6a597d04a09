"""Handovers that something gets in the way of, between the goodbye and the new app's accept."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.asyncio.client import ClientConnection

from tests.relay.stage import Stage, stage
from tests.relay.talk import PATIENCE, ask, closed, dial


async def open_up(site: Stage, path: str, **options: Any) -> ClientConnection:
    """Open a WebSocket that echoes."""
    connection = await dial(site.address, path, **options)
    assert await ask(connection, "1 0 ") == "1 0 "
    return connection


async def quietly(work: Callable[..., object], *arguments: object) -> None:
    """Do what blocks in a thread, and mind no error: the test looks at what came of it."""
    try:
        await asyncio.to_thread(work, *arguments)
    except AssertionError:
        pass


def results(site: Stage) -> dict[str, float]:
    """Return the results of all handovers."""
    found = site.metrics()
    names = ("moved", "closed", "denied", "subprotocol", "no_worker", "poison", "left")
    counts = {one: site.sum(found, "handovers_total", result=one) for one in names}
    assert site.sum(found, "websockets_paused") == site.sum(found, "messages_held") == 0
    return {name: count for name, count in counts.items() if count}


@pytest.mark.thorough
def test_what_the_new_worker_does_to_it(tmp_path: Path) -> None:
    """Denied in all the ways there are: the client is told, and nothing else is harmed."""
    ends: dict[str, tuple[str, int]] = {
        "close": ("close", 1008),
        "own": ("close:4123", 4123),
        "common": ("close:1001", 1008),
        "answer": ("answer", 1008),
        "raise": ("raise", 1011),
        "return": ("return", 1008),
        "subprotocol": ("subprotocol:b", 1012),
    }
    with stage(tmp_path) as site:

        async def run() -> None:
            fine = await open_up(site, "/echo/fine")
            same = await open_up(site, "/echo/same", subprotocols=["a", "b"])
            opened = {
                name: await open_up(site, f"/echo/{name}?anew={deed}", subprotocols=["a", "b"])
                for name, (deed, _) in ends.items()
            }
            for connection in opened.values():
                assert connection.subprotocol == "a"
            await asyncio.to_thread(site.deploy)
            for name, connection in opened.items():
                assert (name, (await closed(connection))[0]) == (name, ends[name][1])
            for connection in (fine, same):
                assert await ask(connection, "2 0 ") == "2 0 "
                await connection.close()

        asyncio.run(run())
        assert results(site) == {"moved": 2, "denied": 6, "subprotocol": 1}
        assert "ValueError: not today" in site.run.output()


def remotes(site: Stage) -> list[Any]:
    """Return who is connected to the interface."""
    (pid,) = site.pids("interface")
    return [tuple(one.raddr) for one in psutil.Process(pid).net_connections("inet") if one.raddr]


async def paused(site: Stage, path: str) -> ClientConnection:
    """Open a WebSocket, have it leave its worker, and keep the new app from accepting it."""
    connection = await open_up(site, path)
    deploying = asyncio.create_task(quietly(site.deploy))
    await asyncio.to_thread(site.wait_for_line, "waiting")
    await deploying
    return connection


def test_the_client_closes_during_the_pause(tmp_path: Path) -> None:
    with stage(tmp_path) as site:

        async def run() -> None:
            quiet = await open_up(site, "/echo/quiet?anew=wait:go")
            spoken = await paused(site, "/echo/spoken?anew=wait:go")
            await asyncio.to_thread(site.wait_for_line, "waiting", 2)
            await spoken.send("2 0 ")  # held, and then it leaves: this still arrives
            await asyncio.gather(quiet.close(), spoken.close())
            site.tell("go")
            written = await asyncio.to_thread(site.wait_for_line, "spoken", 2)
            assert [line.split()[0] for line in written] == ["1", "2"]
            await asyncio.to_thread(site.wait_for_line, "quiet.ends")
            await asyncio.to_thread(
                site.wait_for, lambda: site.metric("websockets_attached") == 0, "the end of both"
            )

        asyncio.run(run())
        assert sum(results(site).values()) == 2


def test_the_client_vanishes_while_the_old_app_says_goodbye(tmp_path: Path) -> None:
    with stage(tmp_path) as site:

        async def run() -> None:
            connection = await open_up(site, "/echo/a?linger=go")
            deploying = asyncio.create_task(asyncio.to_thread(site.deploy))
            await asyncio.to_thread(site.wait_for_line, "a.ends")
            client = connection.local_address
            connection.transport.abort()
            await asyncio.to_thread(
                site.wait_for, lambda: client not in remotes(site), "the end of the connection"
            )
            site.tell("go")
            await deploying

        asyncio.run(run())
        assert results(site) == {"left": 1}
        assert len(site.lines("a.scopes")) == 1


@pytest.mark.thorough
def test_the_app_closes_or_raises_instead_of_leaving(tmp_path: Path) -> None:
    """It is busy with a message when it is asked to leave, and ends because of this message."""
    with stage(tmp_path) as site:

        async def run() -> None:
            closing = await open_up(site, "/echo/closing")
            raising = await open_up(site, "/echo/raising")
            await closing.send("2 0.3 close")
            await raising.send("2 0.3 raise")
            await asyncio.to_thread(site.wait_for_line, "closing", 2)
            await asyncio.to_thread(site.wait_for_line, "raising", 2)
            deploying = asyncio.create_task(asyncio.to_thread(site.deploy))
            assert await closed(closing) == (4002, "as you wish")
            assert (await closed(raising))[0] == 1011
            await deploying

        asyncio.run(run())
        assert len(site.lines("closing.scopes")) == len(site.lines("raising.scopes")) == 1


@pytest.mark.thorough
def test_an_app_that_does_not_leave_is_left_behind(tmp_path: Path) -> None:
    """The time for the goodbye is bounded: the client continues at the new worker."""
    with stage(tmp_path, stop_timeout=4) as site:

        async def run() -> None:
            connection = await open_up(site, "/echo/a?stay=1")
            await asyncio.to_thread(site.deploy)
            assert await ask(connection, "2 0 ") == "2 0 "
            await connection.close()

        asyncio.run(run())
        assert results(site) == {"moved": 1}


@pytest.mark.thorough
def test_a_second_deploy_comes_during_the_pause(tmp_path: Path) -> None:
    with stage(tmp_path, stop_timeout=6) as site:

        async def run() -> None:
            connection = await paused(site, "/echo/a?anew=wait:go")
            await connection.send("2 0 ")
            first = [int(line.split()[0]) for line in site.lines("a.scopes")][-1]
            deploying = asyncio.create_task(quietly(site.deploy))
            await asyncio.to_thread(site.wait_for_workers, 1, [first])
            site.tell("go")
            assert await asyncio.wait_for(connection.recv(), PATIENCE) == "2 0 "
            await deploying
            assert await ask(connection, "3 0 ") == "3 0 "
            await connection.close()

        asyncio.run(run())
        assert [line.split()[0] for line in site.lines("a")] == ["1", "2", "3"]
        assert set(results(site)) == {"moved"}


@pytest.mark.parametrize("who", ["old", "new"])
def test_a_worker_dies_during_the_pause(tmp_path: Path, who: str) -> None:
    """The old one while its app says goodbye; the new one before its app has accepted."""
    query = "linger=never" if who == "old" else "anew=wait:go"
    with stage(tmp_path, workers=2) as site:

        async def run() -> None:
            connection = await open_up(site, f"/echo/a?{query}")
            home = int(site.lines("a")[0].split()[3])
            slot = next(one.name for one in site.slots() if one.pid == home)
            deploying = asyncio.create_task(quietly(site.deploy, slot))
            awaited = "a.ends" if who == "old" else "waiting"
            await asyncio.to_thread(site.wait_for_line, awaited)
            await connection.send("2 0 ")
            doomed = home if who == "old" else int(site.lines("waiting")[0])
            os.kill(doomed, signal.SIGKILL)
            site.tell("go")
            assert await asyncio.wait_for(connection.recv(), PATIENCE) == "2 0 "
            assert await ask(connection, "3 0 ") == "3 0 "
            await deploying
            site.tell("never")
            await connection.close()

        asyncio.run(run())
        assert [line.split()[0] for line in site.lines("a")] == ["1", "2", "3"]
        assert results(site) == {"moved": 1}


@pytest.mark.thorough
def test_routes_with_a_handover_of_their_own(tmp_path: Path) -> None:
    serves = """[
        "http", "websocket",
        { route = "websocket:/echo/close", handover = "close" },
    ]"""
    with stage(tmp_path, serves=serves) as site:

        async def run() -> None:
            moving = await open_up(site, "/echo/move")
            leaving = [await open_up(site, "/echo/close") for _ in range(10)]
            await leaving[0].send("2 0 wait go ")  # it is busy; it still gets its answer
            await asyncio.to_thread(site.wait_for_line, "close", 11)
            ends = [asyncio.create_task(closed(one)) for one in leaving[1:]]
            deploying = asyncio.create_task(asyncio.to_thread(site.deploy))
            assert {(await end)[0] for end in ends} == {1012}
            site.tell("go")
            assert await asyncio.wait_for(leaving[0].recv(), PATIENCE) == "2 0 wait go "
            assert (await closed(leaving[0]))[0] == 1012
            assert await ask(moving, "2 0 ") == "2 0 "
            await moving.close()
            await deploying

        asyncio.run(run())
        assert set(site.lines("close.ends")) == {"1012 handover"}
        assert len(site.lines("close.scopes")) == 10
        assert results(site) == {"moved": 1, "closed": 10}


@pytest.mark.thorough
def test_closing_is_spread(tmp_path: Path) -> None:
    """1012 for all of them at once would bring all of them back at once."""
    with stage(tmp_path, web='handover = "close"', drain_spread=1.5) as site:

        async def run() -> list[float]:
            opened = [await open_up(site, "/echo/a") for _ in range(30)]

            async def end(connection: ClientConnection) -> float:
                assert (await closed(connection))[0] == 1012
                return time.monotonic()

            ends = [asyncio.create_task(end(one)) for one in opened]
            deploying = asyncio.create_task(asyncio.to_thread(site.deploy))
            times = sorted([await one for one in ends])
            await deploying
            return times

        times = asyncio.run(run())
        assert times[-1] - times[0] > 0.7
        assert results(site) == {"closed": 30}


@pytest.mark.thorough
def test_a_pool_without_workers_has_them_wait(tmp_path: Path) -> None:
    """Scaled to nothing and up again: who waits continues, nothing is lost."""
    with stage(tmp_path, workers=2, stop_timeout=2) as site:

        async def run() -> None:
            opened = [await open_up(site, f"/echo/{number}") for number in range(6)]
            await asyncio.to_thread(site.scale, 0)
            for connection in opened:
                await connection.send("2 0 ")
                await connection.send("3 0 ")
            await asyncio.to_thread(site.scale, 1)
            for connection in opened:
                for text in ("2 0 ", "3 0 "):
                    assert await asyncio.wait_for(connection.recv(), PATIENCE) == text
                await connection.close()

        asyncio.run(run())
        for number in range(6):
            assert [line.split()[0] for line in site.lines(str(number))] == ["1", "2", "3"]
        assert set(results(site)) == {"moved"}
