"""All that this process carries: its slots, its connections, and what the supervisor says."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable
from typing import Any

from chansup.carry import layout, positions, stay
from chansup.carry.arena import Arena, Slot
from chansup.carry.arrivals import Arrivals
from chansup.carry.connection import CURRENT, Connection
from chansup.carry.errors import FullError
from chansup.carry.hosts import Books
from chansup.carry.link import Link
from chansup.carry.opening import Opening
from chansup.carry.policy import Policy
from chansup.carry.stay import Stay
from chansup.carry.views import Phase
from chansup.protocol import carry as protocol
from chansup.protocol.carry import Adopt, HolderMessage
from chansup.protocol.launch import Carry

SLOTS = 256  # in a segment
_SWEEP = 1.0  # seconds after which memory that is not used is given back
_SWEPT = 50  # connections that are looked at in one turn of the loop
_SWEEP_PAUSE = 0.02  # seconds until the next ones

_log = logging.getLogger("chansup.carry")


class Carrier:
    """The carrying half of this process."""

    def __init__(self, settings: Carry, books: Books, largest_message: int) -> None:
        """`largest_message` that a client may send, in bytes."""
        self.books = books
        self.scratch = memoryview(bytearray(64 * 1024))
        self.hurries = False
        self._policy = Policy(settings)
        self._link = Link(
            socket.socket(fileno=settings.channel_fd), self._take, self._offer_again, self._lost
        )
        self._arrivals = Arrivals(self, self._link, self._policy, settings.adoption_rate)
        self._arena = Arena(layout.layout_for(largest_message, SLOTS))
        self._connections: dict[int, Connection] = {}  # by slot
        self._unoffered: dict[Connection, None] = {}
        self._large: set[Connection] = set()
        self._unswept: list[Connection] = []  # of these, in this sweep
        self._sweeping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._token = secrets.token_hex(8)  # what ids begin with
        self._ids = 0
        self._is_adoptable = True
        self._is_leaving = False
        self._survives_crash = False

    def start(self, make: Callable[[], Any]) -> None:
        """Begin, in the event loop. `make` returns a new protocol object of the server."""
        self._loop = asyncio.get_running_loop()
        self._arrivals.start(make)
        self._link.start(self._loop)
        why_not = positions.check()
        self._survives_crash = not why_not
        self._link.say(protocol.Ready(self._survives_crash, why_not[:200]))

    def wrap(self, inner: Any) -> Any:
        """Return a protocol object of the server, carried as far as that is possible."""
        connection = Connection(self, inner)
        Opening(self, connection)
        return connection

    # The app's side

    async def run(
        self, application: stay.Application, scope: Any, receive: stay.Receive, send: stay.Send
    ) -> bool:
        """Run the app for a WebSocket that is carried. Say whether it is one."""
        connection = CURRENT.get()
        if connection is None or connection.stay is not None:
            return False
        if connection.phase not in (Phase.HANDSHAKE, Phase.REPEATING):
            return False
        arrival = self._arrivals.arrival(connection)
        await Stay(self, connection, arrival, scope, receive, send).run(application)
        return True

    def new_id(self) -> str:
        """Return an id for a WebSocket, of no other one on this machine."""
        self._ids += 1
        return f"{self._token}.{self._ids}"

    def moves(self, one: Stay) -> bool:
        """Whether another process may continue with it, by all rules, as things are now."""
        if not self._is_adoptable or not self._link.is_open:
            return False
        verdict = self._policy.verdict(one.record(b"", []), one.word)
        if not verdict.moves:
            self._policy.say_once(verdict)
        return verdict.moves

    def settled(self, connection: Connection) -> None:
        """Take notice that the app has dealt with a message that was given again."""
        if connection.slot is not None and connection.is_offered:
            self._link.say(protocol.Settled(connection.slot.number))

    # The connections' side

    def take_slot(self) -> Slot | None:
        """Return a free slot, or None."""
        if not self._link.is_open:
            return None
        try:
            slot, descriptor = self._arena.take()
        except FullError as error:
            self._policy.warn_once(str(error))
            return None
        if descriptor is not None:
            self._link.say(protocol.Segment(self._arena.newest), descriptor)
            os.close(descriptor)
        return slot

    def settle_in(self, connection: Connection, slot: Slot) -> None:
        """Take in a connection that another process had."""
        self._connections[slot.number] = connection

    def release(self, slot: Slot) -> None:
        """Take back a slot."""
        self._arena.release(slot)

    def opened(self, connection: Connection) -> None:
        """Offer a connection to the supervisor; where it has no time, later."""
        assert connection.slot is not None
        self._connections[connection.slot.number] = connection
        self._offer(connection)

    def _offer(self, connection: Connection) -> None:
        assert connection.slot is not None
        survives = self._survives_crash and connection.is_kernel_counted
        message = protocol.Open(connection.slot.number, survives)
        connection.is_offered = self._link.say_now(message, connection.descriptor)
        if not connection.is_offered:
            self._unoffered[connection] = None

    def _offer_again(self) -> None:
        waiting, self._unoffered = self._unoffered, {}
        for connection in waiting:
            if connection.phase is Phase.OPEN and connection.slot is not None:
                self._offer(connection)

    def grows(self, connection: Connection) -> None:
        """Take notice that it uses more than its first page."""
        self._large.add(connection)
        if not self._sweeping and self._loop is not None:
            self._sweeping = True
            self._loop.call_later(_SWEEP, self._sweep)

    def _sweep(self) -> None:
        """Give unused memory back, of a few connections at a time: each costs some system calls."""
        assert self._loop is not None
        if not self._unswept:
            self._unswept = list(self._large)
        for connection in self._unswept[-_SWEPT:]:
            if connection.shrink():
                self._large.discard(connection)
        del self._unswept[-_SWEPT:]
        self._sweeping = bool(self._large)
        if self._sweeping:
            self._loop.call_later(_SWEEP_PAUSE if self._unswept else _SWEEP, self._sweep)

    def plain(self, connection: Connection, reason: str) -> None:
        """Take notice that a connection cannot be carried any more."""
        slot = self._drop(connection)
        if slot is not None:
            if connection.is_offered:
                connection.is_offered = False
                self._link.say(protocol.Plain(slot.number, reason))
            self._arena.release(slot)

    def resumed(self, connection: Connection) -> None:
        """Take notice that an adopted connection continues."""
        self._arrivals.over(connection)
        slot = connection.slot
        if slot is None:
            return
        self._link.say(protocol.Resumed(slot.number))
        one = connection.stay
        if not isinstance(one, Stay) or not one.is_suspect:
            self._link.say(protocol.Settled(slot.number))

    def refused(self, connection: Connection, reason: str) -> None:
        """Take notice that an adopted connection is closed, as a word of HANDOVERS says."""
        order = self._arrivals.orders.pop(connection, None)
        if order is not None:
            connection.is_offered = False
            self._link.say(protocol.Failed(order.ticket, reason, closed=True))

    def parked(self, connection: Connection) -> None:
        """Take notice that a connection was left to another process."""
        slot = self._drop(connection)
        if slot is not None:
            # The slot is not released: the next process reads it.
            self._link.say(protocol.Parked(slot.number, connection.is_clean))

    def ended(self, connection: Connection) -> None:
        """Take notice that a connection is gone."""
        self._arrivals.over(connection)
        slot = self._drop(connection)
        if slot is not None:
            if connection.is_offered:
                self._link.say(protocol.Closed(slot.number))
            self._arena.release(slot)

    def _drop(self, connection: Connection) -> Slot | None:
        self._unoffered.pop(connection, None)
        self._large.discard(connection)
        slot, connection.slot = connection.slot, None
        if slot is not None:
            self._connections.pop(slot.number, None)
        return slot

    # What the supervisor says

    def _take(self, message: HolderMessage, descriptor: int | None) -> None:
        if isinstance(message, Adopt):
            if descriptor is None:
                details = "no descriptor is left"
                self._link.say(protocol.Failed(message.ticket, "memory", False, details))
            else:
                self._arrivals.take(message, descriptor)
        elif isinstance(message, protocol.Memory):
            if descriptor is not None:  # else what lies there cannot be adopted
                self._arrivals.remember(message.key, descriptor)
        elif isinstance(message, protocol.Forget):
            self._arrivals.forget(message.key)
        elif isinstance(message, protocol.Declined):
            connection = self._connections.get(message.slot)
            if connection is not None:
                connection.is_offered = False
                connection.forsake(message.reason)
                # The slot may have been used again: then the supervisor has the other socket.
                self._link.say(protocol.Closed(message.slot))
        else:
            self._is_adoptable = message.adoptable

    def _lost(self, reason: str) -> None:
        """Continue without the supervisor: every WebSocket ends with this process."""
        if not self._is_leaving:
            _log.error(
                "WebSockets end with this process from now on: the channel to the supervisor "
                "was closed: %s",
                reason,
            )
        for connection in list(self._connections.values()):
            connection.is_offered = False
            connection.forsake("channel")
        self._arrivals.close()

    # Leaving

    def begin_to_leave(self) -> None:
        """Take notice that this process drains: it adopts nothing any more."""
        if not self._is_leaving:
            self._is_leaving = True
            self._link.say(protocol.Leaving())
            self._arrivals.close()

    def hurry(self) -> None:
        """Take notice that time is nearly up: apps leave, whatever they are busy with."""
        self.hurries = True
        for connection in list(self._connections.values()):
            if isinstance(connection.stay, Stay):
                connection.stay.hurry()

    def left(self) -> None:
        """Take notice that the drain is over."""
        self._link.say(protocol.Left())

    @property
    def count(self) -> int:
        """How many connections are carried now."""
        return len(self._connections)
