"""The channel layer that uses chansup's own hub.

What happens when connections are lost:

- A message is delivered at most once. The hub forgets it when it learns that it was taken; until
  then it gives it to somebody else if the receiver is cancelled, its event loop is closed or its
  process dies. A receiver that was given a message of an ordinary channel and is cancelled before
  it runs gives it back.
- A hub that is killed takes the queued messages with it. The links connect again, with growing
  pauses; memberships, and everybody who waits, are known to the new hub at once. What was delivered
  to this process already stays. Group messages that were sent before it was back are kept for it.
- `send` and `group_send` wait for a hub for `timeout` seconds, and raise HubUnavailable then: the
  message was not sent. If the hub goes away between question and answer, the next one says whether
  the message was sent, and it is sent again if not. If none comes in time they raise HubLost: it
  may have been sent. Everything else is repeated.
- A hub that is replaced as planned (`--takeover`) hands everything over: nothing of this is seen.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from chansup.layer import discovery, in_hand, serializers
from chansup.layer.client import Client
from chansup.layer.delivery import Delivery, Receipt
from chansup.layer.errors import (
    ChannelFull,
    ForeignChannel,
    LayerConfigError,
    MessageTooLarge,
    Unreadable,
)
from chansup.layer.frames import MAX_OBSERVED, Kind, pack, string
from chansup.layer.names import check_channel, check_group
from chansup.layer.policies import Policy, Rule, rules
from chansup.layer.requests import RefusedError
from chansup.protocol.hub_report import Queue

if TYPE_CHECKING:

    class Base:
        """What Channels' BaseChannelLayer is to us."""

        def compile_capacities(self, channel_capacity: Any) -> Any:
            """Return the list that get_capacity looks into."""
else:
    try:
        from channels.layers import BaseChannelLayer as Base
    except ImportError:

        class Base:
            """Without Channels there is nothing to inherit."""

            def compile_capacities(self, channel_capacity):
                """Return the list that get_capacity looks into."""
                return [
                    (re.compile(rule.expression, rule.flags), rule.capacity)
                    for rule in rules(channel_capacity)
                ]


logger = logging.getLogger("chansup.layer")

_KEYS = "Has its sender other symmetric_encryption_keys, or another serializer?"
_MAX_KNOWN = 20_000  # names that are not checked again
_FIXED = ("address", "serializer", "serializer_format", "symmetric_encryption_keys")


