"""One client, as the hub sees it: frames in, frames out.

What is sent during one turn leaves in one write at its end. Nothing here waits.
"""

import os
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING

import msgspec

import chansup
from chansup.layer import frames
from chansup.layer.frames import (
    AGE,
    CLAIM,
    CROWDED,
    DELIVERIES,
    DELIVERY,
    HANDED,
    HEADER,
    ID,
    MAX_MILLISECONDS,
    PARKED,
    PROTOCOL,
    RETURNED,
    Decoder,
    FrameError,
    Kind,
    Reason,
    pack,
    read_string,
)
from chansup.layer.greetings import Hello, Welcome
from chansup.layer.hub import ledger
from chansup.layer.hub.channel import Channel, Message, Process
from chansup.layer.hub.drops import Drop
from chansup.layer.hub.limits import ENTRY, NoRoomError
from chansup.layer.hub.observation import observe
from chansup.layer.policies import Capacities, Policy
from chansup.protocol.hub_report import Queue
from chansup.protocol.peer import credentials

if TYPE_CHECKING:
    from chansup.layer.hub.server import Server

_MAX_LISTENING = 200_000  # channels and receivers of one connection
_hello = msgspec.msgpack.Decoder(Hello)
_policy = msgspec.msgpack.Decoder(Policy)


