"""A WebSocket moves between two processes; what comes meanwhile reaches it once and in order."""

import asyncio
import contextvars
import itertools
import random
from typing import Any

import pytest

from chansup.layer import LocalChannelLayer
from chansup.layer.frames import ID, Kind, pack
from chansup.protocol.connection import Connection, connection
from tests.layer.hubs import PATIENCE, Hub
from tests.layer.raw import Raw

_ids = (f"handover-{number}" for number in itertools.count())


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 60))


async def inside(one: Connection, coroutine: Any) -> Any:
    """Await something in the context of a connection, as the relay runs an app."""
    context = contextvars.copy_context()
    context.run(connection.set, one)
    return await asyncio.get_running_loop().create_task(coroutine, context=context)


class Worker:
    """What the app of one WebSocket does in one worker."""

    def __init__(self, hub: Hub, id: str) -> None:
        self.layer = LocalChannelLayer(hub.path)
        self.connection = Connection(id)
        self.name = ""

    async def open(self, *groups: str) -> None:
        self.name = await inside(self.connection, self.layer.new_channel())
        for group in groups:
            await self.join(group)

    async def join(self, group: str) -> None:
        await inside(self.connection, self.layer.group_add(group, self.name))

    async def is_set_up(self) -> None:
        """As the relay says when the app asks for what comes after websocket.connect."""
        for welcome in self.connection.welcomes:
            welcome()

    async def receive(self) -> int:
        received = inside(self.connection, self.layer.receive(self.name))
        message = await asyncio.wait_for(received, 10)
        return int(message["number"])

    async def leave(self, *groups: str) -> None:
        self.connection.leaving = True
        for group in groups:
            await inside(self.connection, self.layer.group_discard(group, self.name))

    async def nothing_more(self) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(inside(self.connection, self.layer.receive(self.name)), 0.1)


@pytest.fixture
def id() -> str:
    return next(_ids)


def test_messages_wait_for_the_next_process(shared_hub: Hub, id: str) -> None:
    async def tried() -> None:
        sender = LocalChannelLayer(shared_hub.path)
        await sender.flush()
        old, new = Worker(shared_hub, id), Worker(shared_hub, id)
        await old.open("lions", "geese")
        await sender.group_send("lions", {"number": 1})
        assert await old.receive() == 1
        waiting = asyncio.ensure_future(inside(old.connection, old.layer.receive(old.name)))
        await asyncio.sleep(0.02)
        await old.leave("lions", "geese")
        waiting.cancel()
        await sender.group_send("lions", {"number": 2})
        await sender.group_send("geese", {"number": 3})
        await sender.send(old.name, {"number": 4})
        await new.open()
        await sender.group_send("lions", {"number": 5})
        receiving = asyncio.ensure_future(new.receive())
        await asyncio.sleep(0.05)
        assert not receiving.done()  # for it may be that it does not join the lions again
        await new.join("geese")
        await new.join("lions")
        await sender.group_send("geese", {"number": 6})
        assert await receiving == 2
        assert [await new.receive() for _ in range(4)] == [3, 4, 5, 6]
        await sender.send(old.name, {"number": 7})  # the former name leads to the new place
        await sender.send(new.name, {"number": 8})
        assert [await new.receive() for _ in range(2)] == [7, 8]
        await new.nothing_more()
        await new.layer.group_discard("lions", new.name)
        await new.layer.group_discard("geese", new.name)
        assert (await sender.statistics())["memberships"] == 0
        for layer in (sender, old.layer, new.layer):
            await layer.close()

    run(tried())


def test_what_the_old_process_had_in_hand_when_it_was_told_goes_along(
    shared_hub: Hub, id: str
) -> None:
    async def tried() -> None:
        sender = LocalChannelLayer(shared_hub.path)
        await sender.flush()
        old, new = Worker(shared_hub, id), Worker(shared_hub, id)
        await old.open("lions")
        for number in (1, 2, 3):
            await sender.group_send("lions", {"number": number})
        assert await old.receive() == 1
        # received, but Channels never hands it to a consumer that has ended meanwhile
        assert await old.receive() == 2
        await old.leave("lions")
        await new.open("lions")
        assert [await new.receive() for _ in range(2)] == [2, 3]
        await new.nothing_more()
        for layer in (sender, old.layer, new.layer):
            await layer.close()

    run(tried())


