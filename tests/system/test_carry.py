"""WebSockets of direct mode outlive their process: whole sites, real kills and deploys."""

import asyncio
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.running import Running, running, write_app
from tests.system.conftest import DIRECT
from tests.system.talkers import talkers

CARRIES = DIRECT.replace("processes = 2", 'processes = 2\nhandover = "transparent"')
NUMBER = 20  # WebSockets


def held(run: Running) -> dict[str, Any]:
    """Return what `chansup status` says of them."""
    found: dict[str, Any] = run.status()["pools"][0]["websockets"]
    return found


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def command(run: Running, *words: str) -> None:
    done = await asyncio.to_thread(run.command, *words)
    assert done.returncode == 0, done.stderr + done.stdout


async def until(happened: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(happened):
            await asyncio.sleep(0.02)


async def fullest(run: Running) -> int:
    """Return the pid of the process with the most WebSockets."""
    slots = (await asyncio.to_thread(run.slots)).values()
    return int(max(slots, key=lambda slot: slot["websockets_open"])["pid"])


async def deploy(run: Running) -> None:
    write_app(run.config.parent, "2")
    await command(run, "reload")


async def restart(run: Running) -> None:
    await command(run, "restart", "interface")


async def scale_down(run: Running) -> None:
    await command(run, "scale", "interface=1")


async def asked_by_a_stranger(run: Running) -> None:
    pid = await fullest(run)
    os.kill(pid, signal.SIGTERM)
    await until(lambda: not os.path.exists(f"/proc/{pid}"))


async def killed(run: Running) -> None:
    pid = await fullest(run)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: pid not in run.pids())
    await until(lambda: held(run)["waiting"] == 0)


async def both_killed(run: Running) -> None:
    pids = await asyncio.to_thread(run.pids)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not set(pids) & set(run.pids()) and None not in run.pids())
    await until(lambda: held(run)["waiting"] == 0)


PLANNED = (deploy, restart, scale_down, asked_by_a_stranger)
KILLS = (killed, both_killed)


@pytest.mark.parametrize("happens", [*PLANNED, *KILLS], ids=lambda one: one.__name__)
def test_nobody_is_closed_and_order_is_kept(site: Path, happens) -> None:
    async def visit(run: Running) -> None:
        async with talkers(run.address, NUMBER) as clients:
            assert held(run)["held"] == NUMBER
            clients.talk(0.01)
            await asyncio.sleep(0.2)
            await happens(run)
            await clients.finish()
            assert clients.closed == []
            assert clients.in_order
            most = 1 if happens in KILLS else 0
            assert max(clients.lost) <= most, clients.lost
            assert held(run)["moved"] > 0
            assert held(run)["held"] == NUMBER
        await until(lambda: held(run)["held"] == 0)

    with running(site, CARRIES) as run:
        run.wait_until_ready()
        asyncio.run(visit(run))


def test_a_stop_of_the_site_closes_them_with_1012(site: Path) -> None:
    async def visit(run: Running) -> None:
        async with talkers(run.address, NUMBER) as clients:
            clients.talk(0.01)
            await asyncio.to_thread(run.stop)
            assert clients.closed == [1012] * NUMBER

    with running(site, CARRIES) as run:
        run.wait_until_ready()
        asyncio.run(visit(run))


@pytest.mark.thorough
def test_a_hang_that_chansup_ends(tmp_path: Path) -> None:
    after = """
inner = app


async def app(scope, receive, send):
    if scope["path"] == "/hang":
        import time
        while True:
            time.sleep(1)
    await inner(scope, receive, send)
"""

    async def visit(run: Running) -> None:
        async with talkers(run.address, NUMBER) as clients:
            clients.talk(0.02)
            reader, writer = await asyncio.open_connection(*run.address.rsplit(":", 1))
            writer.write(b"GET /hang HTTP/1.1\r\nhost: x\r\n\r\n")
            await until(lambda: any(slot["restarts"] for slot in run.slots().values()))
            await until(lambda: held(run)["waiting"] == 0)
            writer.close()
            del reader
            await clients.finish()
            assert clients.closed == []
            assert clients.in_order
            assert max(clients.lost) <= 1

    write_app(tmp_path, after=after)
    config = CARRIES.replace("[rollout]", "liveness_timeout = 2\n[rollout]")
    with running(tmp_path, config) as run:
        run.wait_until_ready()
        asyncio.run(visit(run))


