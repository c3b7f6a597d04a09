"""Where WebSockets stand after crashes, deploys and changes of size, and how often they move."""

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection

from tests.relay.stage import Stage, stage
from tests.relay.talk import ask, closed, dial

CLIENTS = 12
CLOSES = 'handover = "close"'


async def opened(site: Stage, number: int = CLIENTS) -> list[ClientConnection]:
    return [await dial(site.address, f"/echo/c{client}") for client in range(number)]


def stays(site: Stage, client: int) -> list[list[str]]:
    """Return pid, count and reason of each stay of a WebSocket at a worker."""
    return [line.split()[:3] for line in site.lines(f"c{client}.scopes")]


def places(site: Stage, clients: range = range(CLIENTS)) -> list[int]:
    """Return how many WebSockets each worker has, by what the app wrote last."""
    at = Counter(int(stays(site, client)[-1][0]) for client in clients)
    return sorted(at[pid] for pid in site.pids())


async def settled(site: Stage, connections: list[ClientConnection]) -> None:
    """Wait until each is with a worker."""
    for connection in connections:
        assert await ask(connection, "1 0 x") == "1 0 x"


async def deploy(site: Stage, connections: list[ClientConnection], command: str) -> None:
    """Deploy, and see that each WebSocket moved once."""
    before = [len(stays(site, client)) for client in range(len(connections))]
    await asyncio.to_thread(getattr(site, command))
    await settled(site, connections)
    after = [len(stays(site, client)) for client in range(len(connections))]
    moves = [new - old for old, new in zip(before, after, strict=True)]
    assert moves == [1] * len(connections), f"{command}: {moves}"


@pytest.mark.parametrize(("interfaces", "surge"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.thorough
def test_they_are_even_again_after_a_crash_and_after_a_change_of_size(
    tmp_path: Path, interfaces: int, surge: int
) -> None:
    slack = interfaces - 1  # what each process levels for itself need not add up exactly

    with stage(tmp_path, workers=2, interfaces=interfaces, surge=surge) as site:

        async def scenario() -> None:
            connections = await opened(site)
            victim, _ = site.pids()
            os.kill(victim, signal.SIGKILL)
            await asyncio.to_thread(site.wait_for_workers, 2, [victim])
            await settled(site, connections)
            assert places(site) == [0, CLIENTS]
            for command in ("reload", "deploy"):
                await deploy(site, connections, command)
                assert max(places(site)) <= 6 + slack, (command, places(site))
            await asyncio.to_thread(site.scale, 4)
            for command in ("deploy", "reload"):
                await deploy(site, connections, command)
                assert max(places(site)) <= 3 + slack, (command, places(site))
            for connection in connections:
                await connection.close()

        asyncio.run(scenario())


@pytest.mark.thorough
def test_what_cannot_move_does_not_go_where_it_would_be_closed_again(tmp_path: Path) -> None:
    """As soon as a new worker is there, handshakes go to new ones alone."""
    with stage(tmp_path, workers=3, web=CLOSES) as site:
        old = set(site.pids())

        async def scenario() -> None:
            deploying = asyncio.create_task(asyncio.to_thread(site.deploy))
            await asyncio.to_thread(site.wait_for_workers, 1, old)
            connections: list[ClientConnection] = []
            while not deploying.done():
                connections += await opened_anew(len(connections))
                await asyncio.sleep(0.01)
            await deploying
            assert len(connections) > 3
            for client, connection in enumerate(connections):
                assert await ask(connection, "1 0 x") == "1 0 x", f"{client} was closed"
                assert int(stays(site, client)[0][0]) not in old
                await connection.close()

        async def opened_anew(client: int) -> list[ClientConnection]:
            # The status may know of the new worker a moment before the interface does.
            while True:
                connection = await dial(site.address, f"/echo/c{client}")
                (*_, (pid, _, _)) = stays(site, client)
                if int(pid) not in old or client:
                    return [connection]
                (site.place / f"c{client}.scopes").unlink()
                await connection.close()

        asyncio.run(scenario())


def test_a_crash_closes_at_once_what_cannot_move(tmp_path: Path) -> None:
    with stage(tmp_path, web=CLOSES, drain_spread=30) as site:

        async def scenario() -> None:
            connections = await opened(site)
            began = time.monotonic()
            os.kill(site.pids()[0], signal.SIGKILL)
            for connection in connections:
                assert (await closed(connection))[0] == 1012
            assert time.monotonic() - began < 10

        asyncio.run(scenario())


@pytest.mark.thorough
def test_whoever_speaks_before_it_is_closed_after_a_crash_is_closed_then(tmp_path: Path) -> None:
    web = CLOSES + "\nhandover_rate = 0.2"
    with stage(tmp_path, web=web, drain_spread=60) as site:

        async def scenario() -> None:
            connections = await opened(site, 6)
            os.kill(site.pids()[0], signal.SIGKILL)
            await asyncio.to_thread(site.wait_for_workers, 1, site.pids())
            for connection in connections:
                if connection.close_code is None:
                    await connection.send("1 0 x")
            began = time.monotonic()
            for connection in connections:
                assert (await closed(connection))[0] == 1012
            assert time.monotonic() - began < 10

        asyncio.run(scenario())