def test_a_new_process_that_is_too_early_waits_for_the_old_one(shared_hub: Hub, id: str) -> None:
    async def tried() -> None:
        sender = LocalChannelLayer(shared_hub.path)
        await sender.flush()
        old, new = Worker(shared_hub, id), Worker(shared_hub, id)
        await old.open("lions")
        waiting = asyncio.ensure_future(old.receive())
        await asyncio.sleep(0.02)
        await new.open("lions")
        receiving = asyncio.ensure_future(new.receive())
        await sender.group_send("lions", {"number": 1})
        assert await waiting == 1  # it has it, so the new one must not get it
        await sender.group_send("lions", {"number": 2})
        await asyncio.sleep(0.02)
        assert not receiving.done()
        await old.leave("lions")
        await sender.group_send("lions", {"number": 3})
        # The first was in hand: whether it was dealt with is not known, so it goes along.
        assert [await receiving, await new.receive(), await new.receive()] == [1, 2, 3]
        await new.nothing_more()
        for layer in (sender, old.layer, new.layer):
            await layer.close()

    run(tried())


def test_after_a_crash_the_next_process_takes_over_too(shared_hub: Hub, id: str) -> None:
    async def tried() -> None:
        sender = LocalChannelLayer(shared_hub.path)
        await sender.flush()
        old, new = Worker(shared_hub, id), Worker(shared_hub, id)
        await old.open("lions")
        receiving = asyncio.ensure_future(old.receive())
        await asyncio.sleep(0.02)
        await sender.group_send("lions", {"number": 1})
        assert await receiving == 1
        await sender.group_send("lions", {"number": 2})  # delivered, not taken
        await old.layer.close()  # for the hub it is as if the process was killed
        await sender.group_send("lions", {"number": 3})
        await new.open("lions")
        await sender.group_send("lions", {"number": 4})
        assert [await new.receive() for _ in range(3)] == [2, 3, 4]
        for layer in (sender, new.layer):
            await layer.close()

    run(tried())


def test_a_group_that_is_not_joined_again_keeps_the_rest_waiting_only_for_a_while(
    shared_hub: Hub, id: str
) -> None:
    async def tried() -> None:
        sender = LocalChannelLayer(shared_hub.path)
        await sender.flush()
        old, new = Worker(shared_hub, id), Worker(shared_hub, id)
        await old.open("lions", "geese")
        await old.leave("lions", "geese")
        await sender.group_send("geese", {"number": 1})
        await sender.group_send("lions", {"number": 2})
        await new.open("lions")
        await new.is_set_up()
        assert await new.receive() == 2
        assert (await sender.statistics())["dropped"]["moved"]
        await sender.group_send("geese", {"number": 3})
        await new.nothing_more()
        for layer in (sender, old.layer, new.layer):
            await layer.close()

    run(tried())


def test_a_hub_that_was_restarted_knows_whose_channels_they_are(hub: Hub, id: str) -> None:
    async def tried() -> None:
        sender = LocalChannelLayer(hub.path)
        old, new = Worker(hub, id), Worker(hub, id)
        await old.open("lions")
        await asyncio.to_thread(hub.kill)
        await asyncio.to_thread(hub.start)
        await asyncio.wait_for(_until_joined(sender), 20)
        await old.leave("lions")
        await sender.group_send("lions", {"number": 1})
        await new.open("lions")
        assert await new.receive() == 1
        for layer in (sender, old.layer, new.layer):
            await layer.close()

    run(tried())


def test_a_process_that_ends_in_between_two_hubs_says_what_it_has_taken(hub: Hub, id: str) -> None:
    async def ended() -> None:
        sender, old = LocalChannelLayer(hub.path), Worker(hub, id)
        await old.open("lions")
        for number in (1, 2, 3, 4):
            await sender.group_send("lions", {"number": number})
        assert await old.receive() == 1
        heir = Raw(hub.path, introduced=False)
        heir.say(pack(Kind.TAKE_OVER))
        await asyncio.to_thread(heir.receive)  # by then all are quiet
        assert [await old.receive(), await old.receive()] == [2, 3]
        await old.leave("lions")
        heir.close()  # so the hub continues, and this process does not

    async def begun() -> None:
        new = Worker(hub, id)
        await new.open("lions")
        assert [await new.receive(), await new.receive()] == [3, 4]  # 3 was in hand
        await new.nothing_more()
        await new.layer.close()

    run(ended())
    run(begun())


def test_a_process_that_leaves_before_it_sees_that_the_hub_was_replaced(hub: Hub, id: str) -> None:
    async def tried() -> None:
        sender, old, new = LocalChannelLayer(hub.path), Worker(hub, id), Worker(hub, id)
        await old.open("lions")
        for number in (1, 2):
            await sender.group_send("lions", {"number": number})
        assert await old.receive() == 1
        await sender.group_send("lions", {"number": 3})  # by now the hub knows that 1 was taken
        former = hub.process
        assert former is not None
        hub.start("--takeover")
        assert former.wait(PATIENCE) == 0  # it does not wait for this loop, which stands still
        old.connection.leaving = True
        for farewell in old.connection.farewells:
            await inside(old.connection, _called(farewell))
        await new.open("lions")
        assert [await new.receive() for _ in range(3)] == [1, 2, 3]
        for layer in (sender, old.layer, new.layer):
            await layer.close()

    run(tried())


