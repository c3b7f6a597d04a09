"""What goes wrong: receives that are cancelled, hubs that die, loops, forks, strangers."""

import asyncio
import math
import os
import random
import signal
import socket
import struct
import threading
import time
from collections import Counter
from typing import Any

import pytest

from chansup.layer import (
    ChannelFull,
    ForeignChannel,
    HubLost,
    HubUnavailable,
    LocalChannelLayer,
    MessageTooLarge,
)
from chansup.layer.frames import MAX_PAYLOAD, Kind, pack
from tests.layer.hubs import Hub, running


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 60))


@pytest.mark.parametrize("own", [False, True], ids=["ordinary", "specific"])
def test_receives_that_are_cancelled_at_random_lose_nothing(shared_hub: Hub, own: bool) -> None:
    async def tried() -> None:
        sender = LocalChannelLayer(shared_hub.path, capacity=10_000)
        receiver = LocalChannelLayer(shared_hub.path, capacity=10_000)
        await sender.flush()
        channel = await receiver.new_channel() if own else "cancelled"
        total = 2000
        got: list[int] = []

        async def send_all() -> None:
            for number in range(total):
                await sender.send(channel, {"number": number})
                if number % 7 == 0:
                    await asyncio.sleep(0)

        sending = asyncio.create_task(send_all())
        chance = random.Random(4)
        cancelled = 0
        deadline = time.monotonic() + 45
        while len(got) < total:
            assert time.monotonic() < deadline, (len(got), await sender.statistics())
            task = asyncio.ensure_future(receiver.receive(channel))
            for _ in range(chance.randrange(5)):
                await asyncio.sleep(0)
            if chance.random() < 0.2:
                await asyncio.sleep(chance.random() * 0.001)
            if chance.random() < 0.5:
                task.cancel()
            try:
                got.append((await task)["number"])
            except asyncio.CancelledError:
                cancelled += 1
        await sending
        assert got == list(range(total))
        assert cancelled > 100
        await sender.close()
        await receiver.close()

    run(tried())


