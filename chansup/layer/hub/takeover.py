"""How a new hub gets everything from the one before it.

The new one connects, says TAKE_OVER, and receives the listening socket itself, so that no client is
ever refused, and then a snapshot: records of MessagePack behind their lengths, the last one empty.
It answers with one byte, the old one does the same and ends, and its clients connect again. If the
new one is too slow the old one closes the connection, and continues: until its byte has come, the
new one is nothing.
"""

import array
import asyncio
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from chansup.errors import ChansupError
from chansup.layer import frames
from chansup.layer.frames import Kind, pack
from chansup.layer.hub.channel import Channel, Hold, Message, Returned
from chansup.layer.hub.observation import observe
from chansup.layer.hub.parking import CONNECTING
from chansup.layer.hub.store import Store
from chansup.layer.policies import Capacities, Policy
from chansup.protocol import versions
from chansup.protocol.hub_report import DEFAULT_PATTERN
from chansup.protocol.versions import LAYER, TAKEOVER, VersionError


class TakeoverError(ChansupError):
    """This hub was to take over, and the other one continues."""


_LENGTH = struct.Struct("!I")
_PATIENCE = 30.0  # seconds that the old one may be silent in between
_STALLED = 3.0  # seconds in which the new one takes nothing: its clients have no hub meanwhile
_PREPARING = 5.0  # seconds that the new one has for itself, and
_PREPARING_MORE = 1 / 10_000_000  # for each byte
_ANSWER = 5.0  # seconds; the other one gives its clients 2 to be quiet
_MAX_RECORD = 1024 * 1024 * 1024
_DONE = b"+"
_RETURNING = 2.0  # seconds that clients have to connect to the new hub


class SavedMessage(msgspec.Struct, array_like=True, tag="message"):
    """A message; those of groups stand in many queues, and are sent once."""

    number: int
    body: bytes
    born: float  # CLOCK_MONOTONIC: it is the same machine
    deadline: float
    group: bytes | None
    attempts: int = 0
    expiry: float = 0.0  # of a message that was in somebody's hands; 0: of any other


class SavedChannel(msgspec.Struct, array_like=True, tag="channel"):
    """A channel and what it holds, as numbers of messages."""

    name: bytes
    entries: list[int]
    connection: bytes | None
    kept: float | None  # seconds that it is still kept; parked
    held: list[int] | None
    unjoined: list[bytes]
    aliases: list[bytes]
    pattern: str = DEFAULT_PATTERN
    successor: bytes | None = None  # name of the channel that waits for this one
    lenient: float = 0.0  # seconds that it may still hold more than its capacity


class SavedHold(msgspec.Struct, array_like=True, tag="hold"):
    """A message that a client has in hand."""

    channel: bytes
    message: int


class SavedGroup(msgspec.Struct, array_like=True, tag="group"):
    """A group, and the age of its memberships."""

    name: bytes
    expiry: float
    members: list[tuple[bytes, float]]


class SavedCounters(msgspec.Struct, array_like=True, tag="counts"):
    """What was counted."""

    epoch: str
    number: int
    sent: int
    group_sent: int
    delivered: int
    drops: list[tuple[str, str, int]]
    redelivered: int = 0
    observed: list[bytes] = []
    version: int = 1  # of all records: that of chansup before versions were told
    speak: list[tuple[int, int]] = []  # oldest and newest version of the layer, of its clients


Record = SavedMessage | SavedChannel | SavedHold | SavedGroup | SavedCounters
_decoder = msgspec.msgpack.Decoder(Record)


