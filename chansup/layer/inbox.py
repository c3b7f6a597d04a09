"""What came for the channels of this process, and who receives it.

A channel with "!" has an inbox: the hub delivers its messages as they come, and forgets each when
it learns that it was taken. It may learn that a little later.
"""

import asyncio
import contextlib
import time
from collections import deque
from typing import Protocol

from chansup.layer import frames
from chansup.layer.frames import (
    DELIVERIES,
    DELIVERY,
    ID,
    MAX_MILLISECONDS,
    PARKED,
    Kind,
    pack,
    string,
)
from chansup.layer.outbox import Outbox
from chansup.layer.waiters import fail
from chansup.protocol.connection import connection as current_connection

_SWEEP = 1.0  # seconds between two looks for old messages that nobody took
_DELAY = 0.005  # seconds that the hub may learn later what was taken
_MAX_TAKEN = 200  # messages that it may learn of together
_ORPHAN = -1  # number of a message that the hub knows nothing of

Entry = tuple[int, float, bytes, bool]  # number, deadline, body, whether the channel fills up


class Receivers(Protocol):
    """Who knows which event loop of this process receives from a channel."""

    def claim(self, name: bytes) -> None:
        """Let this event loop receive from a channel, and no other."""

    def is_bound(self, name: bytes) -> bool:
        """Say whether a channel was made for a client's connection."""

    def abandon_channel(self, name: bytes) -> None:
        """Take notice that nobody receives from a channel any more."""


