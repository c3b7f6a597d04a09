"""Where messages come from: what a worker needs of a channel layer, whatever layer it is."""

import time
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Protocol

import msgspec

from chansup.layer.errors import Unreadable

Message = dict[str, Any]


class Delivery(Protocol):
    """One message that was taken. It may have an `error`: why it cannot be read."""

    message: Message
    waited: float | None  # seconds in the queue; None where nobody knows
    attempt: int  # 1: it was never taken before

    def done(self) -> None:
        """Forget it."""

    def give_back(self, *, failed: bool = False) -> None:
        """Put it back at the head of the queue; `failed`: that was an attempt."""


class Look(msgspec.Struct, frozen=True):
    """A queue as it is now."""

    depth: int
    oldest: float | None  # age of the oldest message, in seconds


class Source(Protocol):
    """A channel layer, as a worker uses it."""

    recallable: bool  # a take that is cancelled loses nothing, so it is when nobody is free
    returns: bool  # what was taken can go back

    def places(self, channel: str) -> Iterable[Hashable]:
        """Return where messages of a channel may lie: each is waited for by itself."""

    async def take(self, channel: str, place: Hashable) -> Delivery | None:
        """Return a message; None after a while, so that the caller can think again."""

    async def look(self, channels: Iterable[str]) -> Mapping[str, Look]:
        """Return the state of the queues."""

    async def finish(self) -> None:
        """Wait until what was done or given back is known to the layer."""


class _Plain:
    """A message that is gone from the queue for good."""

    waited: float | None = None
    attempt = 1

    def __init__(self, message: Message) -> None:
        self.message = message

    def done(self) -> None:
        """Nothing remembers it."""

    def give_back(self, *, failed: bool = False) -> None:
        """There is no way back."""
        raise NotImplementedError


class PlainSource:
    """Any channel layer: `receive()`, and nothing more."""

    recallable = False
    returns = False

    def __init__(self, layer: Any) -> None:
        self._layer = layer

    def places(self, channel: str) -> Iterable[Hashable]:
        """There is one."""
        return (0,)

    async def take(self, channel: str, place: Hashable) -> Delivery:
        """Receive a message."""
        return _Plain(await self._layer.receive(channel))

    async def look(self, channels: Iterable[str]) -> Mapping[str, Look]:
        """Nobody can look into it."""
        return {}

    async def finish(self) -> None:
        """There is nothing to wait for."""


class _Unread:
    """A message that the hub has, and nobody here can read."""

    def __init__(self, error: Unreadable) -> None:
        self._receipt = error.receipt
        self.error = error
        self.message: Message = {"unreadable": error.body}
        self.waited: float | None = error.receipt.waited
        self.attempt = error.receipt.attempt

    def done(self) -> None:
        """Forget it."""
        self._receipt.done()

    def give_back(self, *, failed: bool = False) -> None:
        """Put it back: another process may have the right key."""
        self._receipt.give_back(failed=failed)


class LocalSource:
    """chansup's own layer: its hub takes messages back, and keeps them until they are done."""

    recallable = True
    returns = True

    def __init__(self, layer: Any, *, until_done: bool) -> None:
        self._layer = layer
        self._until_done = until_done

    def places(self, channel: str) -> Iterable[Hashable]:
        """There is one."""
        return (0,)

    async def take(self, channel: str, place: Hashable) -> Delivery:
        """Take a message from the hub."""
        try:
            delivery: Delivery = await self._layer.take(channel, until_done=self._until_done)
        except Unreadable as error:
            return _Unread(error)
        return delivery

    async def look(self, channels: Iterable[str]) -> Mapping[str, Look]:
        """Ask the hub."""
        found = await self._layer.observe(channels)
        return {
            name: Look(queue.messages, queue.oldest if queue.messages else None)
            for name, queue in found.items()
        }

    async def finish(self) -> None:
        """Ask the hub something: it answers in order."""
        await self._layer.statistics()


def since(sent: float) -> float:
    """Return the seconds since a moment of the wall clock, which may have been set back."""
    return max(0.0, time.time() - sent)
