"""What the app of a WebSocket has in hand of the channel layer, told to the relay.

A WebSocket moves when its app is idle: when it waits for its client, and has dealt with each
message that it took from the layer. As with the client's messages, asking for the next one is the
sign that it has dealt with the one before.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from chansup.protocol.connection import connection as current_connection

Receive = Callable[[str], Awaitable[dict[str, Any]]]


def opened(channel: str) -> str:
    """Take notice of a new channel: it belongs to the connection that the app works on."""
    connection = current_connection.get()
    if connection is not None:
        connection.opens(channel)
    return channel


async def received(channel: str, receive: Receive) -> dict[str, Any]:
    """Return what `receive` returns for a channel, and tell the relay that it is in hand.

    When the app was told to leave, `receive` is to hold back what comes to its own channels.
    """
    connection = current_connection.get()
    if connection is None:
        return await receive(channel)
    connection.asks(channel)
    message = await receive(channel)
    connection.took(channel)
    return message


def watched(layer: Any) -> Any:
    """Return a channel layer of another package, which tells from now on about messages in hand."""
    new_channel, receive = layer.new_channel, layer.receive

    async def watched_new_channel(*args: Any, **named: Any) -> str:
        return opened(await new_channel(*args, **named))

    async def watched_receive(channel: str) -> dict[str, Any]:
        return await received(channel, receive_unless_it_leaves)

    async def receive_unless_it_leaves(channel: str) -> dict[str, Any]:
        connection = current_connection.get()
        if connection is not None and connection.holds_back(channel):
            await asyncio.get_running_loop().create_future()  # until it is cancelled
        found: dict[str, Any] = await receive(channel)
        return found

    # Not a class of its own: whoever looks what kind of layer it is finds what it expects.
    layer.new_channel, layer.receive = watched_new_channel, watched_receive
    return layer
