"""The specification as a model, run against the hub and against Channels' own layer in memory."""

import asyncio
import time
from collections import Counter, deque
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from chansup.layer import ChannelFull, Delivery, LocalChannelLayer
from tests.layer.hubs import Hub

CAPACITY = 3
SHORT = 0.004
ORDINARY = 3  # channels, the first ones
CHANNELS = 5  # the last two have a "!"
GROUPS = ("lions", "geese")


class Layers:
    """Where a message is sent and received: two processes' layers, or one."""

    def __init__(self, sender: Any, receiver: Any) -> None:
        self.sender = sender
        self.receiver = receiver


class Specification(RuleBasedStateMachine):
    layers: Any  # makes Layers
    operations: tuple[str, ...] = (
        *(6 * ["send"] + 4 * ["receive"] + 2 * ["cancel", "wait_and_send", "join", "leave"]),
        *(3 * ["tell"] + ["flush"]),
    )

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.number = 0
        self.queues: list[deque[int]] = [deque() for _ in range(5)]
        self.members: dict[str, set[int]] = {"lions": set(), "geese": set()}
        self.made = self.layers()
        self.run(self.made.sender.flush())
        own = [self.run(self.made.receiver.new_channel()) for _ in range(2)]
        self.names = ["alpha", "beta", "gamma", *own]

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def message(self) -> dict[str, Any]:
        self.number += 1
        return {"type": "test", "number": self.number}

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        """Choose what happens evenly: hypothesis would leave most of it out in most cases."""
        self.chance = Random(seed + 2**40)

    @rule()
    def step(self) -> None:
        getattr(self, self.chance.choice(self.operations))(self.chance)

    def send(self, chance: Random) -> None:
        channel = chance.randrange(CHANNELS)
        message = self.message()
        sent = self.made.sender.send(self.names[channel], message)
        if len(self.queues[channel]) >= CAPACITY:
            with pytest.raises(ChannelFull):
                self.run(sent)
            return
        try:
            self.run(sent)
        except ChannelFull:  # channels with "!" share what waits for their process
            assert channel > 2
            assert len(self.queues[3]) + len(self.queues[4]) >= CAPACITY
        else:
            self.queues[channel].append(self.number)

    def receive(self, chance: Random) -> None:
        channel = chance.randrange(CHANNELS)
        if self.queues[channel] or chance.random() < 0.25:
            self.receive_from(channel)

    def receive_from(self, channel: int) -> None:
        queue = self.queues[channel]
        received = self.made.receiver.receive(self.names[channel])
        if queue:
            message = self.run(asyncio.wait_for(received, 5))
            assert message == {"type": "test", "number": queue.popleft()}
        else:
            with pytest.raises(TimeoutError):
                self.run(asyncio.wait_for(received, SHORT))

    def cancel(self, chance: Random) -> None:
        channel, turns = chance.randrange(CHANNELS), chance.randrange(7)

        async def tried() -> Any:
            task = asyncio.ensure_future(self.made.receiver.receive(self.names[channel]))
            for _ in range(turns):
                await asyncio.sleep(0)
            if turns % 2:
                await asyncio.sleep(0.0003 * turns)
            task.cancel()
            try:
                return await task
            except asyncio.CancelledError:
                return None

        message = self.run(tried())
        if message is not None:
            assert message["number"] == self.queues[channel].popleft()

    def wait_and_send(self, chance: Random) -> None:
        """A message that comes while somebody waits."""
        channel = chance.randrange(CHANNELS)

        async def tried() -> Any:
            task = asyncio.ensure_future(self.made.receiver.receive(self.names[channel]))
            await asyncio.sleep(0.001)
            await self.made.sender.send(self.names[channel], self.message())
            return await asyncio.wait_for(task, 5)

        if not self.queues[channel] and len(self.queues[3]) + len(self.queues[4]) < CAPACITY:
            assert self.run(tried())["number"] == self.number

    def join(self, chance: Random) -> None:
        group, channel = chance.choice(GROUPS), chance.randrange(CHANNELS)
        self.run(self.made.receiver.group_add(group, self.names[channel]))
        self.members[group].add(channel)

    def leave(self, chance: Random) -> None:
        group, channel = chance.choice(GROUPS), chance.randrange(CHANNELS)
        self.run(self.made.sender.group_discard(group, self.names[channel]))
        self.members[group].discard(channel)

    def tell(self, chance: Random) -> None:
        group = chance.choice(GROUPS)
        self.run(self.made.sender.group_send(group, self.message()))
        for channel in self.members[group]:
            if len(self.queues[channel]) < CAPACITY:
                self.queues[channel].append(self.number)

    def flush(self, chance: Random) -> None:
        self.run(self.made.sender.flush())
        for queue in self.queues:
            queue.clear()
        for members in self.members.values():
            members.clear()

    def teardown(self) -> None:
        for channel, queue in enumerate(self.queues):
            while queue:
                self.receive_from(channel)
        self.run(self.made.sender.close())
        if self.made.receiver is not self.made.sender:
            self.run(self.made.receiver.close())
        self.loop.close()


