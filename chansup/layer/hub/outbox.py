"""What one client is sent, and what of it the ledger knows.

All that is sent during one turn leaves in one write at its end. Nothing here waits.
"""

import asyncio
import socket
from collections import deque
from typing import Protocol

from chansup.layer import frames
from chansup.layer.frames import (
    CROWDED,
    DELIVERIES,
    DELIVERY,
    HANDED,
    HEADER,
    ID,
    MAX_MILLISECONDS,
    Kind,
    Reason,
    pack,
)
from chansup.layer.hub import ledger
from chansup.layer.hub.channel import Channel, Message
from chansup.layer.hub.limits import Limits
from chansup.layer.hub.store import Store
from chansup.wire import Writer


class Host(Protocol):
    """The hub, as far as what it sends is concerned."""

    loop: asyncio.AbstractEventLoop
    limits: Limits
    store: Store
    dirty: "list[Outbox]"  # that have something to write

    def tell_time(self) -> None:
        """Tell the store what time it is."""

    def flush(self) -> None:
        """Write to each client what was gathered for it."""


class Inlet(Protocol):
    """What the same client sends, as far as it is read."""

    def pause(self) -> None:
        """Read nothing more."""

    def resume(self) -> None:
        """Read again."""

    def has_room(self) -> None:
        """Take notice that the client has read all that it was sent."""


class Outbox:
    """Frames to a client. Its `flight`, `crowded` and `deliver…` are what queues see of it."""

    __slots__ = (
        "_answered", "_committed", "_dirty", "_done", "_given", "_host", "_inlet", "_out",
        "_refusals", "_size", "_store", "_writer", "closed", "crowded", "flight", "row",
    )  # fmt: skip

    def __init__(self, host: Host, sock: socket.socket, inlet: Inlet) -> None:
        self._host = host
        self._store = host.store
        self._inlet = inlet
        self._writer = Writer(host.loop, self._gather, self._break_off, self._drain)
        self._writer.open(sock)
        self._out: list[bytes] = []
        self._size = 0  # bytes in there
        self._dirty = False  # the host knows that there is something to write
        self._answered = 0  # requests whose answer was not written yet
        self._done = 0  # requests that were carried out
        self._refusals: deque[int] = deque(maxlen=ledger.KNOWN)  # their numbers
        self._given = 0  # messages
        self._committed = (0, 0)  # done and given, as they stand in the ledger
        self.row: ledger.Row | None = None
        self.closed = False
        self.crowded = False
        self.flight: dict[int, tuple[Channel, Message]] = {}

    @property
    def drained(self) -> bool:
        """Whether everything was written."""
        writer = self._writer
        return writer.is_broken or not (self._out or writer.is_waiting or self._answered)

    def deliver(self, id: int, message: Message, crowded: bool) -> None:
        """Send a message."""
        self._given += 1
        body = message.body
        left = self._left(message, crowded)
        self.emit(
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
        self.emit(
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
        self.emit(
            HEADER.pack(size, Kind.DELIVER_MANY)
            + DELIVERIES.pack(message.number, self._left(message, crowded), count)
            + listed
            + body
        )

    def tell(self, kind: int) -> None:
        """Send a frame that says all by its kind, after the answers that were given before."""
        self._emit_answers()
        self.emit(pack(kind))

    def answer(self) -> None:
        """Say that the next request succeeded."""
        if not self._dirty:
            self._dirty = True
            self._host.dirty.append(self)
        self._answered += 1
        self._done += 1

    def _emit_answers(self) -> None:
        if self._answered:
            answered, self._answered = self._answered, 0
            self.emit(pack(Kind.ANSWERED, ID.pack(answered)))

    def result(self, answer: bytes) -> None:
        """Answer the next request with something."""
        self._emit_answers()
        self._done += 1
        self.emit(pack(Kind.RESULT, answer))

    def refuse(self, why: str, reason: int = Reason.FULL) -> None:
        """Say that the next request failed."""
        self._emit_answers()
        self._done += 1
        self._refusals.append(self._done)
        self.emit(pack(Kind.REFUSED, bytes((reason,)) + why.encode()))

    def emit(self, frame: bytes) -> None:
        """Send a frame."""
        if not self._dirty:
            self._dirty = True
            self._host.dirty.append(self)
        self._out.append(frame)
        self._size += len(frame)
        if self._size > self._host.limits.output:
            self.crowded = True

    def commit_given(self) -> None:
        """Write down what the client was given, before it gets it."""
        if self.row is not None and self._given != self._committed[1]:
            self._committed = (self._committed[0], self._given)
            self.row.give(self._given)

    def commit_done(self) -> None:
        """Write down what was carried out, before anybody sees anything of it."""
        if self.row is not None and self._done != self._committed[0]:
            self._committed = (self._done, self._committed[1])
            self.row.done(self._done, ledger.bits(self._refusals, self._done))

    def write(self) -> None:
        """Write what was gathered, as far as the client takes it."""
        self._dirty = False
        if self.closed:
            self.commit_given()
        elif self._writer.flush():
            self._has_left()
        elif self._writer.is_broken:
            self.commit_given()
            self._out.clear()
        elif self.crowded:
            self._inlet.pause()  # let it read before it asks for more

    def _gather(self) -> bytes:
        self.commit_given()
        out = self._out
        if self._answered:
            out.append(pack(Kind.ANSWERED, ID.pack(self._answered)))
            self._answered = 0
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def _has_left(self) -> None:
        self._size = 0
        if self.crowded:
            self.crowded = False
            self._inlet.resume()
            self._inlet.has_room()

    def _drain(self) -> None:
        self._host.tell_time()
        self._has_left()
        self._host.flush()

    def _break_off(self, error: OSError) -> None:
        """Take notice that nobody reads any more. What was said before is read yet."""
        self._out.clear()
        self._inlet.resume()

    def close(self) -> None:
        """Write nothing more."""
        self.closed = True
        self._writer.close()
        self._out.clear()
