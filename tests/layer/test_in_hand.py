"""With what an app is busy, as its WebSocket's connection decides."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("channels")

from channels.layers import InMemoryChannelLayer

from chansup.layer.in_hand import watched
from chansup.protocol.connection import Connection
from chansup.protocol.connection import connection as current_connection

NOTE = {"type": "note"}


@contextmanager
def connected() -> Iterator[tuple[Connection, Any]]:
    connection = Connection("1")
    token = current_connection.set(connection)
    try:
        yield connection, watched(InMemoryChannelLayer())
    finally:
        current_connection.reset(token)


def run(scenario: Callable[[Connection, Any], Coroutine[Any, Any, None]]) -> None:
    with connected() as (connection, layer):
        asyncio.run(scenario(connection, layer))


async def in_a_task(work: Coroutine[Any, Any, Any]) -> Any:
    return await asyncio.create_task(work)


def test_it_is_busy_until_the_same_channel_is_asked_again() -> None:
    async def scenario(connection: Connection, layer: Any) -> None:
        channel = await layer.new_channel()
        await layer.send(channel, NOTE)
        assert not connection.is_busy
        await in_a_task(layer.receive(channel))
        assert connection.is_busy
        connection.asks_client()
        assert connection.is_busy, "somebody else asked"
        again = asyncio.create_task(layer.receive(channel))
        await asyncio.sleep(0)
        assert not connection.is_busy
        again.cancel()

    run(scenario)


def test_two_channels_are_told_apart() -> None:
    async def scenario(connection: Connection, layer: Any) -> None:
        one, two = await layer.new_channel(), await layer.new_channel()
        for channel in (one, two):
            await layer.send(channel, NOTE)
            await in_a_task(layer.receive(channel))
        again = asyncio.create_task(layer.receive(one))
        await asyncio.sleep(0)
        assert connection.is_busy
        again.cancel()

    run(scenario)


def test_whoever_took_a_message_and_asks_its_client_is_done_with_it() -> None:
    async def scenario(connection: Connection, layer: Any) -> None:
        channel = await layer.new_channel()
        await layer.send(channel, NOTE)
        await layer.receive(channel)
        assert connection.is_busy
        connection.asks_client()
        assert not connection.is_busy

    run(scenario)


@pytest.mark.parametrize("patiently", [False, True])
def test_an_answer_ends_with_the_handler_that_waited_for_it(patiently: bool) -> None:
    async def scenario(connection: Connection, layer: Any) -> None:
        main = await layer.new_channel()
        await layer.send(main, NOTE)
        await in_a_task(layer.receive(main))
        answers = await layer.new_channel()
        await layer.send(answers, NOTE)
        waiting = layer.receive(answers)
        await (in_a_task(waiting) if patiently else waiting)
        assert connection.is_busy
        again = asyncio.create_task(layer.receive(main))
        await asyncio.sleep(0)
        assert not connection.is_busy
        again.cancel()

    run(scenario)


def test_what_comes_after_the_goodbye_is_left_for_the_next_worker() -> None:
    async def scenario(connection: Connection, layer: Any) -> None:
        channel = await layer.new_channel()
        connection.leaving = True
        own = await layer.new_channel()  # for the goodbye itself
        for one in (channel, own):
            await layer.send(one, NOTE)
        assert await layer.receive(own) == NOTE
        held = asyncio.create_task(layer.receive(channel))
        await asyncio.sleep(0.01)
        assert not held.done()
        held.cancel()

    run(scenario)


def test_the_relay_hears_when_the_app_asks() -> None:
    async def scenario(connection: Connection, layer: Any) -> None:
        asked = []
        connection.on_ask = lambda: asked.append(connection.is_busy)
        channel = await layer.new_channel()
        for _ in range(2):
            await layer.send(channel, NOTE)
            await in_a_task(layer.receive(channel))
        assert asked == [False, False]

    run(scenario)


def test_outside_of_a_connection_a_layer_is_as_it_was() -> None:
    async def scenario() -> None:
        layer = watched(InMemoryChannelLayer())
        channel = await layer.new_channel()
        await layer.send(channel, NOTE)
        assert await layer.receive(channel) == NOTE

    asyncio.run(scenario())