class Inbox:
    """What was delivered to a channel with "!", and not taken yet."""

    __slots__ = ("entries", "id", "in_hand", "is_bound", "last", "name", "waiters")

    def __init__(self, name: bytes, is_bound: bool) -> None:
        self.name = name
        self.is_bound = is_bound  # if this process dies, another one continues with it at once
        self.id = 0
        self.entries: deque[Entry] = deque()
        self.waiters: deque[asyncio.Future[None]] = deque()
        self.last = 0  # number of the last message that was taken
        self.in_hand: tuple[float, bytes] | None = None  # taken, and not dealt with for sure

    def wake(self) -> None:
        """Let one of those who wait look again."""
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class Inboxes:
    """The inboxes of one event loop."""

    def __init__(self, outbox: Outbox, receivers: Receivers) -> None:
        self._outbox = outbox
        self._receivers = receivers
        self._by_name: dict[bytes, Inbox] = {}
        self._by_id: dict[int, Inbox] = {}
        self._is_sweeping = False
        self._is_telling = False
        outbox.keep_free(self._by_id)

    def __bool__(self) -> bool:
        return bool(self._by_name)

    # Receiving

    async def receive(self, name: bytes) -> bytes:
        """Return the next message of a channel."""
        outbox = self._outbox
        inbox = self._by_name.get(name)
        if inbox is None:
            self._receivers.claim(name)
            inbox = self._by_name[name] = Inbox(name, self._receivers.is_bound(name))
            if outbox.ready:
                self._listen(inbox)
            else:
                outbox.connect()
        inbox.in_hand = None
        while True:
            entries = inbox.entries
            if entries and not (inbox.is_bound and _is_for_the_next(name)):
                number, deadline, body, crowded = entries.popleft()
                if number > inbox.last:
                    inbox.last = number
                if deadline <= time.monotonic():
                    if outbox.ready and number != _ORPHAN:
                        outbox.emit_ids(Kind.EXPIRED, [inbox.id])
                    continue
                if outbox.ready and number != _ORPHAN:
                    taken = outbox.taken
                    taken.append(inbox.id)
                    if crowded or inbox.is_bound or len(taken) > _MAX_TAKEN:
                        outbox.schedule()
                    elif not self._is_telling:
                        self._is_telling = True
                        outbox.loop.call_later(_DELAY, self._tell_taken)
                inbox.in_hand = (deadline, body)
                return body
            waiter: asyncio.Future[None] = outbox.loop.create_future()
            inbox.waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                with contextlib.suppress(ValueError):
                    inbox.waiters.remove(waiter)
                if inbox.waiters:
                    if inbox.entries:
                        inbox.wake()
                elif self._by_name.get(name) is inbox:
                    self._receivers.abandon_channel(name)
                raise

    def is_idle(self, name: bytes) -> bool:
        """Say whether it listens to a channel, and nobody waits for what comes."""
        inbox = self._by_name.get(name)
        return inbox is not None and not inbox.waiters

    def _tell_taken(self) -> None:
        self._is_telling = False
        if self._outbox.taken:
            self._outbox.flush_unless_scheduled()

    def _sweep(self) -> None:
        """Drop what was not taken in time."""
        self._is_sweeping = False
        now = time.monotonic()
        expired = []
        left = False
        for inbox in self._by_name.values():
            while inbox.entries and inbox.entries[0][1] <= now:
                if inbox.entries.popleft()[0] != _ORPHAN:
                    expired.append(inbox.id)
            left = left or bool(inbox.entries)
        if expired and self._outbox.ready:
            self._outbox.emit_ids(Kind.EXPIRED, expired)
        if left:
            self._is_sweeping = True
            self._outbox.loop.call_later(_SWEEP, self._sweep)

    # What the hub delivers

    def deliver(self, payload: bytes, now: float) -> None:
        """Take what came for one channel."""
        number, left, id = DELIVERY.unpack_from(payload)
        inbox = self._by_id.get(id)
        if inbox is not None:
            deadline = now + (left & MAX_MILLISECONDS) / 1000
            self._put(inbox, (number, deadline, payload[DELIVERY.size :], left > MAX_MILLISECONDS))

    def deliver_to_many(self, payload: bytes, now: float) -> int:
        """Take what came for many channels. Return for how many."""
        number, left, count = DELIVERIES.unpack_from(payload)
        end: int = DELIVERIES.size + count * ID.size
        deadline = now + (left & MAX_MILLISECONDS) / 1000
        entry = (number, deadline, payload[end:], left > MAX_MILLISECONDS)
        by_id = self._by_id
        for id in frames.ids(payload[DELIVERIES.size : end]):
            inbox = by_id.get(id)
            if inbox is not None:
                self._put(inbox, entry)
        return int(count)

    def _put(self, inbox: Inbox, entry: Entry) -> None:
        number = entry[0]
        if number and number <= inbox.last:  # it was taken before the connection broke
            self._outbox.taken.append(inbox.id)
            self._outbox.schedule()
            return
        inbox.entries.append(entry)
        if inbox.waiters:
            inbox.wake()
        elif not self._is_sweeping:
            self._is_sweeping = True
            self._outbox.loop.call_later(_SWEEP, self._sweep)

    # Listening

    def _listen(self, inbox: Inbox) -> None:
        inbox.id = self._outbox.new_id()
        self._by_id[inbox.id] = inbox
        self._outbox.emit(pack(Kind.LISTEN, ID.pack(inbox.id) + inbox.name))

    def unlisten(self, name: bytes) -> Inbox | None:
        """Let go of a channel: what was not taken is the hub's again."""
        inbox = self.forget(name)
        if inbox is not None and self._outbox.ready:
            self._outbox.emit_ids(Kind.UNLISTEN, [inbox.id])
        return inbox

    def forget(self, name: bytes) -> Inbox | None:
        """Forget a channel, and say nothing of it."""
        inbox = self._by_name.pop(name, None)
        if inbox is not None:
            self._by_id.pop(inbox.id, None)
        return inbox

    def release(self, name: bytes) -> None:
        """Let another loop of this process receive from a channel. In this loop's thread."""
        inbox = self.unlisten(name)
        self._outbox.flush()
        if inbox is not None:
            for waiter in inbox.waiters:
                fail(waiter, RuntimeError("another event loop receives from this channel by now"))

    def park(self, connection: bytes, name: bytes, in_hand: bool = True) -> None:
        """Leave a channel to the process that its client goes to.

        `in_hand`: with the message that was taken last, unless another one was asked for since.
        """
        outbox = self._outbox
        inbox = self.forget(name)
        id, left, last, body = 0, 0, 0, b""
        if inbox is not None:
            id, last = inbox.id, inbox.last
            if in_hand and inbox.in_hand is not None:
                deadline, body = inbox.in_hand
                left = max(0, min(int((deadline - time.monotonic()) * 1000), MAX_MILLISECONDS))
        outbox.emit_taken()
        # With the last number: while there is no connection the hub does not learn what was taken.
        head = string(connection) + string(name) + PARKED.pack(id, left, last)
        frame = pack(Kind.PARK, head + (body if left else b""))
        outbox.send_or_defer(frame)
        was_ready = outbox.ready
        outbox.flush()
        if was_ready and not outbox.is_connected:  # it is as if the hub was gone before
            outbox.defer(frame)

    # The connection

    def greeted(self, same: bool) -> None:
        """Take notice of a new connection. `same`: the hub holds what was delivered before."""
        self._by_id.clear()
        for inbox in self._by_name.values():
            if same:
                inbox.entries.clear()  # the hub still has them
            else:  # the hub that had them is no more, and its successor counts again
                inbox.last = 0
                inbox.entries = deque((_ORPHAN, *entry[1:]) for entry in inbox.entries)

    def listen(self) -> None:
        """Listen to everything."""
        for inbox in self._by_name.values():
            self._listen(inbox)

    def begin_anew(self) -> None:
        """Forget what was delivered, and listen to everything under new ids."""
        self._outbox.emit_taken()
        stale = list(self._by_id)
        self._by_id.clear()
        if stale:
            self._outbox.emit(frames.pack_ids(Kind.UNLISTEN, stale))
        for inbox in self._by_name.values():
            inbox.entries.clear()
            self._listen(inbox)

    def fail_all(self, error: Exception) -> None:
        """Let everybody who waits know that nothing comes."""
        for inbox in self._by_name.values():
            for waiter in inbox.waiters:
                fail(waiter, error)

    def clear(self) -> None:
        """Forget everything."""
        self._by_name.clear()
        self._by_id.clear()


def _is_for_the_next(name: bytes) -> bool:
    """Whether the app that asks was told to leave: what comes is for the next worker."""
    connection = current_connection.get()
    return connection is not None and connection.holds_back(name.decode())