class LocalChannelLayer(Base):
    """Channels and groups for the processes of one machine.

    `address` is the path of the hub's socket. Without it, the hub of the site is looked for when
    the layer is used: then NoHub is raised if there is none.
    `timeout` is how long a request waits while no hub answers.
    """

    ChannelFull = ChannelFull
    MessageTooLarge = MessageTooLarge
    extensions = ["groups", "flush", "statistics"]  # noqa: RUF012 - as Channels has it

    def __init__(
        self,
        address: str | None = None,
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: Mapping[Any, int] | None = None,
        *,
        serializer: Any = None,
        serializer_format: str = "msgpack",
        symmetric_encryption_keys: Any = None,
        timeout: float = 5.0,
    ) -> None:
        given = channel_capacity or {}
        policy = _policy(expiry, group_expiry, capacity, given)
        self._written = tuple(self.compile_capacities(given))
        self._serializer = serializers.find(
            serializer, serializer_format, symmetric_encryption_keys, expiry
        )
        self._limit = serializers.MAX_FOREIGN_SIZE
        if isinstance(self._serializer, serializers.MessagePackSerializer):
            self._limit = 4 * serializers.MAX_SIZE - 1024  # it has looked itself
        if address:
            self._client = Client(address, policy, timeout)
        else:
            self._client = Client("", policy, timeout, discovery.SiteHub().find)
        self._channels: dict[str, bytes] = {}
        self._groups: dict[str, bytes] = {}

    # What may be changed afterwards, for what is sent from then on

    @property
    def expiry(self) -> float:
        """Seconds that a message may wait."""
        return self._client.policy.expiry

    @expiry.setter
    def expiry(self, seconds: float) -> None:
        self._revise(expiry=_number("expiry", seconds))

    @property
    def group_expiry(self) -> float:
        """Seconds that a channel is in a group."""
        return self._client.policy.group_expiry

    @group_expiry.setter
    def group_expiry(self, seconds: float) -> None:
        self._revise(group_expiry=_number("group_expiry", seconds))

    @property
    def capacity(self) -> int:
        """How many messages may wait in a channel that no pattern fits."""
        return self._client.policy.capacity

    @capacity.setter
    def capacity(self, number: int) -> None:
        self._revise(capacity=_count(number))

    @property
    def channel_capacity(self) -> tuple[Any, ...]:
        """The same by compiled patterns, as Channels' get_capacity wants them."""
        return self._written

    @channel_capacity.setter
    def channel_capacity(self, patterns: Mapping[Any, int]) -> None:
        if not isinstance(patterns, Mapping):
            raise LayerConfigError(
                f"channel_capacity: {type(patterns).__name__}, expected a dict of patterns"
            )
        self._revise(rules=_rules(patterns))
        self._written = tuple(self.compile_capacities(patterns))

    @property
    def timeout(self) -> float:
        """Seconds that a request waits while no hub answers."""
        return self._client.patience

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._client.patience = _number("timeout", seconds)

    def _revise(self, **changes: Any) -> None:
        self._client.change_policy(msgspec.structs.replace(self._client.policy, **changes))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED:
            raise AttributeError(
                f"{name} of a channel layer cannot be changed: set it in [channel_layer.options],"
                " in CONFIG of the settings, or where the layer is made"
            )
        super().__setattr__(name, value)

    # Channels

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Send a message to a channel. Raises ChannelFull, MessageTooLarge, HubUnavailable."""
        name = self._channel(channel)
        body = self._pack(message)
        try:
            await self._client.request(pack(Kind.SEND, name + body))
        except RefusedError as refusal:
            if refusal.is_full:
                raise ChannelFull(self._why_full(channel, str(refusal))) from None
            raise refusal.as_hub_error() from None

    def _why_full(self, channel: str, reason: str) -> str:
        """Return what a sender is told that the hub refused."""
        if reason == "memory":
            return (
                f'the hub holds as much as [channel_layer] memory allows, so "{channel}" takes no '
                "message: `chansup status` shows the queues; raise memory, or read faster"
            )
        fitting = (limit for pattern, limit in self.channel_capacity if pattern.match(channel))
        number = next(fitting, self.capacity)
        messages = f"{number} message{'s' if number != 1 else ''}"
        own = "its consumer reads too slowly, and nothing while its own handler sends"
        more = own if "!" in channel else "run more workers"
        return (
            f'the channel "{channel}" is full, it may hold {messages}: {more}, or raise capacity '
            "or channel_capacity in [channel_layer.options]"
        )

    async def receive(self, channel: str) -> dict[str, Any]:
        """Return the next message of a channel, or wait for it."""
        return await in_hand.received(channel, self._receive)

    async def _receive(self, channel: str) -> dict[str, Any]:
        name = self._channel(channel)
        if b"!" in name and not self._client.is_own(channel):
            raise ForeignChannel(
                f"{channel} belongs to another process or channel layer: receive where "
                "new_channel was called"
            )
        body = await self._client.receive(name[1:])
        try:
            return self.deserialize(body)
        except Exception as error:
            where = channel.partition("!")[0].rpartition(".")[0] + "…" if b"!" in name else channel
            logger.error(
                "chansup: a message of channel %s cannot be read, and is lost: %s. %s",
                where, _last_line(error), _KEYS,
            )  # fmt: skip
            raise

    async def take(self, channel: str, *, until_done: bool = False) -> Delivery:
        """Return the next message of an ordinary channel, with what the hub knows of it.

        Without `until_done` it is as with `receive`: the hub forgets the message now, and
        `give_back` is a courtesy. With it the hub keeps the message until `done` or `give_back`.
        If the connection, the event loop or the process ends before, the message goes to somebody
        else, with its `attempt` counted on, before all others, and its expiry starts again. A hub
        that takes over as planned knows the messages in hand; if the hub was killed meanwhile, only
        `give_back` brings the message to the next one.

        A message in hand counts as memory of the hub, and not for the capacity of its channel:
        when it comes back the channel may hold more than that, and senders find it full.

        A body that cannot be decoded raises Unreadable, whose `receipt` is to be settled as a
        Delivery is: a process with other keys may be able to read it.
        """
        name = self._channel(channel)
        if b"!" in name:
            raise TypeError(
                f"{channel} is a channel of one process: take() is for ordinary channels, use "
                "receive()"
            )
        handed, settle = await self._client.take(name[1:], until_done)
        try:
            return Delivery(handed, settle, self.deserialize(handed.body))
        except Exception as error:
            raise Unreadable(
                f"a message of channel {channel} cannot be read: {_last_line(error)}. {_KEYS}",
                handed.body,
                Receipt(handed, settle),
            ) from error
        except BaseException:
            settle(handed, True, False)
            raise

    async def new_channel(self, prefix: str = "specific") -> str:
        """Return the name of a channel that only this process receives from."""
        name = check_channel(await self._client.new_channel(prefix.removesuffix(".")))
        return in_hand.opened(name)

    # Groups

    async def group_add(self, group: str, channel: str) -> None:
        """Add a channel to a group, until group_discard or for group_expiry seconds."""
        names = self._group(group)[1:], self._channel(channel)[1:]
        try:
            await self._client.group_add(*names)
        except RefusedError as refusal:
            raise refusal.as_hub_error() from None

    async def group_discard(self, group: str, channel: str) -> None:
        """Remove a channel from a group, if it is in there."""
        await self._client.group_discard(self._group(group)[1:], self._channel(channel)[1:])

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Send a message to each channel of a group; those that are full do not get it."""
        name = self._group(group)
        await self._client.request(pack(Kind.GROUP_SEND, name + self._pack(message)))

    # Extensions

    async def flush(self) -> None:
        """Forget all messages and groups, also those that were delivered and nobody has taken."""
        await self._client.flush_all()

    async def statistics(self) -> dict[str, Any]:
        """Return what the hub counts: of the whole hub, and since it began."""
        answer = await self._client.request(pack(Kind.STATISTICS))
        found: dict[str, Any] = msgspec.msgpack.decode(answer)
        return found

    async def observe(self, channels: Iterable[str]) -> dict[str, Queue]:
        """Return how many messages wait in each of these channels, and the age of the oldest.

        What somebody has in hand does not wait. The hub keeps reporting these channels to its
        supervisor, the last thousand that it was asked about.
        """
        names = list(dict.fromkeys(channels))
        found: dict[str, Queue] = {}
        for begin in range(0, len(names), MAX_OBSERVED):
            some = [self._channel(name)[1:] for name in names[begin : begin + MAX_OBSERVED]]
            found.update(await self._client.observe(some))
        return found

    async def close(self) -> None:
        """Close the connections of this process. It can be used again."""
        self._client.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(address={self._client.address or None!r})"

    # Messages and names

    def serialize(self, message: dict[str, Any]) -> bytes:
        """Return a message as bytes. A subclass may do it otherwise, as with channels_redis."""
        return self._serializer.serialize(message)

    def deserialize(self, message: bytes) -> dict[str, Any]:
        """Return what `serialize` was given."""
        return self._serializer.deserialize(message)

    def _pack(self, message: dict[str, Any]) -> bytes:
        if not isinstance(message, dict):
            raise TypeError(f"a message is a dict, and not of type {type(message).__name__}")
        body = self.serialize(message)
        if len(body) > self._limit:
            raise MessageTooLarge(f"the message has {len(body)} bytes, of {self._limit} at most")
        return body

    def _channel(self, name: str) -> bytes:
        known = self._channels.get(name) if isinstance(name, str) else None
        if known is None:
            if len(self._channels) >= _MAX_KNOWN:
                self._channels.clear()
            known = self._channels[name] = string(check_channel(name).encode())
        return known

    def _group(self, name: str) -> bytes:
        known = self._groups.get(name) if isinstance(name, str) else None
        if known is None:
            if len(self._groups) >= _MAX_KNOWN:
                self._groups.clear()
            known = self._groups[name] = string(check_group(name).encode())
        return known


def _last_line(error: Exception) -> str:
    """Return the type of an exception, and what it says, if anything."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _policy(
    expiry: float, group_expiry: float, capacity: int, patterns: Mapping[Any, int]
) -> Policy:
    return Policy(
        expiry=_number("expiry", expiry),
        group_expiry=_number("group_expiry", group_expiry),
        capacity=_count(capacity),
        rules=_rules(patterns),
    )


def _rules(patterns: Mapping[Any, int]) -> tuple[Rule, ...]:
    try:
        return rules(patterns)
    except ValueError as error:
        raise LayerConfigError(str(error)) from None


def _number(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 4e6:
        raise LayerConfigError(
            f"{name}: {value!r}, expected seconds, above 0 and at most 4,000,000"
        )
    return float(value)


def _count(capacity: int) -> int:
    if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:
        raise LayerConfigError(f"capacity: {capacity!r}, expected a number from 1 on")
    return capacity
