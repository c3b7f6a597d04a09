"""Members of groups that are not back yet after the hub was killed."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from chansup.layer import LocalChannelLayer
from chansup.layer.hub import limits, returning
from chansup.layer.hub.returning import Returning
from chansup.layer.hub.store import Store
from chansup.layer.policies import Capacities, Policy
from tests.layer.hubs import PATIENCE, Hub


class Member:
    """A process's event loop that stands still in between."""

    def __init__(self, hub: Hub, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.layer = LocalChannelLayer(hub.path, timeout=PATIENCE, **options)

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, PATIENCE))

    def join(self, *groups: str) -> str:
        async def joined() -> str:
            channel = await self.layer.new_channel()
            listening = asyncio.ensure_future(self.layer.receive(channel))
            for group in groups:
                await self.layer.group_add(group, channel)
            await self.layer.send(channel, {"n": -1})
            await listening
            return channel

        found: str = self.do(joined())
        return found

    def receive(self, channel: str, count: int) -> list[int]:
        async def received() -> list[int]:
            return [(await self.layer.receive(channel))["n"] for _ in range(count)]

        found: list[int] = self.do(received())
        return found

    def close(self) -> None:
        self.do(self.layer.close())
        self.loop.close()


def restart(hub: Hub) -> None:
    hub.kill()
    hub.start()


def test_members_that_come_later_get_what_was_sent_meanwhile_in_order(hub: Hub) -> None:
    late, punctual, sender = Member(hub), Member(hub), Member(hub)
    channel, other = late.join("all", "few"), punctual.join("all")
    restart(hub)
    punctual.do(punctual.layer.send("ignored", {"n": 0}))  # it is back, and the other is not

    async def send() -> None:
        for number in range(0, 60, 3):
            await sender.layer.group_send("all", {"n": number})
            await sender.layer.group_send("few", {"n": number + 1})
            await sender.layer.send(channel, {"n": number + 2})
        await sender.layer.group_send("strangers", {"n": 100})

    sender.do(send())
    assert punctual.receive(other, 20) == list(range(0, 60, 3))  # they need not wait for the others
    newcomer = Member(hub)
    new = newcomer.join("all", "few")
    assert late.receive(channel, 60) == list(range(60))
    sender.do(sender.layer.group_send("all", {"n": 60}))
    assert newcomer.receive(new, 1) == [60]  # and nothing of what was before
    assert late.receive(channel, 1) == [60]
    assert sender.do(sender.layer.statistics())["dropped"] == {}
    for one in (late, punctual, sender, newcomer):
        one.close()


def test_it_is_so_after_the_second_kill_as_well(hub: Hub) -> None:
    late, sender = Member(hub), Member(hub)
    channel = late.join("all")
    restart(hub)
    restart(hub)
    sender.do(sender.layer.group_send("all", {"n": 1}))
    assert late.receive(channel, 1) == [1]
    restart(hub)
    sender.do(sender.layer.group_send("all", {"n": 2}))
    assert late.receive(channel, 1) == [2]
    late.close()
    sender.close()


def test_a_hub_that_ends_in_order_leaves_its_members_to_the_next_one(hub: Hub) -> None:
    late, sender = Member(hub), Member(hub)
    channel = late.join("all")
    assert hub.stop() == 0
    hub.start()
    sender.do(sender.layer.group_send("all", {"n": 1}))
    assert late.receive(channel, 1) == [1]
    late.close()
    sender.close()


def test_more_than_the_capacity_is_there_for_who_catches_up(hub: Hub) -> None:
    late, sender = Member(hub, capacity=5), Member(hub, capacity=5)
    channel = late.join("all")
    restart(hub)

    async def send() -> None:
        for number in range(20):
            await sender.layer.group_send("all", {"n": number})

    sender.do(send())
    assert late.receive(channel, 20) == list(range(20))
    late.close()
    sender.close()