class Held:
    """A message that was taken, as the model knows it."""

    def __init__(self, channel: int, number: int, until_done: bool, delivery: Delivery) -> None:
        self.channel = channel
        self.number = number
        self.until_done = until_done
        self.delivery = delivery


class WithTakes(Specification):
    """The same, and messages that are kept until they were dealt with."""

    operations = (*Specification.operations, *(9 * ["take"] + 3 * ["give_back", "done"] + ["die"]))

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Held] = []
        self.failures: Counter[tuple[int, int]] = Counter()

    def back(self, held: Held, failed: bool) -> None:
        queue = self.queues[held.channel]
        self.queues[held.channel] = deque(sorted([*queue, held.number]))
        self.failures[held.channel, held.number] += failed

    def depths(self) -> None:
        """Wait until the hub knows what the receiver did: it hears of it by another connection."""

        async def tried() -> None:
            deadline = time.monotonic() + 30
            expected = [len(queue) for queue in list(self.queues)[:ORDINARY]]
            while True:
                found = await self.made.sender.observe(self.names[:ORDINARY])
                if [queue.messages for queue in found.values()] == expected:
                    return
                assert time.monotonic() < deadline, (found, expected)
                await asyncio.sleep(0.002)

        self.run(tried())

    def take(self, chance: Random) -> None:
        channel, until_done = chance.randrange(ORDINARY), chance.random() < 0.5
        if self.queues[channel]:
            self.take_from(channel, until_done)
            return
        if chance.random() < 0.75:
            return
        taken = self.made.receiver.take(self.names[channel], until_done=until_done)
        with pytest.raises(TimeoutError):
            self.run(asyncio.wait_for(taken, SHORT))

    def take_from(self, channel: int, until_done: bool) -> None:
        taken = self.made.receiver.take(self.names[channel], until_done=until_done)
        queue = self.queues[channel]
        delivery = self.run(asyncio.wait_for(taken, 5))
        number = queue.popleft()
        assert delivery.message["number"] == number
        assert delivery.attempt == 1 + self.failures[channel, number]
        assert delivery.waited >= 0
        self.held.append(Held(channel, number, until_done, delivery))

    def give_back(self, chance: Random) -> None:
        if not self.held:
            return
        held = self.held.pop(chance.randrange(len(self.held)))
        failed = chance.random() < 0.5

        async def tried() -> None:
            held.delivery.give_back(failed=failed)
            held.delivery.done()

        self.run(tried())
        self.back(held, failed)
        self.depths()
        if chance.random() < 0.5:
            self.take_from(held.channel, held.until_done)

    def done(self, chance: Random) -> None:
        if not self.held:
            return
        held = self.held.pop(chance.randrange(len(self.held)))

        async def tried() -> None:
            held.delivery.done()
            held.delivery.give_back(failed=True)

        self.run(tried())

    def die(self, chance: Random) -> None:
        """The connection ends with all that is in hand."""
        self.run(self.made.receiver.close())
        for held in self.held:
            if held.until_done:
                self.back(held, failed=True)
        self.held.clear()
        self.depths()

    def flush(self, chance: Random) -> None:
        super().flush(chance)
        self.held.clear()

    def teardown(self) -> None:
        self.depths()

        async def done() -> None:  # else it comes back when the layer is closed
            for held in self.held:
                held.delivery.done()

        self.run(done())
        super().teardown()


def check(make: Any, examples: int, specification: type[Specification] = Specification) -> None:
    class Case(specification):  # type: ignore[valid-type, misc]
        def layers(self) -> Layers:
            return make()

    run_state_machine_as_test(
        Case,
        settings=settings(
            max_examples=examples,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            phases=(Phase.generate,),  # it waits for real: to shrink takes minutes
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(100)
@pytest.mark.thorough
def test_the_hub_is_as_the_model(shared_hub: Hub) -> None:
    def make() -> Layers:
        return Layers(
            LocalChannelLayer(shared_hub.path, capacity=CAPACITY),
            LocalChannelLayer(shared_hub.path, capacity=CAPACITY),
        )

    check(make, 25)


@pytest.mark.slow
@pytest.mark.timeout(100)
def test_the_hub_keeps_what_is_in_hand_as_the_model(shared_hub: Hub) -> None:
    def make() -> Layers:
        return Layers(
            LocalChannelLayer(shared_hub.path, capacity=CAPACITY),
            LocalChannelLayer(shared_hub.path, capacity=CAPACITY),
        )

    check(make, 25, WithTakes)


@pytest.mark.slow
def test_the_model_is_right_about_channels_own_layer() -> None:
    layers = pytest.importorskip("channels.layers")

    def make() -> Layers:
        layer = layers.InMemoryChannelLayer(capacity=CAPACITY)
        layer.channel_capacity = []  # see BaseChannelLayer: it never compiles them
        return Layers(layer, layer)

    check(make, 10)
