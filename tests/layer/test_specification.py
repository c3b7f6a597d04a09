"""Sentences of the channel layer specification, and of what Channels relies on, one by one."""

import asyncio
import inspect
import time
from typing import Any

import pytest

from chansup.layer import ChannelFull, LocalChannelLayer, MessageTooLarge
from chansup.layer.hub.channel import Channel, Message
from chansup.layer.hub.limits import Memory
from chansup.layer.hub.store import Store
from chansup.layer.policies import Capacities, Policy
from tests.layer.hubs import Hub


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def test_what_a_layer_is_made_of(shared_hub: Hub) -> None:
    layer = LocalChannelLayer(shared_hub.path)
    assert {"groups", "flush"} <= set(layer.extensions)
    assert layer.group_expiry == 86400
    assert layer.ChannelFull is ChannelFull
    assert layer.MessageTooLarge is MessageTooLarge
    for name, arguments in {
        "send": ("channel", "message"),
        "receive": ("channel",),
        "new_channel": (),
        "group_add": ("group", "channel"),
        "group_discard": ("group", "channel"),
        "group_send": ("group", "message"),
        "flush": (),
    }.items():
        method = getattr(layer, name)
        assert inspect.iscoroutinefunction(method)
        inspect.signature(method).bind(*arguments)  # all of them positional
    channels = pytest.importorskip("channels.layers")
    assert isinstance(layer, channels.BaseChannelLayer)


def test_a_second_group_add_and_a_group_discard_of_nobody_do_nothing(shared_hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(shared_hub.path)
        await layer.flush()
        await layer.group_discard("spec", "twice")
        await layer.group_add("spec", "twice")
        await layer.group_add("spec", "twice")
        await layer.group_discard("spec", "never")
        await layer.group_send("spec", {"number": 1})
        assert (await layer.observe(["twice"]))["twice"].messages == 1
        await layer.group_discard("spec", "twice")
        await layer.group_send("spec", {"number": 2})
        await layer.group_send("nobody", {})
        assert (await layer.observe(["twice"]))["twice"].messages == 1
        with pytest.raises(MessageTooLarge):
            await layer.group_send("spec", {"text": "x" * 1_200_000})
        await layer.flush()
        await layer.close()

    run(tried())


def test_capacity_goes_for_all_channels_of_a_process_together(shared_hub: Hub) -> None:
    async def tried() -> None:
        sender = LocalChannelLayer(shared_hub.path, capacity=3)
        receiver = LocalChannelLayer(shared_hub.path, capacity=3)
        names = [await receiver.new_channel() for _ in range(4)]
        for name in names[:3]:
            await sender.send(name, {"to": name})
        for name in names:
            with pytest.raises(ChannelFull):
                await sender.send(name, {})
        for name in names[:3]:
            assert await receiver.receive(name) == {"to": name}
        await sender.send(names[3], {"to": "last"})
        assert await receiver.receive(names[3]) == {"to": "last"}
        await sender.close()
        await receiver.close()

    run(tried())


def test_to_send_never_blocks(shared_hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(shared_hub.path, capacity=10)
        await layer.flush()
        results = await asyncio.gather(
            *(layer.send("nobody.reads", {"number": number}) for number in range(50)),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == 10 * [type(None)] + 40 * [ChannelFull]
        await layer.flush()
        await layer.close()

    run(tried())


def test_flush_is_over_when_all_processes_look_empty(shared_hub: Hub) -> None:
    """Also what was delivered to a process, and that it has not read yet, is gone."""

    async def tried() -> None:
        here = LocalChannelLayer(shared_hub.path)
        there = LocalChannelLayer(shared_hub.path)
        name = await there.new_channel()
        for number in range(30):
            await here.send(name, {"number": -1})
            assert await there.receive(name) == {"number": -1}
            await here.send(name, {"number": number})
            await here.flush()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(there.receive(name), 0.002)
        await here.close()
        await there.close()

    run(tried())


def test_a_client_that_does_not_look_holds_flush_up_for_a_moment_only(shared_hub: Hub) -> None:
    blocked = LocalChannelLayer(shared_hub.path)
    loop = asyncio.new_event_loop()  # it does not run most of the time
    name = loop.run_until_complete(blocked.new_channel())
    layer = LocalChannelLayer(shared_hub.path)
    run(layer.send(name, {"number": 1}))
    assert loop.run_until_complete(blocked.receive(name)) == {"number": 1}
    run(layer.send(name, {"number": 2}))
    began = time.monotonic()
    run(layer.flush())
    assert time.monotonic() - began < 20
    with pytest.raises(TimeoutError):
        loop.run_until_complete(asyncio.wait_for(blocked.receive(name), 0.1))
    loop.run_until_complete(blocked.close())
    loop.close()


def test_loops_that_have_ended_leave_no_connection_behind(shared_hub: Hub) -> None:
    sync = pytest.importorskip("asgiref.sync")
    layer = LocalChannelLayer(shared_hub.path)
    other = LocalChannelLayer(shared_hub.path)

    async def connections() -> int:
        found: int = (await other.statistics())["connections"]
        await other.close()
        return found

    run(layer.flush())
    before = run(connections())
    for _ in range(20):
        run(layer.send("leak", {}))
        sync.async_to_sync(layer.receive)("leak")
    assert not any(link for link in layer._client._links.values() if not link.closed)
    assert run(connections()) == before


def test_a_message_to_a_group_is_one_frame_for_each_process() -> None:
    class Reader:
        def __init__(self) -> None:
            self.crowded = False
            self.flight: dict[int, tuple[Channel, Message]] = {}
            self.frames: list[int] = []

        def deliver(self, id: int, message: Message, crowded: bool) -> None:
            self.frames.append(1)

        def deliver_to_many(self, ids: list[int], message: Message, crowded: bool) -> None:
            self.frames.append(len(ids))

        def hand(self, id: int, message: Message) -> None:
            pytest.fail("no member is an ordinary channel")

    store = Store(Memory(10**8))
    capacities = Capacities(Policy(60, 86400, 100))
    readers = [Reader(), Reader()]
    for place in range(200):
        name = b"specific.%016d!%d" % (place % 2, place)
        store.group_add(b"all", name, 0, capacities)
        store.listen(store.channels[name], readers[place % 2], place + 1)
    store.group_send(b"all", b"body", capacities)
    assert [reader.frames for reader in readers] == [[100], [100]]
    assert store.delivered == 200


def test_a_quiet_channel_is_not_held_up_by_a_busy_one(shared_hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(shared_hub.path, capacity=5000)
        await layer.flush()
        await asyncio.gather(*(layer.send("busy", {}) for _ in range(3000)))
        await layer.send("quiet", {"type": "x"})
        reading = asyncio.ensure_future(layer.receive("quiet"))
        seen = 0
        while not reading.done():
            await layer.receive("busy")
            seen += 1
        assert seen < 100
        await layer.flush()
        await layer.close()

    run(tried())