def test_a_process_that_comes_back_too_late_takes_nothing_from_the_next(hub: Hub, id: str) -> None:
    async def tried() -> None:
        sender, old, new = LocalChannelLayer(hub.path), Worker(hub, id), Worker(hub, id)
        await old.open("lions")
        await old.leave("lions")
        await new.open("lions")
        await sender.group_send("lions", {"number": 1})
        assert await new.receive() == 1
        late = Raw(hub.path)
        late.say(pack(Kind.LISTEN, ID.pack(1) + old.name.encode()))
        late.say(pack(Kind.STATISTICS))
        await asyncio.to_thread(late.wait_for, Kind.RESULT)
        late.close()
        for name in (old.name, new.name):
            await sender.send(name, {"number": 2})
            assert await new.receive() == 2
        for layer in (sender, old.layer, new.layer):
            await layer.close()

    run(tried())


async def _until_joined(layer: LocalChannelLayer) -> None:
    while not (await layer.statistics())["memberships"]:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("in_hand", [True, False])
def test_what_was_not_finished_comes_again_or_not(shared_hub: Hub, id: str, in_hand: bool) -> None:
    """An app that lets go of nothing, and has taken a message."""

    async def tried() -> None:
        sender = LocalChannelLayer(shared_hub.path)
        await sender.flush()
        old, new = Worker(shared_hub, id), Worker(shared_hub, id)
        await old.open("lions")
        for number in (1, 2):
            await sender.group_send("lions", {"number": number})
        assert await old.receive() == 1
        old.connection.leaving = True
        old.connection.unfinished = not in_hand
        for farewell in old.connection.farewells:
            await inside(old.connection, _called(farewell))
        await new.open("lions")
        assert [await new.receive() for _ in range(1 + in_hand)] == ([1, 2] if in_hand else [2])
        await new.nothing_more()
        for layer in (sender, old.layer, new.layer):
            await layer.close()

    run(tried())


async def _called(call: Any) -> None:
    call()


def test_leaving_for_good_discards(hub: Hub, id: str) -> None:
    async def tried() -> None:
        sender = LocalChannelLayer(hub.path)
        old = Worker(hub, id)
        await old.open("lions")
        waiting = asyncio.ensure_future(old.receive())
        await asyncio.sleep(0.02)
        await inside(old.connection, old.layer.group_discard("lions", old.name))
        waiting.cancel()
        await asyncio.sleep(0.02)
        found = await sender.statistics()
        assert found["memberships"] == found["parked"] == 0
        await sender.close()
        await old.layer.close()

    run(tried())


@pytest.mark.slow
def test_many_moves_under_load_lose_and_double_nothing(shared_hub: Hub, id: str) -> None:
    async def tried() -> None:
        sender = LocalChannelLayer(shared_hub.path)
        await sender.flush()
        chance = random.Random(6)
        groups = ("lions", "geese")
        got: list[int] = []
        sent = 0
        ended = False

        async def send() -> None:
            nonlocal sent
            while not ended:
                sent += 1
                await sender.group_send(chance.choice(groups), {"number": sent})
                await asyncio.sleep(0.0005)

        async def consume(worker: Worker) -> None:
            while True:
                received = await worker.layer.receive(worker.name)
                got.append(received["number"])

        worker = Worker(shared_hub, id)
        await worker.open(*groups)
        sending = asyncio.create_task(send())
        layers = [worker.layer]
        for _ in range(15):
            consuming = asyncio.ensure_future(inside(worker.connection, consume(worker)))
            await asyncio.sleep(chance.uniform(0.005, 0.03))
            if chance.random() < 0.5:
                await worker.leave(*groups)  # and then Channels cancels its receiver
            else:
                worker.connection.leaving = True
            consuming.cancel()
            await asyncio.gather(consuming, return_exceptions=True)
            for farewell in worker.connection.farewells:
                await inside(worker.connection, _called(farewell))
            await asyncio.sleep(chance.uniform(0, 0.01))
            worker = Worker(shared_hub, id)
            layers.append(worker.layer)
            await worker.open(*groups)
        ended = True
        await sending
        while len(got) < sent:
            got.append(await worker.receive())
        assert got == list(range(1, sent + 1))
        for layer in (sender, *layers):
            await layer.close()

    run(tried())