class Connection:
    """A client's connection. Its `flight`, `crowded` and `deliver…` are what queues see of it."""

    __slots__ = (
        "_answered", "_capacities", "_committed", "_decoder", "_dirty", "_done", "_given",
        "_out", "_process", "_refusals", "_row", "_server", "_size", "_socket", "_store",
        "_unsent", "_writing", "born", "closed", "crowded", "deaf", "entitled", "flight", "held",
        "key", "listening", "quiet",
    )  # fmt: skip

    def __init__(self, server: "Server", sock: socket.socket) -> None:
        self._server = server
        self._store = server.store
        self._socket = sock
        self._decoder = Decoder()
        self._out: list[bytes] = []
        self._size = 0  # bytes in there
        self._unsent: memoryview | None = None
        self._writing = False
        self._dirty = False  # the server knows that there is something to write
        self._answered = 0  # requests whose answer was not written yet
        self._done = 0  # requests that were carried out
        self._refusals: deque[int] = deque(maxlen=ledger.KNOWN)  # their numbers
        self._given = 0  # messages
        self._committed = (0, 0)  # done and given, as they stand in the ledger
        self._row: ledger.Row | None = None
        self.key = (b"", 0)  # the process, and the number of the connection there
        self._process: Process | None = None
        self._capacities: Capacities | None = None
        self.born = self._store.now
        self.closed = False
        self.deaf = False
        self.crowded = False
        self.quiet = False
        self.entitled = False  # to take over: it holds the listening socket
        self.listening: dict[int, Channel] = {}
        self.flight: dict[int, tuple[Channel, Message]] = {}
        self.held: dict[int, tuple[Channel, Message]] = {}  # in the hands of the app
        server.loop.add_reader(sock.fileno(), self._read)

    @property
    def introduced(self) -> bool:
        """Whether the client has said who it is."""
        return self._process is not None

    @property
    def has_delivered(self) -> bool:
        """Whether there may be messages on the way to the client that are nobody's yet."""
        return any(channel.specific and channel.sent for channel in self.listening.values())

    @property
    def drained(self) -> bool:
        """Whether everything was written."""
        return self.deaf or not (self._out or self._unsent or self._answered)

    # In

    def _read(self) -> None:
        if self.closed:
            return
        try:
            if self._process is None:
                data = self._receive_first()
            else:
                data = self._socket.recv(frames.READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        server = self._server
        server.tell_time()
        if not data:
            self.close(keep_held=self.quiet)
        else:
            try:
                self._take_all(self._decoder.feed(data))
            except (NoRoomError, PermissionError) as error:
                server.report(f"a client is disconnected: {error}")
                self.close()
            except (FrameError, msgspec.DecodeError, struct.error, IndexError, ValueError) as error:
                server.report(f"a client is disconnected, what it sent makes no sense: {error}")
                self.close()
        server.flush()

    def _receive_first(self) -> bytes:
        """Return what came, and see whether the listening socket came with it."""
        data, ancillary, _, _ = self._socket.recvmsg(frames.READ_SIZE, socket.CMSG_SPACE(ID.size))
        for descriptor in frames.descriptors(ancillary):
            self.entitled = self.entitled or self._server.listens_on(descriptor)
            os.close(descriptor)
        return data

    def _take_all(self, received: list[frames.Frame]) -> None:
        store = self._store
        for kind, payload in received:
            if self._capacities is None:
                self._introduce(kind, payload)
            elif kind == Kind.SEND:
                end = payload[0] + 1
                if not 1 < end <= len(payload):
                    raise FrameError("a message without a channel")
                refusal = store.send(payload[1:end], payload[end:], self._capacities)
                if refusal:
                    self._refuse(refusal)
                else:
                    self._answer()
            elif kind == Kind.TAKEN:
                self._let_go(frames.ids(payload), "")
            elif kind == Kind.GROUP_SEND:
                end = payload[0] + 1
                if not 1 < end <= len(payload):
                    raise FrameError("a message without a group")
                store.group_send(payload[1:end], payload[end:], self._capacities)
                self._answer()
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
                self._server.ledger.join(self.key[0])
                self._answer()
            else:
                self._refuse(str(NoRoomError()), Reason.LIMIT)
        elif kind == Kind.REJOIN:
            (age,) = AGE.unpack_from(payload)
            group, offset = read_string(payload, AGE.size)
            channel, _ = read_string(payload, offset)
            if store.rejoin(group, channel, age, capacities):
                self._answer()
            else:
                self._refuse(str(NoRoomError()), Reason.LIMIT)
        elif kind == Kind.REJOINED:
            if store.returning is not None:
                store.returning.returned(self.key[0])
            self._answer()
        elif kind == Kind.GROUP_DISCARD:
            group, offset = read_string(payload, 0)
            channel, _ = read_string(payload, offset)
            store.group_discard(group, channel)
            self._answer()
        elif kind == Kind.EXPIRED:
            self._let_go(frames.ids(payload), Drop.EXPIRED)
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
            self._result(msgspec.msgpack.encode(self._observe(payload)))
        elif kind == Kind.BIND:
            connection, offset = read_string(payload, 0)
            name, _ = read_string(payload, offset)
            try:
                store.parking.bind(connection, store.for_reader(name, share=0))
            except NoRoomError as error:
                self._refuse(str(error), Reason.LIMIT)
            else:
                self._answer()
        elif kind == Kind.PARK:
            connection, offset = read_string(payload, 0)
            name, offset = read_string(payload, offset)
            id, milliseconds, last = PARKED.unpack_from(payload, offset)
            self.listening.pop(id, None)
            body = payload[offset + PARKED.size :]
            store.parking.park(connection, name, last, body, milliseconds)
        elif kind == Kind.FLUSH:
            self._answer()
            self._server.flush_all(self)
        elif kind == Kind.CLEARED:
            self._server.cleared(self)
        elif kind == Kind.STATISTICS:
            self._result(msgspec.msgpack.encode(self._server.statistics()))
        elif kind == Kind.QUIET:
            self.quiet = True
        elif kind == Kind.POLICY:
            self._capacities = self._server.capacities(_policy.decode(payload))
        else:
            raise FrameError(f"a frame of kind {kind}")

    def _introduce(self, kind: int, payload: bytes) -> None:
        if kind == Kind.TAKE_OVER:
            user = credentials(self._socket).uid
            if user not in (0, os.geteuid()) and not self.entitled:
                raise PermissionError(
                    f"user id {user} may not take over, only root, user id {os.geteuid()} and"
                    " whoever holds the listening socket"
                )
            self._server.begin_handing_over(self.detach())
            return
        if kind != Kind.HELLO:
            raise FrameError("the first frame is no HELLO: the other side is no channel layer")
        hello = _hello.decode(payload)
        token = hello.process.encode()
        former = self._server.former(token, hello.former, hello.received)
        returning = self._store.returning
        welcome = Welcome(
            version=chansup.__version__,
            epoch=self._server.epoch,
            knows_policy=True,
            awaits=returning is not None and token in returning,
            done=former.done if former is not None else None,
            refused=former.refused if former is not None else 0,
        )
        self._emit(pack(Kind.WELCOME, msgspec.msgpack.encode(welcome)))
        if hello.protocol != PROTOCOL:
            self._server.flush()
            raise FrameError(f"it speaks protocol {hello.protocol}, this is {PROTOCOL}")
        self._capacities = self._server.capacities(hello.policy)
        self._process = self._store.process_of_client(token + b"!")
        self._store.connected(self._process)
        if hello.link:
            self.key = (token, hello.link)
            self._row = self._server.ledger.open(*self.key, credentials(self._socket).pid)

    def _listen(self, payload: bytes) -> None:
        (id,) = ID.unpack_from(payload)
        name = payload[ID.size :]
        if not name or self._knows(id) or len(self.listening) >= _MAX_LISTENING:
            raise FrameError("too many channels, or one id for two of them")
        assert self._capacities is not None
        channel = self._store.for_reader(name)
        channel.capacity(self._capacities)
        self.listening[id] = channel
        if channel.name == name:  # else it is the former name of what another process reads by now
            self._store.listen(channel, self, id)

    def _knows(self, id: int) -> bool:
        return id in self.listening or id in self.held

    def _hold(self, ids: tuple[int, ...]) -> None:
        for id in ids:
            found = self.flight.pop(id, None)
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
            if channel.reader is self and channel.id == id:
                self._store.let_go(channel)
            return
        found = self.flight.pop(id, None)
        if found is not None:
            self._store.flying -= 1
            self._store.give_back(channel, [found[1]])
        else:
            channel.demands.remove((self, id))
            self._store.consider(channel)

    def _let_go(self, ids: tuple[int, ...], reason: str) -> None:
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
                if channel.reader is not self or channel.id != id or not channel.sent:
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
                found = self.flight.pop(id, None)
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

    # Out

    def deliver(self, id: int, message: Message, crowded: bool) -> None:
        """Send a message."""
        self._given += 1
        body = message.body
        left = self._left(message, crowded)
        self._emit(
            HEADER.pack(DELIVERY.size + len(body), Kind.DELIVER)
            + DELIVERY.pack(message.number, left, id)
            + body
        )

    def hand(self, id: int, message: Message) -> None:
        """Send a message of an ordinary channel."""
        self._given += 1
        body = message.body
        left = self._left(message, False)
        now = self._store.now
        self._emit(
            HEADER.pack(HANDED.size + len(body), Kind.HAND)
            + HANDED.pack(message.number, left, id, message.born, now, message.attempts)
            + body
        )

    def _left(self, message: Message, crowded: bool) -> int:
        left = int((message.deadline - self._store.now) * 1000)
        left = 0 if left < 0 else min(left, MAX_MILLISECONDS)
        return left | CROWDED if crowded else left

    def deliver_to_many(self, ids: list[int], message: Message, crowded: bool) -> None:
        """Send a message to many channels of this client."""
        if len(ids) == 1:
            self.deliver(ids[0], message, crowded)
            return
        body = message.body
        count = len(ids)
        size = DELIVERIES.size + count * ID.size + len(body)
        if size > frames.MAX_PAYLOAD:
            half = count // 2
            self.deliver_to_many(ids[:half], message, crowded)
            self.deliver_to_many(ids[half:], message, crowded)
            return
        self._given += count
        listed = frames.pack_ids(Kind.DELIVER_MANY, ids)[frames.HEADER_SIZE :]
        self._emit(
            HEADER.pack(size, Kind.DELIVER_MANY)
            + DELIVERIES.pack(message.number, self._left(message, crowded), count)
            + listed
            + body
        )

    def forget_channels(self) -> None:
        """Tell the client that it has to listen anew to its channels with "!"."""
        for id, channel in list(self.listening.items()):
            if channel.specific:
                del self.listening[id]
        for _, message in self.held.values():
            self._store.release(message)
        self._store.flying -= len(self.held)
        self.held.clear()
        self.tell(Kind.FLUSHED)

    def tell(self, kind: int) -> None:
        """Send a frame that says all by its kind, after the answers that were given before."""
        self._emit_answers()
        self._emit(pack(kind))

    def _answer(self) -> None:
        if not self._dirty:
            self._dirty = True
            self._server.dirty.append(self)
        self._answered += 1
        self._done += 1

    def _emit_answers(self) -> None:
        if self._answered:
            answered, self._answered = self._answered, 0
            self._emit(pack(Kind.ANSWERED, ID.pack(answered)))

    def _result(self, answer: bytes) -> None:
        self._emit_answers()
        self._done += 1
        self._emit(pack(Kind.RESULT, answer))

    def _refuse(self, why: str, reason: int = Reason.FULL) -> None:
        self._emit_answers()
        self._done += 1
        self._refusals.append(self._done)
        self._emit(pack(Kind.REFUSED, bytes((reason,)) + why.encode()))

    def _emit(self, frame: bytes) -> None:
        if not self._dirty:
            self._dirty = True
            self._server.dirty.append(self)
        self._out.append(frame)
        self._size += len(frame)
        if self._size > self._server.limits.output:
            self.crowded = True

    def commit_given(self) -> None:
        """Write down what the client was given, before it gets it."""
        if self._row is not None and self._given != self._committed[1]:
            self._committed = (self._committed[0], self._given)
            self._row.give(self._given)

    def commit_done(self) -> None:
        """Write down what was carried out, before anybody sees anything of it."""
        if self._row is not None and self._done != self._committed[0]:
            self._committed = (self._done, self._committed[1])
            self._row.done(self._done, ledger.bits(self._refusals, self._done))

    def write(self) -> None:
        """Write what was gathered, as far as the client takes it."""
        self.commit_given()
        self._dirty = False
        if self.closed:
            return
        if self.deaf:
            self._out.clear()
            return
        if self._answered:
            self._out.append(pack(Kind.ANSWERED, ID.pack(self._answered)))
            self._answered = 0
        if self._unsent is not None:
            return
        data = b"".join(self._out) if len(self._out) > 1 else self._out[0] if self._out else b""
        self._out.clear()
        self._write(memoryview(data))

    def _write(self, data: memoryview) -> None:
        try:
            written = self._socket.send(data) if data else 0
        except (BlockingIOError, InterruptedError):
            written = 0
        except OSError:
            self._stop_writing()
            return
        loop = self._server.loop
        if written < len(data):
            self._unsent = data[written:]
            if not self._writing:
                self._writing = True
                loop.add_writer(self._socket.fileno(), self._write_rest)
            if self.crowded:
                loop.remove_reader(self._socket.fileno())  # let it read before it asks for more
            return
        self._unsent = None
        self._size = sum(map(len, self._out))
        if self._writing and not self._out:
            self._writing = False
            loop.remove_writer(self._socket.fileno())
        if self.crowded and not self._out:
            self.crowded = False
            loop.add_reader(self._socket.fileno(), self._read)
            for channel in list(self.listening.values()):
                if channel.reader is self and channel.sent < len(channel.entries):
                    self._store.pump(channel)

    def _stop_writing(self) -> None:
        """Take notice that nobody reads any more. What was said before is read yet: see _read."""
        loop = self._server.loop
        self.deaf = True
        self._out.clear()
        self._unsent = None
        if self._writing:
            self._writing = False
            loop.remove_writer(self._socket.fileno())
        loop.add_reader(self._socket.fileno(), self._read)

    def _write_rest(self) -> None:
        self._server.tell_time()
        unsent, self._unsent = self._unsent, None
        self._write(unsent if unsent is not None else memoryview(b""))
        if self._unsent is None and not self.closed:
            self.write()
        self._server.flush()

    # The end

    def finish(self) -> None:
        """Do what the client has asked for, who has another connection by now, and close."""
        while not self.closed:
            try:
                data = self._socket.recv(frames.READ_SIZE)
                if not data:
                    break
                self._take_all(self._decoder.feed(data))
            except (OSError, NoRoomError, FrameError, msgspec.DecodeError, struct.error, IndexError,
                    ValueError):  # fmt: skip
                break
        self.commit_done()
        self.close(keep_held=self.quiet)

    def detach(self) -> socket.socket:
        """Give up the socket to somebody else."""
        self._server.loop.remove_reader(self._socket.fileno())
        self.closed = True
        self._server.forget(self)
        return self._socket

    def pause(self) -> None:
        """Read nothing more."""
        self._server.loop.remove_reader(self._socket.fileno())

    def close(self, keep_held: bool = False) -> None:
        """Close the connection. What the client had not taken goes back to where it was.

        `keep_held`: the client has not gone, it only has to connect to another hub.
        """
        if self.closed:
            return
        self.closed = True
        loop = self._server.loop
        loop.remove_reader(self._socket.fileno())
        if self._writing:
            loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._server.forget(self)
        self._server.closed(self)
        store = self._store
        store.flying -= len(self.flight) + len(self.held)
        returned: dict[Channel, list[Message]] = {}
        for channel, message in self.flight.values():
            returned.setdefault(channel, []).append(message)
        self.flight.clear()
        for channel, message in self.held.values():
            if keep_held:
                store.hold_for(channel, message)
            else:
                again = store.again(message, failed=True)
                returned.setdefault(channel, []).append(again)
        self.held.clear()
        for id, channel in self.listening.items():
            if channel.specific:
                if channel.reader is self and channel.id == id:
                    store.parking.stop_reading(channel)
            elif (self, id) in channel.demands:
                channel.demands.remove((self, id))
                store.consider(channel)
        self.listening.clear()
        for channel, messages in returned.items():
            store.give_back(channel, messages)
        if self._process is not None:
            store.disconnected(self._process)
        self._out.clear()
        self._unsent = None
