"""What one client asks for: its frames, one after the other, and what it listens to."""

from typing import Protocol

import msgspec

from chansup.layer import frames
from chansup.layer.frames import (
    AGE,
    CLAIM,
    ID,
    PARKED,
    RETURNED,
    FrameError,
    Kind,
    Reason,
    read_string,
)
from chansup.layer.hub.channel import Channel, Message, Process
from chansup.layer.hub.ledger import Ledger
from chansup.layer.hub.limits import ENTRY, NoRoomError
from chansup.layer.hub.observation import observe
from chansup.layer.hub.outbox import Outbox
from chansup.layer.hub.store import Store
from chansup.layer.policies import Capacities, Policy
from chansup.protocol.hub_report import Drop, Queue

_MAX_LISTENING = 200_000  # channels and receivers of one connection
_policy = msgspec.msgpack.Decoder(Policy)


class Host(Protocol):
    """The hub, as far as what clients ask is concerned."""

    store: Store
    ledger: Ledger

    def capacities(self, policy: Policy) -> Capacities:
        """Return what a policy means. Raises ValueError."""

    def flush_all(self, asker: Outbox) -> None:
        """Forget all messages and groups, and tell the client when all others have done so."""

    def cleared(self, client: Outbox) -> None:
        """Take notice that a client has forgotten what was delivered to it."""

    def statistics(self) -> dict[str, object]:
        """Return what can be counted."""