class Snapshot:
    """What a hub holds."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records

    @property
    def epoch(self) -> str:
        """The epoch that the clients know."""
        return next(one.epoch for one in self.records if isinstance(one, SavedCounters))


def take_snapshot(
    store: Store,
    epoch: str,
    held: Iterable[tuple[Channel, Message]],
    speak: Iterable[tuple[int, int]] = (),
) -> Iterator[Record]:
    """Yield all that a hub holds: messages before what refers to them.

    `held` is what clients have in hand, and the channels that it came from; `speak` are the
    versions of the channel layer that they know.
    """
    drops = [(*key, count) for key, count in store.drops.counts.items()]
    yield SavedCounters(
        epoch, store.number, store.sent, store.group_sent, store.delivered, drops,
        store.redelivered, list(store.observed), TAKEOVER.newest, sorted(speak),
    )  # fmt: skip
    numbers: dict[Message, int] = {}

    def numbered(messages: Iterable[Message]) -> Iterator[SavedMessage]:
        for message in messages:
            if message not in numbers:
                numbers[message] = len(numbers)
                yield SavedMessage(
                    message.number,
                    message.body,
                    message.born,
                    message.deadline,
                    message.group.name if message.group is not None else None,
                    message.attempts,
                    message.expiry if isinstance(message, Returned) else 0.0,
                )

    for channel in dict.fromkeys(store.channels.values()):
        yield from numbered(channel.entries)
        if channel.hold is not None:
            yield from numbered(channel.hold.entries)
        kept = channel.kept_until
        hold = channel.hold
        yield SavedChannel(
            channel.name,
            [numbers[message] for message in channel.entries],
            channel.connection,
            kept - store.now if kept is not None else None,
            [numbers[message] for message in hold.entries] if hold is not None else None,
            [group.name for group in hold.unjoined] if hold is not None else [],
            channel.aliases,
            channel.pattern,
            channel.successor.name if channel.successor is not None else None,
            max(0.0, channel.lenient_until - store.now),
        )
    for origin, message in held:
        yield from numbered([message])
        yield SavedHold(origin.name, numbers[message])
    for group in store.groups.values():
        members = [(one.name, store.now - began) for one, began in group.members.items()]
        yield SavedGroup(group.name, group.expiry, members)


def restore(store: Store, snapshot: Snapshot, capacities: Callable[[Policy], Capacities]) -> None:
    """Put what a snapshot holds into an empty store."""
    store.returning_until = store.now + _RETURNING
    waiting: list[tuple[Channel, bytes]] = []
    messages: list[Message] = []
    of_groups: list[tuple[Message, bytes]] = []
    holds: list[tuple[Channel, Hold, list[bytes]]] = []
    for record in snapshot.records:
        if isinstance(record, SavedCounters):
            store.number, store.sent = record.number, record.sent
            store.group_sent, store.delivered = record.group_sent, record.delivered
            store.redelivered = record.redelivered
            observe(store, record.observed)
            for reason, pattern, count in record.drops:
                store.drops.restore(reason, pattern, count)
        elif isinstance(record, SavedMessage):
            message = Message(record.body, record.number, record.born, record.deadline)
            if record.expiry:
                message = Returned(
                    record.body, record.number, record.born, record.deadline, record.attempts,
                    record.expiry,
                )  # fmt: skip
            messages.append(message)
            if record.group is not None:
                of_groups.append((message, record.group))
        elif isinstance(record, SavedChannel):
            channel = store.create(record.name)
            channel.pattern = record.pattern
            for number in record.entries:
                store.keep(messages[number])
                channel.entries.append(messages[number])
            for alias in record.aliases:
                store.channels[alias] = channel
            channel.aliases = record.aliases
            if record.successor is not None:
                waiting.append((channel, record.successor))
            if record.connection is not None:
                channel.connection = record.connection
                if record.successor is None:
                    store.parking.bound[record.connection] = channel
            if record.held is not None:
                hold = Hold(store.now + CONNECTING)
                for number in record.held:
                    store.keep(messages[number])
                    hold.entries.append(messages[number])
                holds.append((channel, hold, record.unjoined))
                store.parking.holding[channel] = None
            if record.kept is not None:
                store.parking.keep_for(channel, record.kept)
            channel.lenient_until = store.now + record.lenient
        elif isinstance(record, SavedHold):
            channel = store.channels.get(record.channel) or store.create(record.channel)
            store.keep(messages[record.message])
            store.hold_for(channel, messages[record.message])
        else:
            _restore_group(store, record, capacities)
    for channel, hold, names in holds:  # not sooner: that it joins these groups is not news
        channel.hold = hold
        hold.unjoined = {store.groups[name] for name in names if name in store.groups}
    for channel, name in waiting:
        channel.successor = store.channels.get(name)
        if channel.successor is not None and channel.successor.hold is not None:
            channel.successor.hold.predecessor = channel
    for message, name in of_groups:
        message.group = store.groups.get(name)
    for channel in set(store.channels.values()):
        process = channel.process
        if process is not None:
            process.waiting += sum(message.group is None for message in channel.entries)


def _restore_group(
    store: Store, record: SavedGroup, capacities: Callable[[Policy], Capacities]
) -> None:
    found = capacities(Policy(expiry=60, group_expiry=max(record.expiry, 1), capacity=100))
    for name, age in record.members:
        store.group_add(record.name, name, age, found)


async def give(heir: socket.socket, listener: socket.socket, records: Iterator[Record]) -> None:
    """Give everything to another hub, until it is ready. Raises OSError if it does not take it."""
    loop = asyncio.get_running_loop()
    heir.setblocking(False)
    heir.sendmsg(
        [_DONE], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener.fileno()]))]
    )
    encode = msgspec.msgpack.Encoder().encode
    buffer = bytearray()
    size = 0

    async def send(data: bytes) -> None:
        nonlocal size
        size += len(data)
        for begin in range(0, len(data), frames.READ_SIZE):
            try:
                async with asyncio.timeout(_STALLED):
                    await loop.sock_sendall(heir, data[begin : begin + frames.READ_SIZE])
            except TimeoutError:
                raise ConnectionError(f"it has taken nothing for {_STALLED:g} s") from None

    for record in records:
        encoded = encode(record)
        buffer += _LENGTH.pack(len(encoded))
        buffer += encoded
        if len(buffer) > frames.READ_SIZE:
            await send(bytes(buffer))
            buffer.clear()
    await send(bytes(buffer) + _LENGTH.pack(0))
    patience = _PREPARING + size * _PREPARING_MORE
    try:
        async with asyncio.timeout(patience):
            answer = await loop.sock_recv(heir, 1)
    except TimeoutError:
        raise ConnectionError(f"it was not ready after {patience:.0f} s") from None
    if answer != _DONE:
        raise ConnectionError("it has ended")


def leave_to(heir: socket.socket) -> None:
    """Tell another hub, which is ready, that it is the hub from now on. Raises OSError."""
    heir.send(_DONE)


class Received:
    """What a new hub gets. `confirm` is the moment from which on the old one is no more."""

    def __init__(self, sock: socket.socket, listener: socket.socket, snapshot: Snapshot) -> None:
        self._socket = sock
        self.listener = listener
        self.snapshot = snapshot

    def confirm(self) -> None:
        """Let the old hub end. Raises TakeoverError if it has gone on instead."""
        try:
            self._socket.sendall(_DONE)
            answer = self._socket.recv(1)
        except OSError:
            answer = b""
        finally:
            self._socket.close()
        if answer != _DONE:
            raise TakeoverError(
                "the former hub did not wait for this one, which took too long. It continues, with"
                " all that is queued: try again"
            )


def take(path: str, inherited: int | None = None) -> Received:
    """Ask the hub that listens there for everything. Raises OSError.

    `inherited` is the descriptor of its listening socket: whoever has it may do this as any user.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(_ANSWER)
        sock.connect(path)
        rights = array.array("i", [inherited] if inherited is not None else [])
        proof = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
        sock.sendmsg([pack(Kind.TAKE_OVER)], proof)
        try:
            data, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(4))
        except TimeoutError:
            sock.setblocking(False)  # the one that was frozen may be this one: look once more
            try:
                data, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(4))
            except BlockingIOError:
                raise TimeoutError from None
        sock.settimeout(_PATIENCE)
        descriptors = frames.descriptors(ancillary)
        if data != _DONE or len(descriptors) != 1:
            raise ConnectionError(
                f"the hub there gave nothing to user id {os.geteuid()}: either it does not know"
                " this user, or it is of another version. Stop and start it: its queues end with it"
            )
        listener = socket.socket(fileno=descriptors[0])
        records: list[Any] = []
        with sock.makefile("rb") as stream:
            while length := _LENGTH.unpack(_read(stream, _LENGTH.size))[0]:
                if length > _MAX_RECORD:
                    raise ConnectionError("the hub there sent something else")
                record = _decoder.decode(_read(stream, length))
                if isinstance(record, SavedCounters):  # the first one
                    _require(record)
                records.append(record)
    except msgspec.DecodeError as error:
        sock.close()
        raise ConnectionError(f"the hub there is of another version ({error})") from None
    except BaseException:
        sock.close()
        raise
    return Received(sock, listener, Snapshot(records))


def _require(record: SavedCounters) -> None:
    """Raise ConnectionError if this code cannot be the hub of those who are connected there."""
    try:
        versions.require(TAKEOVER, record.version)
    except VersionError as error:
        raise ConnectionError(str(error)) from None
    for oldest, newest in record.speak:
        if versions.common(LAYER, oldest, newest) is None:
            raise ConnectionError(
                f"its clients speak {versions.in_words(oldest, newest)} of the channel layer, and "
                f"this hub {versions.in_words(LAYER.oldest, LAYER.newest)}: {versions.REMEDY}"
            )


def _read(stream: Any, size: int) -> bytes:
    try:
        data = stream.read(size)
    except TimeoutError:
        raise ConnectionError("the hub there was silent in the middle") from None
    if len(data) != size:
        raise ConnectionError("the hub there ended in the middle")
    return bytes(data)
