"""Sticky dispatch: the requests of a session go to the process that knows it."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import socketio

from chansup.protocol import session_table
from chansup.protocol.session_table import SessionTable, place_of
from tests.relay.stage import Stage
from tests.running import running

pytestmark = pytest.mark.slow  # the interpreter makes no difference

CLIENTS = 8
CONFIG = """
[app]
asgi = "tests.relay.socketio_app:app"
directory = {root!r}

[interface]
bind = "127.0.0.1:0"
processes = 2

[workers.web]
serves = ["http", "websocket"]
processes = 3
{web}

[rollout]
settle = 0.05
drain_spread = 0.2
keep_alive = 0.3
stop_timeout = 10

[admin]
bind = "127.0.0.1:0"
"""
ROOT = str(Path(__file__).parents[2])


@asynccontextmanager
async def polling(url: str, number: int = CLIENTS) -> AsyncIterator[list[Any]]:
    """Connect clients that poll, as many as can; those that cannot are left out."""
    options = {"reconnection_delay": 0.1, "reconnection_delay_max": 0.5}
    clients = [socketio.AsyncClient(**options) for _ in range(number)]
    connected = []
    try:
        for client in clients:
            try:
                await client.connect(url, transports=["polling"], retry=False, wait_timeout=2)
                connected.append(client)
            except socketio.exceptions.ConnectionError:
                pass
        yield connected
    finally:
        await asyncio.gather(*(one.disconnect() for one in clients), return_exceptions=True)


async def asked(client: Any, number: int) -> int | None:
    """Return the pid of who answers, or None."""
    try:
        pid, echo = await client.call("ask", number, timeout=2)
    except (socketio.exceptions.SocketIOError, asyncio.CancelledError):
        return None
    assert echo == number
    return int(pid)


async def answers(clients: list[Any], times: int = 4) -> list[set[int | None]]:
    """Return who answered each client."""
    found: list[set[int | None]] = [set() for _ in clients]
    for number in range(times):
        for place, pid in enumerate(await asyncio.gather(*(asked(c, number) for c in clients))):
            found[place].add(pid)
    return found


@pytest.mark.thorough
def test_clients_that_poll_have_one_process_each_and_come_back_after_a_deploy(
    tmp_path: Path,
) -> None:
    with running(tmp_path, CONFIG.format(root=ROOT, web='sticky = "sid"')) as run:
        run.wait_until_ready()
        site = Stage(run, tmp_path)
        site.wait_until_ready()

        async def scenario() -> None:
            async with polling(run.url) as clients:
                assert len(clients) == CLIENTS
                before = set(site.pids())
                found = await answers(clients)
                assert all(len(pids) == 1 for pids in found), found
                assert set.union(*found) == before, "all processes have clients"

                seen = [client.get_sid() for client in clients]
                await asyncio.to_thread(site.deploy)

                async def is_back(client: Any, former: str) -> set[int | None]:
                    async with asyncio.timeout(20):
                        while not client.connected or client.get_sid() == former:
                            await asyncio.sleep(0.05)
                        while (pid := await asked(client, 7)) in (None, *before):
                            pass
                    return {pid}

                back = await asyncio.gather(*map(is_back, clients, seen))
                assert set.union(*back) <= set(site.pids())
                assert all(len(pids) == 1 for pids in await answers(clients))

        asyncio.run(scenario())
        metrics = site.metrics()
        assert site.sum(metrics, "sticky_requests_total", result="kept") > CLIENTS * 8
        assert site.sum(metrics, "sticky_requests_total", result="broken") > 0
        assert site.sum(metrics, "sessions_learned_total") >= CLIENTS * 2


@pytest.mark.thorough
def test_without_it_most_clients_that_poll_fail(tmp_path: Path) -> None:
    with running(tmp_path, CONFIG.format(root=ROOT, web="")) as run:
        run.wait_until_ready()

        async def scenario() -> int:
            async with polling(run.url, 5) as clients:
                return sum(pids == 1 for pids in map(len, await answers(clients, 2)))

        assert asyncio.run(scenario()) <= 3


# The table


def test_all_processes_that_inherit_the_table_see_what_one_wrote() -> None:
    descriptor = session_table.create()
    one, other = SessionTable(descriptor), SessionTable(descriptor)
    place = place_of("web", "abc")
    assert other.find(place) is None
    assert one.keep(place, 4711) is None
    assert other.find(place) == 4711
    assert other.find(place_of("chat", "abc")) is None, "pools have nothing in common"
    other.keep(place, 4712)
    assert one.find(place) == 4712
    os.close(descriptor)


def test_a_full_bucket_gives_up_what_was_not_used_for_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = SessionTable()
    now = [1000.0]
    monkeypatch.setattr("chansup.protocol.session_table.time.monotonic", lambda: now[0])
    places = [session_table.Place((5, 5), mark) for mark in range(1, session_table.WAYS + 2)]
    for place in places[:-1]:
        now[0] += 10
        assert table.keep(place, 1) is None
    now[0] += 10
    assert table.find(places[0]) == 1  # used just now
    assert table.keep(places[-1], 2) == pytest.approx(70)
    assert [table.find(place) for place in places] == [1, None, *[1] * 6, 2]


def test_a_bucket_that_another_process_writes_to_is_never_waited_for() -> None:
    descriptor = session_table.create()
    table = SessionTable(descriptor)
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        import fcntl

        fcntl.lockf(descriptor, fcntl.LOCK_EX, 8, 3 * 8)
        os.write(theirs, b"x")
        os.read(ours, 0)
        while True:
            os.pause() if hasattr(os, "pause") else __import__("signal").pause()
    try:
        os.read(ours, 1)
        assert table.keep(session_table.Place((3, 9), 77), 42) is None
        assert table.find(session_table.Place((3, 9), 77)) == 42
        assert table.keep(session_table.Place((3, 3), 78), 42) == 0.0, "no room, and no waiting"
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        for one in (ours, theirs, descriptor):
            os.close(one)