class Session:
    """A client that has said who it is."""

    __slots__ = (
        "_capacities", "_host", "_out", "_process", "_store", "_token", "held", "listening",
        "quiet",
    )  # fmt: skip

    def __init__(self, host: Host, out: Outbox, token: bytes, policy: Policy) -> None:
        """`token` is the name of its process. Raises NoRoomError, ValueError."""
        self._host = host
        self._store = host.store
        self._out = out
        self._token = token
        self._capacities = host.capacities(policy)
        self._process: Process = self._store.process_of_client(token + b"!")
        self._store.connected(self._process)
        self.quiet = False  # it says nothing more on this connection
        self.listening: dict[int, Channel] = {}
        self.held: dict[int, tuple[Channel, Message]] = {}  # in the hands of the app

    @property
    def has_delivered(self) -> bool:
        """Whether there may be messages on the way to the client that are nobody's yet."""
        return any(channel.specific and channel.sent for channel in self.listening.values())

    def take_all(self, received: list[frames.Frame]) -> None:
        """Do what the client asks for. Raises FrameError and what decoding raises, NoRoomError."""
        store = self._store
        answer = self._out.answer
        for kind, payload in received:
            if kind == Kind.SEND:
                end = payload[0] + 1
                if not 1 < end <= len(payload):
                    raise FrameError("a message without a channel")
                refusal = store.send(payload[1:end], payload[end:], self._capacities)
                if refusal:
                    self._out.refuse(refusal)
                else:
                    answer()
            elif kind == Kind.TAKEN:
                self._forget(frames.ids(payload), "")
            elif kind == Kind.GROUP_SEND:
                end = payload[0] + 1
                if not 1 < end <= len(payload):
                    raise FrameError("a message without a group")
                store.group_send(payload[1:end], payload[end:], self._capacities)
                answer()
            elif kind == Kind.LISTEN:
                self._listen(payload)
            else:
                self._take(kind, payload, self._capacities)

    def _take(self, kind: int, payload: bytes, capacities: Capacities) -> None:
        store = self._store
        if kind == Kind.UNLISTEN:
            for id in frames.ids(payload):
                self._unlisten(id)
        elif kind == Kind.GROUP_ADD:
            (age,) = AGE.unpack_from(payload)
            group, offset = read_string(payload, AGE.size)
            channel, _ = read_string(payload, offset)
            if store.group_add(group, channel, age, capacities):
                self._host.ledger.join(self._token)
                self._out.answer()
            else:
                self._out.refuse(str(NoRoomError()), Reason.LIMIT)
        elif kind == Kind.REJOIN:
            (age,) = AGE.unpack_from(payload)
            group, offset = read_string(payload, AGE.size)
            channel, _ = read_string(payload, offset)
            if store.rejoin(group, channel, age, capacities):
                self._out.answer()
            else:
                self._out.refuse(str(NoRoomError()), Reason.LIMIT)
        elif kind == Kind.REJOINED:
            if store.returning is not None:
                store.returning.returned(self._token)
            self._out.answer()
        elif kind == Kind.GROUP_DISCARD:
            group, offset = read_string(payload, 0)
            channel, _ = read_string(payload, offset)
            store.group_discard(group, channel)
            self._out.answer()
        elif kind == Kind.EXPIRED:
            self._forget(frames.ids(payload), Drop.EXPIRED)
        elif kind == Kind.RETURN:
            returned = RETURNED.unpack_from(payload)
            channel, offset = read_string(payload, RETURNED.size)
            store.put_back(channel, payload[offset:], returned, capacities)
        elif kind == Kind.HELD:
            self._hold(frames.ids(payload))
        elif kind in (Kind.GIVE_BACK, Kind.FAILED):
            for id in frames.ids(payload):
                found = self.held.pop(id, None)
                if found is not None:
                    store.flying -= 1
                    message = store.again(found[1], failed=kind == Kind.FAILED)
                    store.give_back(found[0], [message])
        elif kind == Kind.CLAIM:
            id, number = CLAIM.unpack_from(payload)
            claimed = store.claim(payload[CLAIM.size :], number)
            if claimed is not None and not self._knows(id):
                self.held[id] = claimed
            elif claimed is not None:
                store.flying -= 1
        elif kind == Kind.OBSERVE:
            self._out.result(msgspec.msgpack.encode(self._observe(payload)))
        elif kind == Kind.BIND:
            connection, offset = read_string(payload, 0)
            name, _ = read_string(payload, offset)
            try:
                store.parking.bind(connection, store.for_reader(name, share=0))
            except NoRoomError as error:
                self._out.refuse(str(error), Reason.LIMIT)
            else:
                self._out.answer()
        elif kind == Kind.PARK:
            connection, offset = read_string(payload, 0)
            name, offset = read_string(payload, offset)
            id, milliseconds, last = PARKED.unpack_from(payload, offset)
            self.listening.pop(id, None)
            body = payload[offset + PARKED.size :]
            store.parking.park(connection, name, last, body, milliseconds)
        elif kind == Kind.FLUSH:
            self._out.answer()
            self._host.flush_all(self._out)
        elif kind == Kind.CLEARED:
            self._host.cleared(self._out)
        elif kind == Kind.STATISTICS:
            self._out.result(msgspec.msgpack.encode(self._host.statistics()))
        elif kind == Kind.QUIET:
            self.quiet = True
        elif kind == Kind.POLICY:
            self._capacities = self._host.capacities(_policy.decode(payload))
        else:
            raise FrameError(f"a frame of kind {kind}")

    def _listen(self, payload: bytes) -> None:
        (id,) = ID.unpack_from(payload)
        name = payload[ID.size :]
        if not name or self._knows(id) or len(self.listening) >= _MAX_LISTENING:
            raise FrameError("too many channels, or one id for two of them")
        channel = self._store.for_reader(name)
        channel.capacity(self._capacities)
        self.listening[id] = channel
        if channel.name == name:  # else it is the former name of what another process reads by now
            self._store.listen(channel, self._out, id)

    def _knows(self, id: int) -> bool:
        return id in self.listening or id in self.held

    def _hold(self, ids: tuple[int, ...]) -> None:
        for id in ids:
            found = self._out.flight.pop(id, None)
            if found is None:
                raise FrameError("it holds what it was not given")
            del self.listening[id]
            self.held[id] = found

    def _observe(self, payload: bytes) -> dict[str, Queue]:
        names = frames.strings(payload)
        if len(names) > frames.MAX_OBSERVED:
            raise FrameError("too many channels at a time")
        return observe(self._store, names)

    def _unlisten(self, id: int) -> None:
        channel = self.listening.pop(id, None)
        if channel is None:
            return
        if channel.specific:
            if channel.reader is self._out and channel.id == id:
                self._store.unlisten(channel)
            return
        found = self._out.flight.pop(id, None)
        if found is not None:
            self._store.flying -= 1
            self._store.give_back(channel, [found[1]])
        else:
            channel.demands.remove((self._out, id))
            self._store.consider(channel)

    def _forget(self, ids: tuple[int, ...], reason: str) -> None:
        """Forget messages that are in the client's hands now."""
        store = self._store
        listening = self.listening
        memory = store.memory
        for id in ids:
            channel = listening.get(id)
            if channel is None:
                held = self.held.pop(id, None)
                if held is not None:
                    store.flying -= 1
                    store.release(held[1])
                    store.consider(held[0])
                continue
            if channel.specific:
                if channel.reader is not self._out or channel.id != id or not channel.sent:
                    continue
                message = channel.entries.popleft()
                channel.sent -= 1
                store.flying -= 1
                if not reason and message.holders > 1:  # what `release` does, for large groups
                    message.holders -= 1
                    memory.used -= ENTRY
                    memory.copies -= 1
                    continue
            else:
                found = self._out.flight.pop(id, None)
                if found is None:  # it still listens: `close` sees to that
                    raise FrameError("it has taken what it was not given")
                del listening[id]
                store.flying -= 1
                message = found[1]
                store.consider(channel)
            if reason:
                store.drop(message, reason, channel.pattern)
            else:
                store.release(message)

    def forget_channels(self) -> None:
        """Tell the client that it has to listen again to its channels with "!"."""
        for id, channel in list(self.listening.items()):
            if channel.specific:
                del self.listening[id]
        for _, message in self.held.values():
            self._store.release(message)
        self._store.flying -= len(self.held)
        self.held.clear()
        self._out.tell(Kind.FLUSHED)

    def pump(self) -> None:
        """Deliver what had to wait until the client has read."""
        for channel in list(self.listening.values()):
            if channel.reader is self._out and channel.sent < len(channel.entries):
                self._store.pump(channel)

    def end(self, keep_held: bool) -> None:
        """Put back to where it was what the client had not taken.

        `keep_held`: the client has not gone, it only has to connect to another hub.
        """
        store, out = self._store, self._out
        store.flying -= len(out.flight) + len(self.held)
        returned: dict[Channel, list[Message]] = {}
        for channel, message in out.flight.values():
            returned.setdefault(channel, []).append(message)
        out.flight.clear()
        for channel, message in self.held.values():
            if keep_held:
                store.hold_for(channel, message)
            else:
                again = store.again(message, failed=True)
                returned.setdefault(channel, []).append(again)
        self.held.clear()
        for id, channel in self.listening.items():
            if channel.specific:
                if channel.reader is out and channel.id == id:
                    store.parking.stop_reading(channel)
            elif (out, id) in channel.demands:
                channel.demands.remove((out, id))
                store.consider(channel)
        self.listening.clear()
        for channel, messages in returned.items():
            store.give_back(channel, messages)
        store.disconnected(self._process)