@pytest.mark.thorough
def test_a_supervisor_that_stands_still_for_seconds(site: Path) -> None:
    """WebSockets that open meanwhile are offered again, or end with their process."""

    async def visit(run: Running) -> None:
        async with talkers(run.address, NUMBER) as before:
            before.talk(0.01)
            address = run.address
            run.send(signal.SIGSTOP)
            async with talkers(address, NUMBER) as during:
                during.talk(0.01)
                await asyncio.sleep(2)
                run.send(signal.SIGCONT)
                await until(lambda: held(run)["held"] == 2 * NUMBER)
                await killed(run)
                await before.finish()
                await during.finish()
                assert before.closed == during.closed == []
                assert max(before.lost + during.lost) <= 1

    with running(site, CARRIES) as run:
        run.wait_until_ready()
        asyncio.run(visit(run))


def _is_gone(run: Running, pid: int) -> bool:
    return pid not in run.pids()


@pytest.mark.thorough
def test_kills_while_others_adopt_and_boot(site: Path) -> None:
    async def visit(run: Running) -> None:
        async with talkers(run.address, NUMBER) as clients:
            clients.talk(0.01)
            for _ in range(4):
                for pid in await asyncio.to_thread(run.pids):
                    os.kill(pid, signal.SIGKILL)
                    await until(partial(_is_gone, run, pid))
                await until(lambda: any(run.pids()))
                for pid in filter(None, await asyncio.to_thread(run.pids)):  # they boot, or adopt
                    os.kill(pid, signal.SIGKILL)
                await until(lambda: run.status()["ready"] and held(run)["waiting"] == 0)
                await restart(run)  # so that the pauses after crashes begin anew
            await clients.finish()
            assert clients.closed == []
            assert clients.in_order
            assert max(clients.lost) <= 16  # one for each death at most

    with running(site, CARRIES) as run:
        run.wait_until_ready()
        asyncio.run(visit(run))


@pytest.mark.thorough
def test_every_descriptor_is_given_back(site: Path) -> None:
    async def visit(run: Running) -> None:
        await until(lambda: run.status()["ready"])
        before = descriptors(run.pid)
        for _ in range(3):
            async with talkers(run.address, NUMBER) as clients:
                clients.talk(0.01)
                await killed(run)
                await until(lambda: run.status()["ready"])
                await restart(run)
                await clients.finish()
                assert clients.closed == []
            await until(lambda: held(run)["held"] == 0)
            await until(lambda: descriptors(run.pid) <= before + 4)

    with running(site, CARRIES) as run:
        run.wait_until_ready()
        asyncio.run(visit(run))


def test_what_the_app_starts_inherits_no_channel_to_the_supervisor(tmp_path: Path) -> None:
    write_app(tmp_path, before='import os\nos.system("ls -l /proc/self/fd > descriptors")\n')
    with running(tmp_path, CARRIES) as run:
        run.wait_until_ready()
        inherited = (tmp_path / "descriptors").read_text()
    assert "socket:" not in inherited, inherited


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["deploys", "kills"])
def test_twenty_times(site: Path, kind: str) -> None:
    async def visit(run: Running) -> None:
        async with talkers(run.address, NUMBER) as clients:
            clients.talk(0.01)
            for number in range(20):
                await (restart if kind == "deploys" else killed)(run)
                await until(lambda: run.status()["ready"])
                if kind == "kills" and number % 2:
                    await restart(run)  # so that the pauses after crashes begin anew
            await clients.finish()
            assert clients.closed == []
            assert clients.in_order
            assert max(clients.lost) <= (0 if kind == "deploys" else 20)
            if kind == "deploys":
                assert held(run)["lost"] == 0

    with running(site, CARRIES) as run:
        run.wait_until_ready()
        asyncio.run(visit(run))