def test_a_connection_that_dies_gives_back_what_was_not_taken(shared_hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(shared_hub.path)
        await layer.flush()
        await layer.send("orphans", {"number": 1})
        await layer.send("orphans", {"number": 2})
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(shared_hub.path)
            stranger.sendall(pack(Kind.HELLO, layer._client.hello()))
            for id in (1, 2):
                stranger.sendall(pack(Kind.LISTEN, struct.pack("!I", id) + b"orphans"))
            received = b""
            while received.count(b"number") < 2:
                received += stranger.recv(65536)
        assert (await asyncio.wait_for(layer.receive("orphans"), 5))["number"] == 1
        assert (await asyncio.wait_for(layer.receive("orphans"), 5))["number"] == 2
        await layer.close()

    run(tried())


@pytest.mark.slow
def test_a_hub_that_is_killed_under_load_comes_back_with_groups_and_receivers(hub: Hub) -> None:
    async def tried() -> None:
        sender = LocalChannelLayer(hub.path, capacity=1000, timeout=20)
        receiver = LocalChannelLayer(hub.path, capacity=1000, timeout=20)
        names = [await receiver.new_channel() for _ in range(5)]
        for name in names:
            await receiver.group_add("all", name)
        got: list[Counter[int]] = [Counter() for _ in names]
        ordinary: Counter[int] = Counter()

        async def listen(name: str, seen: Counter[int]) -> None:
            last = -1
            while True:
                number = (await receiver.receive(name))["number"]
                assert number > last or name == "work"
                last = number
                seen[number] += 1

        listeners = [
            asyncio.create_task(listen(name, seen)) for name, seen in zip(names, got, strict=True)
        ]
        listeners.append(asyncio.create_task(listen("work", ordinary)))

        async def kill_and_start(after: float) -> None:
            await asyncio.sleep(after)
            hub.kill()
            await asyncio.to_thread(hub.start)
            await asyncio.sleep(0.1)

        chance = random.Random(3)
        lost = 0
        number = 0
        for _ in range(3):
            killing = asyncio.create_task(kill_and_start(chance.uniform(0.02, 0.2)))
            while not killing.done():
                number += 1
                try:
                    await sender.group_send("all", {"number": number})
                    await sender.send("work", {"number": number})
                except HubLost:
                    lost += 1
                except ChannelFull:  # the receiver has not come back yet
                    await asyncio.sleep(0.01)
                except HubUnavailable:
                    pytest.fail("the hub was there again in time")
                await asyncio.sleep(0)
            await killing
        marker = number = number + 1
        deadline = time.monotonic() + 10
        while not all(seen[marker] for seen in got):  # memberships are replayed by now
            assert time.monotonic() < deadline
            await sender.group_send("all", {"number": number})
            await sender.send("work", {"number": number})
            await asyncio.sleep(0.1)
            marker, number = number, number + 1
        for listener in listeners:
            assert not listener.done()
            listener.cancel()
        for seen in (*got, ordinary):
            assert max(seen.values()) == 1, "never twice"
            assert len(seen) > number / 2
        assert lost <= 6
        await sender.close()
        await receiver.close()

    run(tried())


def test_without_a_hub_send_waits_a_bounded_time_and_says_where_it_looked(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path, timeout=0.3)
        await layer.send("alpha", {})
        hub.kill()
        await asyncio.sleep(0.05)
        began = time.monotonic()
        with pytest.raises(HubUnavailable, match=hub.path):
            await layer.send("alpha", {})
        assert 0.25 < time.monotonic() - began < 20
        hub.start()
        await layer.send("alpha", {"again": True})
        assert await layer.receive("alpha") == {"again": True}
        await layer.close()

    run(tried())


def test_a_receiver_may_wait_before_there_is_a_hub(hub: Hub) -> None:
    async def tried() -> None:
        hub.kill()
        layer = LocalChannelLayer(hub.path)
        name = await layer.new_channel()
        receivers = [asyncio.ensure_future(layer.receive(one)) for one in (name, "beta")]
        await asyncio.sleep(0.1)
        hub.start()
        other = LocalChannelLayer(hub.path)
        await other.send(name, {"to": "own"})
        await other.send("beta", {"to": "beta"})
        assert await asyncio.gather(*receivers) == [{"to": "own"}, {"to": "beta"}]
        await layer.close()
        await other.close()

    run(tried())


def test_two_event_loops_of_one_process(shared_hub: Hub) -> None:
    layer = LocalChannelLayer(shared_hub.path)
    asyncio.run(layer.flush())
    found: list[Any] = []
    names: list[str] = []
    ready = threading.Barrier(3, timeout=30)

    def work(place: int) -> None:
        async def receive() -> None:
            name = await layer.new_channel()
            names.append(name)
            await layer.group_add("loops", name)
            ready.wait()
            found.append(await asyncio.wait_for(layer.receive(name), 10))
            found.append(await asyncio.wait_for(layer.receive(f"loop{place}"), 10))

        asyncio.run(receive())

    threads = [threading.Thread(target=work, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    ready.wait()
    asyncio.run(layer.group_send("loops", {"to": "all"}))
    for place in range(2):
        asyncio.run(layer.send(f"loop{place}", {"to": "one"}))
    for thread in threads:
        thread.join()
    assert found.count({"to": "all"}) == 2
    assert found.count({"to": "one"}) == 2


def test_a_loop_takes_a_channel_over_from_one_that_does_not_run(shared_hub: Hub) -> None:
    layer = LocalChannelLayer(shared_hub.path)
    first = asyncio.new_event_loop()
    name = first.run_until_complete(layer.new_channel())
    first.run_until_complete(layer.send(name, {"number": 1}))
    assert first.run_until_complete(layer.receive(name)) == {"number": 1}
    for number in (2, 3):  # delivered to a loop that does not run any more
        asyncio.run(layer.send(name, {"number": number}))
    assert asyncio.run(layer.receive(name)) == {"number": 2}
    assert first.run_until_complete(layer.receive(name)) == {"number": 3}
    first.run_until_complete(layer.close())
    first.close()


def test_async_to_sync_from_threads(shared_hub: Hub) -> None:
    sync = pytest.importorskip("asgiref.sync")
    layer = LocalChannelLayer(shared_hub.path, capacity=1000)
    asyncio.run(layer.flush())

    def work() -> None:
        for _ in range(20):
            sync.async_to_sync(layer.send)("threads", {"type": "x"})

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asyncio.run(layer.statistics())["messages_pending"] == 80
    asyncio.run(layer.flush())


def test_after_a_fork_the_child_is_a_process_of_its_own(shared_hub: Hub) -> None:
    async def parent() -> None:
        layer = LocalChannelLayer(shared_hub.path)
        name = await layer.new_channel()
        await layer.group_add("family", name)
        waiting = asyncio.ensure_future(layer.receive(name))
        await asyncio.sleep(0.05)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                asyncio.events._set_running_loop(None)

                async def work() -> None:
                    own = await layer.new_channel()
                    assert own.partition("!")[0] != name.partition("!")[0]
                    await layer.group_add("family", own)
                    await layer.group_send("family", {"type": "child"})
                    assert (await layer.receive(own))["type"] == "child"
                    with pytest.raises(ForeignChannel):
                        await layer.receive(name)

                loop = asyncio.new_event_loop()
                loop.run_until_complete(asyncio.wait_for(work(), 10))
                code = 0
            finally:
                os._exit(code)
        assert (await asyncio.wait_for(waiting, 10))["type"] == "child"
        assert os.waitpid(child, 0)[1] == 0
        await layer.send(name, {"type": "after"})
        assert (await layer.receive(name))["type"] == "after"
        await layer.close()

    run(parent())


def test_messages_of_a_megabyte_go_through_and_no_larger_ones(shared_hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(shared_hub.path)
        message = {"type": "large", "text": "x" * 999_000}
        names = [await layer.new_channel() for _ in range(3)]
        for name in names:
            await layer.group_add("large", name)
        receiving = [asyncio.ensure_future(layer.receive(name)) for name in names]
        await layer.group_send("large", message)
        assert await asyncio.gather(*receiving) == [message] * 3
        await layer.send("large", message)
        assert await layer.receive("large") == message
        numbers = {"floats": [0.0] * 240_000}  # less than 1 MB as JSON, more as MessagePack
        await layer.send("large", numbers)
        assert await layer.receive("large") == numbers
        with pytest.raises(MessageTooLarge, match="1 MB"):
            await layer.send("large", {"text": "x" * 1_100_000})
        await layer.flush()
        await layer.close()

    run(tried())


def _garbage() -> list[bytes]:
    chance = random.Random(8)
    hello = pack(Kind.HELLO, LocalChannelLayer("/nowhere")._client.hello())
    return [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("!IB", MAX_PAYLOAD + 1, Kind.SEND),
        pack(Kind.SEND, b"\x05alpha"),
        pack(Kind.HELLO, b"\xc1"),
        hello + pack(Kind.SEND, b""),
        hello + pack(Kind.SEND, b"\xffabc"),
        hello + pack(Kind.TAKEN, b"abc"),
        hello + pack(Kind.LISTEN, b"ab"),
        hello + pack(Kind.LISTEN, b"\0\0\0\1alpha") + pack(Kind.LISTEN, b"\0\0\0\1beta"),
        hello + pack(Kind.GROUP_ADD, b"\0\0\0\0\x05al"),
        hello + pack(Kind.RETURN, b""),
        hello + pack(Kind.RETURN, struct.pack("!QIdI", 2**64 - 1, 1, math.nan, 2**32 - 1) + b"\1a"),
        hello + pack(Kind.RETURN, struct.pack("!QIdI", 0, 1, -math.inf, 0) + b"\1a"),
        hello + pack(Kind.HELD, b"\0\0\0\1"),
        hello + pack(Kind.LISTEN, b"\0\0\0\1alpha") + pack(Kind.TAKEN, b"\0\0\0\1"),
        hello + pack(Kind.GIVE_BACK, b"\0\0\0\1\0"),
        hello + pack(Kind.FAILED, b"\0\0\0\1"),
        hello + pack(Kind.CLAIM, b"\0\0\0\1"),
        hello + pack(Kind.CLAIM, b"\0\0\0\1" + b"\xff" * 8 + b"alpha"),
        hello + pack(Kind.OBSERVE, b"\xffa"),
        hello + pack(Kind.OBSERVE, b"\1a" * 5000),
        hello + 3 * pack(Kind.CLEARED),
        hello + 3 * pack(Kind.FLUSH),
        hello + pack(99, b"?"),
        hello + hello,
        *(hello + chance.randbytes(60) for _ in range(30)),
        *(hello + pack(chance.randrange(25), chance.randbytes(20)) for _ in range(60)),
    ]


def test_malformed_frames_end_one_connection_and_no_other(shared_hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(shared_hub.path)
        name = await layer.new_channel()
        await layer.group_add("whole", name)
        for sent in _garbage():
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.settimeout(0.05)
                stranger.connect(shared_hub.path)
                stranger.sendall(sent)
                try:
                    while stranger.recv(65536):
                        pass
                except (TimeoutError, ConnectionResetError):
                    pass
        await layer.flush()
        await layer.group_add("whole", name)
        await layer.group_send("whole", {"still": "here"})
        assert await layer.receive(name) == {"still": "here"}
        await layer.send("alpha", {"for": "nobody that is gone"})
        assert await layer.receive("alpha") == {"for": "nobody that is gone"}
        await layer.close()

    run(tried())


def test_another_user_is_refused(hub: Hub) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    assert os.stat(hub.path).st_mode & 0o777 == 0o600
    os.chmod(os.path.dirname(hub.path), 0o755)
    os.chmod(hub.path, 0o666)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setuid(65534)
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.settimeout(5)
                stranger.connect(hub.path)
                said = b"".join(iter(lambda: stranger.recv(4096), b""))
                code = 0 if b"user id 65534 may not connect" in said else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert "user id 65534 is refused" in hub.log.read_text()


def test_who_is_refused_hears_why() -> None:
    async def tried(path: str) -> str:
        first, second = LocalChannelLayer(path), LocalChannelLayer(path, timeout=0.5)
        await first.send("channel", {"type": "said"})
        with pytest.raises(HubUnavailable) as found:
            await second.send("channel", {"type": "said"})
        await second.close()
        await first.close()
        third = LocalChannelLayer(path, timeout=30)
        await third.send("channel", {"type": "said"})
        await third.close()
        return str(found.value)

    with running("--connections", "1") as hub:
        said = run(tried(hub.path))
    assert (
        "refuses this process: the hub has as many clients as it may ([channel_layer] conn" in said
    )
    assert "chansup run" not in said


def test_a_hub_that_is_frozen_is_not_waited_for_without_end(hub: Hub) -> None:
    """Who receives keeps waiting, and what is in hand stays in hand."""

    async def tried() -> None:
        layer = LocalChannelLayer(hub.path, timeout=1)
        await layer.send("held", {"number": 0})
        held = await layer.take("held", until_done=True)
        receiving = asyncio.create_task(layer.receive("work"))
        another = asyncio.create_task(layer.take("held"))
        await layer.statistics()
        assert hub.process is not None
        hub.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(HubLost, match="has not answered for 1 s"):
                await layer.send("work", {"number": 1})
            with pytest.raises(HubUnavailable, match="not answered") as caught:
                await layer.send("work", {"number": 2})
            assert not isinstance(caught.value, HubLost)  # it was not sent for sure
            with pytest.raises(HubUnavailable):
                await layer.statistics()
            assert not receiving.done()
        finally:
            hub.process.send_signal(signal.SIGCONT)
        assert (await receiving)["number"] == 1
        held.done()
        while (await layer.statistics())["messages_in_hand"]:
            await asyncio.sleep(0.01)
        assert not another.done()
        await layer.send("held", {"number": 3})
        assert (await another).message["number"] == 3
        await layer.close()

    run(tried())
