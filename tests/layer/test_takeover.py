"""A hub that is replaced hands everything over."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from chansup.layer import ChannelFull, LocalChannelLayer
from chansup.layer.frames import HANDED, ID, Kind, pack, string
from tests.layer.hubs import PATIENCE, Hub, replaced, running
from tests.layer.raw import Raw


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


def test_a_hub_that_is_told_to_end_again_and_again_still_ends_well(hub: Hub) -> None:
    run(LocalChannelLayer(hub.path).statistics())
    process = hub.process
    assert process is not None
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


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


async def ended(process: "subprocess.Popen[bytes]") -> int:
    return await asyncio.to_thread(process.wait, PATIENCE)


def heir_of(hub: Hub) -> Raw:
    heir = Raw(hub.path, introduced=False)
    heir.say(pack(Kind.TAKE_OVER))
    return heir


def test_what_is_sent_while_clients_fall_quiet_waits_for_the_next_hub(hub: Hub) -> None:
    """A client that is quiet could not say that it has it."""
    receiver, sender = Raw(hub.path), Raw(hub.path)
    for id in (1, 2):
        receiver.say(pack(Kind.LISTEN, ID.pack(id) + b"work"))
    sender.say(pack(Kind.SEND, string(b"work") + b"before"))
    assert receiver.wait_for(Kind.HAND)[HANDED.size :] == b"before"
    receiver.say(pack(Kind.HELD, ID.pack(1)))
    old = hub.process
    assert old is not None
    hub.start("--takeover")
    receiver.wait_for(Kind.QUIESCE)
    sender.wait_for(Kind.QUIESCE)
    receiver.say(pack(Kind.QUIET))
    sender.say(pack(Kind.SEND, string(b"work") + b"after"))
    receiver.say(pack(Kind.LISTEN, ID.pack(3) + b"work"))  # nobody says so, and it does no harm
    sender.say(pack(Kind.QUIET))
    assert old.wait(PATIENCE) == 0
    assert Kind.HAND not in receiver.rest()
    third = Raw(hub.path)
    third.say(pack(Kind.LISTEN, ID.pack(1) + b"work"))
    assert third.wait_for(Kind.HAND)[HANDED.size :] == b"after"
    for one in (receiver, sender, third):
        one.close()


def test_after_a_takeover_that_failed_everybody_gets_what_they_wait_for(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path, timeout=20)
        other = LocalChannelLayer(hub.path, timeout=20)
        own = await layer.new_channel()
        unwanted = await layer.new_channel()
        await layer.send("held", {"number": 0})
        held = await layer.take("held", until_done=True)
        early = asyncio.create_task(layer.receive("early"))
        given_up = asyncio.create_task(layer.receive("given.up"))
        let_go = asyncio.create_task(layer.receive(unwanted))
        listening = asyncio.create_task(layer.receive(own))
        await layer.statistics()
        slow = Raw(hub.path)  # is never quiet
        heir = heir_of(hub)
        slow.wait_for(Kind.QUIESCE)
        while layer._client.link().ready:
            await asyncio.sleep(0.01)
        late = asyncio.create_task(layer.receive("late"))
        for cancelled in (given_up, let_go):
            cancelled.cancel()
        await asyncio.sleep(0)
        slow.say(pack(Kind.SEND, string(b"given.up") + other.serialize({"number": 1})))
        held.give_back(failed=True)
        heir.close()
        slow.close()
        for name in ("early", "late", own, unwanted):
            await other.send(name, {"number": 2})
        assert (await early)["number"] == 2
        assert (await late)["number"] == 2
        assert (await listening)["number"] == 2
        assert (await layer.receive("given.up"))["number"] == 1
        assert (await layer.receive(unwanted))["number"] == 2
        again = await layer.take("held")
        assert (again.message["number"], again.attempt) == (0, 2)
        statistics = await other.statistics()
        assert statistics["messages_pending"] == statistics["messages_in_hand"] == 0
        await replaced(hub)  # another one may try again
        await other.send("last", {"number": 3})
        assert (await layer.receive("last"))["number"] == 3
        await layer.close()
        await other.close()

    run(tried())


@pytest.mark.thorough
def test_a_successor_that_reads_nothing_is_given_up(hub: Hub) -> None:
    """And the hub continues, with everything."""

    async def tried() -> None:
        layer = LocalChannelLayer(hub.path, timeout=30)
        for number in range(20):
            await layer.send("work", {"number": number, "ballast": b"x" * 500_000})
        heir = heir_of(hub)
        await asyncio.to_thread(heir.receive)  # it begins
        await layer.send("work", {"number": 20})
        assert [(await layer.receive("work"))["number"] for _ in range(21)] == [*range(21)]
        assert "continuing" in hub.log.read_text()
        heir.close()
        await layer.close()

    run(tried())


FROZEN = """
import os, runpy, signal, sys
from chansup.layer.hub import takeover

confirm = takeover.Received.confirm

def later(self):
    os.kill(os.getpid(), signal.SIGSTOP)
    confirm(self)

takeover.Received.confirm = later
sys.argv = ["hub", "--socket", sys.argv[1], "--takeover"]
runpy.run_module("chansup.layer.hub", run_name="__main__")
"""


@pytest.mark.thorough
def test_a_successor_that_comes_too_late_does_not_begin_beside(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path, timeout=30)
        await layer.send("work", {"number": 0})
        before = (await layer.statistics())["pid"]
        command = [sys.executable, "-c", FROZEN, hub.path]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as successor:
            try:
                while "continuing" not in hub.log.read_text():
                    assert successor.poll() is None
                    await asyncio.sleep(0.05)
                await layer.send("work", {"number": 1})
                successor.send_signal(signal.SIGCONT)
                assert await ended(successor) == 1
            finally:
                successor.kill()
            assert successor.stderr is not None
            assert b"took too long. It continues" in successor.stderr.read()
        assert (await layer.statistics())["pid"] == before
        assert [(await layer.receive("work"))["number"] for _ in range(2)] == [0, 1]
        await layer.close()

    run(tried())


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

MAY_NOT = """
import os, socket, sys
os.setgroups([])
os.setuid(1)
with socket.socket(socket.AF_UNIX) as heir:
    heir.settimeout(20)
    heir.connect(sys.argv[1])
    heir.sendall(bytes.fromhex(sys.argv[2]))
    print(heir.recv(1))
"""


@as_root
def test_a_user_that_may_only_connect_does_not_take_over() -> None:
    with running("--user", "1") as hub:
        path = Path(hub.path)
        path.parent.chmod(0o755)
        path.chmod(0o666)
        words = [sys.executable, "-c", MAY_NOT, hub.path, pack(Kind.TAKE_OVER).hex()]
        asked = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert asked.stdout == "b''\n", asked.stderr
        assert "user id 1 may not take over" in hub.log.read_text()
        run(LocalChannelLayer(hub.path).statistics())
        run(replaced(hub))
