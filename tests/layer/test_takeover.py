"""A hub that is replaced hands everything over."""

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import pytest

from chansup.layer import ChannelFull, LocalChannelLayer
from tests.layer.hubs import Hub, replaced


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def test_what_is_queued_and_who_is_in_groups_survives(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path, capacity=3)
        names = [await layer.new_channel() for _ in range(3)]
        for name in names:
            await layer.group_add("all", name)
        for number in range(3):
            await layer.send("queue", {"number": number})
        await layer.group_send("all", {"number": 3})
        await layer.send(names[0], {"number": 4})
        waiting = asyncio.ensure_future(layer.receive("later"))
        before = await layer.statistics()
        await replaced(hub)
        after = await layer.statistics()
        assert after["pid"] != before["pid"]
        assert after["epoch"] == before["epoch"]
        for key in ("messages_pending", "memberships", "groups", "messages_sent"):
            assert after[key] == before[key], key
        with pytest.raises(ChannelFull):
            await layer.send("queue", {})
        assert [(await layer.receive("queue"))["number"] for _ in range(3)] == [0, 1, 2]
        assert [(await layer.receive(names[0]))["number"] for _ in range(2)] == [3, 4]
        assert (await layer.receive(names[1]))["number"] == 3
        await layer.group_send("all", {"number": 5})
        assert (await layer.receive(names[2]))["number"] == 3
        assert (await layer.receive(names[2]))["number"] == 5
        await layer.send("later", {"number": 6})
        assert (await waiting)["number"] == 6
        await layer.close()
        assert hub.stop() == 0

    run(tried())


@pytest.mark.slow
def test_under_load_nothing_is_lost_or_doubled_and_order_is_kept(hub: Hub) -> None:
    async def tried() -> None:
        sender = LocalChannelLayer(hub.path, capacity=100_000, timeout=20)
        receiver = LocalChannelLayer(hub.path, capacity=100_000, timeout=20)
        own = await receiver.new_channel()
        members = [await receiver.new_channel() for _ in range(3)]
        for name in members:
            await receiver.group_add("all", name)
        got: dict[str, list[int]] = {name: [] for name in (own, *members, "work")}
        chance = random.Random(2)

        async def listen(name: str) -> None:
            while True:
                message = (await receiver.receive(name))["number"]
                got[name].append(message)
                if chance.random() < 0.05:
                    await asyncio.sleep(chance.random() * 0.01)

        listeners = [asyncio.create_task(listen(name)) for name in got]
        ended = False
        sent = 0

        async def send() -> None:
            nonlocal sent
            while not ended:
                sent += 1
                await sender.send(own, {"number": sent})
                await sender.send("work", {"number": sent})
                await sender.group_send("all", {"number": sent})

        sending = asyncio.create_task(send())
        for _ in range(3):
            await asyncio.sleep(0.2)
            await replaced(hub)
        ended = True
        await sending
        deadline = time.monotonic() + 20
        while any(len(numbers) < sent for numbers in got.values()):
            assert time.monotonic() < deadline, (sent, Counter(map(len, got.values())))
            await asyncio.sleep(0.02)
        for numbers in got.values():
            assert numbers == list(range(1, sent + 1))
        for listener in listeners:
            listener.cancel()
        await sender.close()
        await receiver.close()

    run(tried())


def test_a_second_hub_is_refused_and_one_without_a_first_just_starts(hub: Hub) -> None:
    other = Hub(hub.path)
    command = [sys.executable, "-m", "chansup.layer.hub", "--socket", hub.path]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert refused.returncode == 1
    assert "--takeover" in refused.stderr
    hub.kill()
    other.start("--takeover")
    run(LocalChannelLayer(hub.path).statistics())
    assert other.stop() == 0


RECEIVER = """
import asyncio, sys
from chansup.layer import LocalChannelLayer

async def main():
    layer = LocalChannelLayer(sys.argv[1])
    while True:
        print((await layer.receive("work"))["number"], flush=True)

asyncio.run(main())
"""


def test_what_a_frozen_process_finds_afterwards_it_has_not_got(hub: Hub) -> None:
    """Its hub is gone without knowing that it took it, and the next one delivers it again."""

    async def tried() -> None:
        layer = LocalChannelLayer(hub.path)
        command = [sys.executable, "-c", RECEIVER, hub.path]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                await layer.send("work", {"number": 0})
                assert process.stdout.readline() == "0\n"
                await asyncio.sleep(0.3)  # until it waits for the next one
                process.send_signal(signal.SIGSTOP)
                await layer.send("work", {"number": 1})
                await replaced(hub)
                process.send_signal(signal.SIGCONT)
                await layer.send("work", {"number": 2})
                await layer.send("work", {"number": 3})
                assert [process.stdout.readline() for _ in range(3)] == ["1\n", "2\n", "3\n"]
            finally:
                process.kill()
        await layer.close()

    run(tried())
