"""The specification as a model, run against the hub and against Channels' own layer in memory."""

import asyncio
from collections import deque
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from chansup.layer import ChannelFull, LocalChannelLayer
from tests.layer.hubs import Hub

CAPACITY = 3
SHORT = 0.004
channels = st.integers(0, 4)  # the last two have a "!"
groups = st.sampled_from(["lions", "geese"])


class Layers:
    """Where a message is sent and received: two processes' layers, or one."""

    def __init__(self, sender: Any, receiver: Any) -> None:
        self.sender = sender
        self.receiver = receiver


class Specification(RuleBasedStateMachine):
    layers: Any  # makes Layers

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

    @rule(channel=channels)
    def send(self, channel: int) -> None:
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

    @rule(channel=channels)
    def receive(self, channel: int) -> None:
        queue = self.queues[channel]
        received = self.made.receiver.receive(self.names[channel])
        if queue:
            message = self.run(asyncio.wait_for(received, 5))
            assert message == {"type": "test", "number": queue.popleft()}
        else:
            with pytest.raises(TimeoutError):
                self.run(asyncio.wait_for(received, SHORT))

    @precondition(lambda self: any(self.queues))
    @rule(channel=channels, turns=st.integers(0, 6))
    def cancel(self, channel: int, turns: int) -> None:
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

    @rule(channel=channels, message=groups)
    def wait_and_send(self, channel: int, message: str) -> None:
        """A message that comes while somebody waits."""

        async def tried() -> Any:
            task = asyncio.ensure_future(self.made.receiver.receive(self.names[channel]))
            await asyncio.sleep(0.001)
            await self.made.sender.send(self.names[channel], self.message())
            return await asyncio.wait_for(task, 5)

        if not self.queues[channel]:
            assert self.run(tried())["number"] == self.number

    @rule(group=groups, channel=channels)
    def join(self, group: str, channel: int) -> None:
        self.run(self.made.receiver.group_add(group, self.names[channel]))
        self.members[group].add(channel)

    @rule(group=groups, channel=channels)
    def leave(self, group: str, channel: int) -> None:
        self.run(self.made.sender.group_discard(group, self.names[channel]))
        self.members[group].discard(channel)

    @rule(group=groups)
    def tell(self, group: str) -> None:
        self.run(self.made.sender.group_send(group, self.message()))
        for channel in self.members[group]:
            if len(self.queues[channel]) < CAPACITY:
                self.queues[channel].append(self.number)

    @precondition(lambda self: self.number > 10)
    @rule()
    def flush(self) -> None:
        self.run(self.made.sender.flush())
        for queue in self.queues:
            queue.clear()
        for members in self.members.values():
            members.clear()

    def teardown(self) -> None:
        for channel, queue in enumerate(self.queues):
            while queue:
                self.receive(channel)
        self.run(self.made.sender.close())
        if self.made.receiver is not self.made.sender:
            self.run(self.made.receiver.close())
        self.loop.close()


def check(make: Any, examples: int) -> None:
    class Case(Specification):
        def layers(self) -> Layers:
            return make()

    run_state_machine_as_test(
        Case,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            phases=(Phase.generate,),  # it waits for real: to shrink takes minutes
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(100)
def test_the_hub_is_as_the_model(shared_hub: Hub) -> None:
    def make() -> Layers:
        return Layers(
            LocalChannelLayer(shared_hub.path, capacity=CAPACITY),
            LocalChannelLayer(shared_hub.path, capacity=CAPACITY),
        )

    check(make, 25)


@pytest.mark.slow
def test_the_model_is_right_about_channels_own_layer() -> None:
    layers = pytest.importorskip("channels.layers")

    def make() -> Layers:
        layer = layers.InMemoryChannelLayer(capacity=CAPACITY)
        layer.channel_capacity = []  # see BaseChannelLayer: it never compiles them
        return Layers(layer, layer)

    check(make, 10)
