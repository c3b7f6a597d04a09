"""The layer of channels_redis.core, without what makes it lose messages at the end of a process.

Its `receive()` pops a message and returns it later; whoever is cancelled in between has lost it, or
leaves it in a second queue, out of which the next `receive()` of any process puts it back: also
when it is not lost, but was handed over a moment ago, so that it comes twice. Here BZPOPMIN is
never cancelled: it waits a second at most, and the message that it brings is either begun, or put
back under the same score, which is its place in the queue. The score is also when it was sent.
"""

import logging
import time
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from chansup import private_parts
from chansup.background import BackgroundTasks
from chansup.worker.sources import Delivery, Look, Message, since

_POLL = 1  # seconds; a whole number, as Redis 5 wants it
_log = logging.getLogger("chansup.worker")


def is_usable(layer: Any) -> bool:
    """Say whether a layer is that of channels_redis.core, and receives as that does."""
    try:
        from channels_redis.core import RedisChannelLayer
    except ImportError:
        return False
    own = ("receive", "receive_single", "send")
    if not isinstance(layer, RedisChannelLayer) or any(
        getattr(type(layer), one) is not getattr(RedisChannelLayer, one, None) for one in own
    ):
        return False
    if problem := private_parts.lacking(private_parts.REDIS):
        _log.warning("chansup: %s", problem)
    return not problem


class RedisDelivery:
    """A message, and where it lay."""

    attempt = 1

    def __init__(
        self, source: "RedisSource", key: str, index: int, member: bytes, score: float
    ) -> None:
        self._source = source
        self._place = key, index, member, score
        self.error: Exception | None = None
        try:
            self.message: Message = source.read(member)
        except Exception as error:  # of another key, or of nobody who uses this layer
            self.error = error
            self.message = {"unreadable": member}
        self.waited: float | None = since(score)

    def done(self) -> None:
        """Redis has forgotten it already."""

    def give_back(self, *, failed: bool = False) -> None:
        """Put it where it was."""
        self._source.put_back(*self._place)


class RedisSource:
    """All shards of a layer. Each of them is a place of its own."""

    recallable = False
    returns = True

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._returns = BackgroundTasks()

    def places(self, channel: str) -> Iterable[Hashable]:
        """Return the shards: senders use them in turn."""
        return range(self._layer.ring_size)

    async def take(self, channel: str, place: Hashable) -> Delivery | None:
        """Wait a second at most for a message."""
        assert isinstance(place, int)
        key = self._layer.prefix + channel
        found = await self._layer.connection(place).bzpopmin(key, timeout=_POLL)
        if found is None:
            return None
        _, member, score = found
        return RedisDelivery(self, key, place, member, float(score))

    def read(self, member: bytes) -> Message:
        """Return the message that Redis has as bytes."""
        message: Message = self._layer.deserialize(member)
        message.pop("__asgi_channel__", None)  # of a group: to whom it went
        return message

    def put_back(self, key: str, index: int, member: bytes, score: float) -> None:
        """Begin to put a message back."""
        self._returns.start(self._put_back(key, index, member, score))

    async def _put_back(self, key: str, index: int, member: bytes, score: float) -> None:
        try:
            connection = self._layer.connection(index)
            await connection.zadd(key, {member: score})
            await connection.expire(key, int(self._layer.expiry))  # as if it was sent now
        except Exception as error:
            _log.error("chansup: a message of %s is lost, Redis does not take it: %s", key, error)

    async def look(self, channels: Iterable[str]) -> Mapping[str, Look]:
        """Count what lies in all shards."""
        return {channel: await self._look(channel) for channel in channels}

    async def _look(self, channel: str) -> Look:
        key = self._layer.prefix + channel
        now = time.time()
        depth = 0
        oldest: list[float] = []
        for index in range(self._layer.ring_size):
            connection = self._layer.connection(index)
            depth += await connection.zcount(key, now - self._layer.expiry, "+inf")
            oldest += [score for _, score in await connection.zrange(key, 0, 0, withscores=True)]
        return Look(depth, since(min(oldest)) if depth and oldest else None)

    async def finish(self) -> None:
        """Wait for messages on their way back."""
        await self._returns.wait()