MEMBER = """
import asyncio, sys
from chansup.layer import LocalChannelLayer

async def main():
    layer = LocalChannelLayer(sys.argv[1])
    await layer.group_add("all", await layer.new_channel())
    print("joined", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


def test_nothing_is_kept_for_processes_that_ended_with_the_hub(hub: Hub) -> None:
    member = subprocess.Popen(
        [sys.executable, "-c", MEMBER, hub.path], stdout=subprocess.PIPE, text=True
    )
    assert member.stdout is not None
    assert member.stdout.readline() == "joined\n"
    os.kill(member.pid, 19)  # SIGSTOP: it does not come back
    restart(hub)
    sender = Member(hub)
    sender.do(sender.layer.group_send("all", {"n": 1}))
    before = sender.do(sender.layer.statistics())["memory"]
    member.kill()
    member.wait()
    deadline = time.monotonic() + PATIENCE
    while sender.do(sender.layer.statistics())["memory"] >= before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert sender.do(sender.layer.statistics())["dropped"] == {}
    sender.close()


def test_a_receiver_that_sends_reads_first_what_a_killed_hub_had_sent(hub: Hub) -> None:
    """It finds out by writing that the hub is gone, when messages of it are still unread."""
    member, sender = Member(hub), Member(hub)
    channel = member.join("all")

    async def send() -> None:
        for number in range(20):
            await sender.layer.group_send("all", {"n": number})

    sender.do(send())
    hub.kill()
    starting = threading.Thread(target=hub.start)

    async def write_and_read() -> list[int]:
        writing = asyncio.ensure_future(member.layer.send("x", {"n": 0}))
        await asyncio.sleep(0)
        starting.start()
        found = [(await member.layer.receive(channel))["n"] for _ in range(20)]
        await writing
        return found

    assert member.do(write_and_read()) == list(range(20))
    starting.join()
    member.close()
    sender.close()


# What cannot be kept


class Timed:
    """A store that awaits a process which is never seen to end, by a clock of the test."""

    def __init__(self, memory: int = 10**6) -> None:
        self.store = Store(limits.Memory(memory))
        self.store.now = 1000.0
        self.policy = Capacities(Policy(60, 3600, 100))
        self.store.returning = Returning(
            self.store, self.store.parking, {b"process": 0}, lambda process: None
        )
        self.entered = self.store.memory.used

    def dropped(self) -> dict[str, dict[str, int]]:
        return self.store.drops.as_dict()


def test_who_comes_after_the_time_is_counted_with_all_that_was_missed() -> None:
    async def tried() -> None:
        timed = Timed()
        store = timed.store
        for _ in range(3):
            store.group_send(b"all", b"early", timed.policy)
        store.group_send(b"others", b"early", timed.policy)
        store.now += returning.KEPT + 1
        store.sweep()
        assert store.memory.used == timed.entered
        store.group_send(b"all", b"late", timed.policy)
        assert store.rejoin(b"all", b"a.process!1", 50, timed.policy)
        assert store.rejoin(b"all", b"a.process!2", 50, timed.policy)
        assert [len(store.channels[b"a.process!%d" % one].entries) for one in (1, 2)] == [1, 1]
        assert timed.dropped() == {"late": {"*": 6}}
        assert store.returning is not None
        store.returning.returned(b"process")
        store.sweep()
        assert store.returning is None
        store.group_send(b"all", b"after", timed.policy)
        assert store.rejoin(b"all", b"a.process!3", 50, timed.policy)
        assert timed.dropped() == {"late": {"*": 6}}

    asyncio.run(tried())


def test_what_is_kept_has_its_share_of_the_memory() -> None:
    async def tried() -> None:
        timed = Timed(memory=40_000)
        store = timed.store
        for _ in range(100):
            store.group_send(b"all", b"x" * 780, timed.policy)
        assert store.memory.used <= 0.26 * 40_000
        assert store.rejoin(b"all", b"a.process!1", 50, timed.policy)
        kept = len(store.channels[b"a.process!1"].entries)
        assert kept == 10
        assert timed.dropped() == {"late": {"*": 100 - kept}}

    asyncio.run(tried())


@pytest.mark.parametrize("taken", [0, 2])
def test_what_is_at_risk_is_what_nobody_was_given(hub: Hub, taken: int) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path)
        for number in range(5):
            await layer.send("work", {"n": number})
        for number in range(taken):
            assert (await layer.receive("work"))["n"] == number
        await layer.close()
        hub.kill()
        await asyncio.to_thread(hub.start)
        assert (await layer.statistics())["dropped"] == {"lost": {"*": 5 - taken}}
        await layer.close()

    asyncio.run(asyncio.wait_for(tried(), PATIENCE))
