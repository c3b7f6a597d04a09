"""Which processes of a whole site get the WebSockets of those that end. The processes pretend."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chansup.protocol import carry
from chansup.supervisor.carry.counters import ADOPTED
from tests.supervisor.carry.child import is_open
from tests.supervisor.pretend import Pretended, PretendProcess

pytestmark = pytest.mark.slow  # the interpreter makes no difference

CONFIG = """
[app]
asgi = "a:b"

[interface]
processes = {processes}
handover = "{handover}"
websocket_timeout = 3

[rollout]
stop_timeout = 5
settle = 0.001
drain_spread = 0.01
start_timeout = 5
"""


def config(processes: int = 2, handover: str = "transparent") -> str:
    return CONFIG.format(processes=processes, handover=handover)


@asynccontextmanager
async def running(path: Path, text: str) -> AsyncIterator[Pretended]:
    """A site whose processes adopt what they are given."""
    pretended = Pretended(path / "chansup.toml", text)
    await pretended.start()

    async def answer() -> None:
        while True:
            for process in pretended.of("interface"):
                if process.child is not None:
                    process.child.adopt_all()
            await asyncio.sleep(0.001)

    answering = asyncio.create_task(answer())
    try:
        yield pretended
    finally:
        answering.cancel()
        await pretended.stop()


async def held(pretended: Pretended, process: PretendProcess, number: int) -> list[socket.socket]:
    """Have WebSockets held for a process; return their clients."""
    assert process.child is not None
    holder = pretended.processes.holder
    before = holder.held
    clients = [process.child.open(slot) for slot in range(number)]
    await pretended.until(lambda: holder.held == before + number)
    return clients


def loads(pretended: Pretended) -> list[int]:
    return [one.carrier.load for one in pretended.of("interface") if one.carrier is not None]


def left(process: PretendProcess) -> list[carry.Leave]:
    assert process.child is not None
    return [one for one in process.child.heard if isinstance(one, carry.Leave)]


def test_a_deploy_moves_each_once_to_the_new_processes(tmp_path):
    async def main():
        async with running(tmp_path, config()) as pretended:
            old = full, empty = pretended.of("interface")
            clients = [*(await held(pretended, full, 30)), *(await held(pretended, empty, 10))]
            full.holds, empty.holds = 30, 10
            assert await pretended.reload(config() + "keep_alive = 1\n") == "succeeded"
            holder = pretended.processes.holder
            await pretended.until(lambda: holder.counters.of(ADOPTED, "deploy") == 40)
            assert holder.counters.of(ADOPTED) == 40
            assert [left(one) for one in old] == [[carry.Leave(True)]] * 2
            assert all(map(is_open, clients))
            assert sorted(loads(pretended)) == [20, 20]
            for client in clients:
                client.close()

    asyncio.run(main())


@pytest.mark.parametrize("processes", [1, 2])
def test_what_a_crashed_process_had_goes_to_a_sibling_or_to_the_next_one(tmp_path, processes):
    async def main():
        async with running(tmp_path, config(processes)) as pretended:
            first, *_ = pretended.of("interface")
            clients = await held(pretended, first, 10)
            first.end(-9)
            holder = pretended.processes.holder
            await pretended.until(lambda: holder.counters.of(ADOPTED, "crash") == 10)
            assert all(map(is_open, clients))
            assert holder.waiting == 0
            for client in clients:
                client.close()

    asyncio.run(main())


def test_what_is_scaled_away_gives_what_it_has_to_those_that_stay(tmp_path):
    async def main():
        async with running(tmp_path, config(3)) as pretended:
            stays, *leave = pretended.of("interface")
            clients = [c for one in leave for c in await held(pretended, one, 5)]
            await pretended.site.scale(pretended.site.pools["interface"], 1)
            await pretended.until(lambda: stays.carrier and len(stays.carrier.sockets) == 10)
            assert all(map(is_open, clients))
            await pretended.site.scale(pretended.site.pools["interface"], 0)
            assert left(stays) == [carry.Leave(False)]
            await pretended.until(lambda: not any(map(is_open, clients)))
            for client in clients:
                client.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "text",
    [config(handover="close"), config().replace("[interface]", '[interface]\nserver = "granian"')],
)
def test_what_no_new_process_can_take_is_closed(tmp_path, text):
    async def main():
        async with running(tmp_path, config()) as pretended:
            old = pretended.of("interface")
            await pretended.reload(text)
            assert [left(one) for one in old] == [[carry.Leave(False)]] * 2

    asyncio.run(main())


def test_a_stop_of_the_site_closes_all(tmp_path):
    async def main():
        async with running(tmp_path, config()) as pretended:
            first, other = pretended.of("interface")
            clients = await held(pretended, first, 3)
            await pretended.stop()
            assert left(first) == left(other) == [carry.Leave(False)]
            await pretended.until(lambda: not any(map(is_open, clients)))
            assert pretended.processes.holder.held == 0
            for client in clients:
                client.close()

    asyncio.run(main())


def test_a_failed_deploy_takes_them_back(tmp_path):
    async def main():
        async with running(tmp_path, config()) as pretended:
            first, other = pretended.of("interface")
            clients = [
                *(await held(pretended, first, 6)),
                *(await held(pretended, other, 6)),
            ]
            born = len(pretended.processes.born)
            # The second new process fails to start, so the first one is taken back.
            pretended.processes.boots = lambda process: len(pretended.processes.born) != born + 2
            assert await pretended.reload() == "failed"
            holder = pretended.processes.holder
            await pretended.until(lambda: not holder.waiting and sum(loads(pretended)) == 12)
            assert all(map(is_open, clients))
            for client in clients:
                client.close()

    asyncio.run(main())


def test_processes_that_a_command_is_to_replace_get_nothing(tmp_path):
    async def main():
        async with running(tmp_path, config(3)) as pretended:
            dead, leaves, stays = pretended.of("interface")
            clients = await held(pretended, dead, 6)
            leaves.leaves_soon = True
            dead.end(-9)
            await pretended.until(
                lambda: pretended.processes.holder.counters.of(ADOPTED, "crash") == 6
            )
            assert leaves.carrier and leaves.carrier.load == 0
            assert stays.carrier and stays.carrier.load > 0
            for client in clients:
                client.close()

    asyncio.run(main())
