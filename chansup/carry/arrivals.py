"""WebSockets of other processes that this one is to continue with: one after the other."""

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from chansup.carry import handshake, positions, remainder
from chansup.carry.adoption import Adoption
from chansup.carry.arena import Segment, Slot
from chansup.carry.connection import Connection
from chansup.carry.errors import DiffersError, RecordError, SlotError
from chansup.carry.hosts import Arrival
from chansup.carry.link import Link
from chansup.carry.policy import Policy
from chansup.carry.views import Phase
from chansup.protocol import carry as protocol
from chansup.protocol.carry import Adopt

SERVICE_RESTART = 1012  # RFC 6455, section 7.4

_log = logging.getLogger("chansup.carry")


class Home(Protocol):
    """This process, as those that arrive see it."""

    def take_slot(self) -> Slot | None:
        """Return a free slot, or None."""

    def settle_in(self, connection: Connection, slot: Slot) -> None:
        """Take in a connection that has a slot here."""

    def release(self, slot: Slot) -> None:
        """Take back a slot."""

    def resumed(self, connection: Connection) -> None:
        """Take notice that an adopted connection continues."""

    def refused(self, connection: Connection, reason: str) -> None:
        """Take notice that an adopted connection is closed, as a word of HANDOVERS says."""

    def ended(self, connection: Connection) -> None:
        """Take notice that a connection is gone."""


class Arrivals:
    """The queue of what arrives. One is adopted in a turn of the loop: traffic has its share."""

    def __init__(self, home: Home, link: Link, policy: Policy, rate: float) -> None:
        """`rate`: adoptions in a second, at most."""
        self._home = home
        self._link = link
        self._policy = policy
        self._pause = 1 / rate
        self._memory: dict[int, Segment] = {}  # of other processes
        self._queue: deque[tuple[Adopt, socket.socket]] = deque()
        self._next_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._make: Callable[[], Any] | None = None
        self._is_closed = False
        self._known: dict[Connection, Arrival] = {}  # until the app runs
        self.orders: dict[Connection, Adopt] = {}  # Adopted was said, and nothing after it

    def start(self, make: Callable[[], Any]) -> None:
        """Adopt from now on. `make` returns a new protocol object of the server."""
        self._loop = asyncio.get_running_loop()
        self._make = make

    def remember(self, key: int, descriptor: int) -> None:
        """Map the memory of another process."""
        try:
            self._memory[key] = Segment.of_another(descriptor)
        except (SlotError, OSError, ValueError) as error:
            _log.error("memory of another process cannot be read: %s", error)
        finally:
            os.close(descriptor)

    def forget(self, key: int) -> None:
        """Let go of the memory of another process."""
        self._memory.pop(key, None)

    def take(self, order: Adopt, descriptor: int) -> None:
        """Take an order, which comes with a socket."""
        sock = socket.socket(fileno=descriptor)
        if self._is_closed:
            self._fail(order, sock, "leaving")
            return
        self._queue.append((order, sock))
        if len(self._queue) == 1:
            self._schedule()

    def close(self) -> None:
        """Adopt nothing any more: others may."""
        self._is_closed = True
        queue, self._queue = self._queue, deque()
        for order, sock in queue:
            self._fail(order, sock, "leaving")

    def arrival(self, connection: Connection) -> Arrival | None:
        """Return how a connection came, once; None: its client has just opened it."""
        return self._known.pop(connection, None)

    def over(self, connection: Connection) -> Adopt | None:
        """Forget a connection. Return its order, if its adoption was under way."""
        self._known.pop(connection, None)
        return self.orders.pop(connection, None)

    def _schedule(self) -> None:
        assert self._loop is not None
        self._loop.call_at(max(self._next_at, self._loop.time()), self._adopt_next)

    def _adopt_next(self) -> None:
        if not self._queue:
            return
        assert self._loop is not None
        order, sock = self._queue.popleft()
        self._next_at = self._loop.time() + self._pause
        try:
            self._begin(order, sock)
        except DiffersError as error:
            _log.error("journal and kernel disagree about a WebSocket, it is closed: %s", error)
            self._fail(order, sock, "differs", str(error), closed=True)
        except (SlotError, RecordError) as error:
            self._fail(order, sock, "memory", str(error))
        except OSError as error:
            self._fail(order, sock, "gone", str(error), closed=True)
        except Exception as error:
            _log.exception("a WebSocket cannot be adopted")
            self._fail(order, sock, "error", repr(error))
        if self._queue:
            self._schedule()

    def _fail(
        self,
        order: Adopt,
        sock: socket.socket,
        reason: str,
        details: str = "",
        closed: bool = False,
    ) -> None:
        self._link.say(protocol.Failed(order.ticket, reason, closed, details[:200]))
        sock.close()

    def _begin(self, order: Adopt, sock: socket.socket) -> None:
        """Copy what the other process left, and say so; the rest follows when that was said."""
        assert self._make is not None
        segment = self._memory.get(order.key)
        if segment is None:
            raise SlotError("of its slot")
        left, record, arrival = self._read(order, sock, segment.slot(order.index))
        slot = self._home.take_slot()
        connection = self._make()
        if slot is None or not isinstance(connection, Connection):
            raise SlotError("this process has none")
        adoption = Adoption(self._home, connection, left, record, arrival.count)
        if not adoption.copy(slot):
            self._home.release(slot)
            raise SlotError("more is outstanding than this process can keep")
        close, result = order.close, "closed"
        if not close and order.reason == "crash":
            verdict = self._policy.verdict(record, left.word)
            if not verdict.moves:
                self._policy.say_once(verdict)
                close, result = SERVICE_RESTART, "session" if verdict.is_session else "closed"
        connection.is_kernel_counted = sock.family != socket.AF_UNIX
        self._home.settle_in(connection, slot)
        self.orders[connection] = order
        self._known[connection] = arrival
        redelivers = left.is_in_hand and arrival.is_again
        self._link.say(
            protocol.Adopted(
                order.ticket, slot.number, int(left.is_in_hand and not redelivers), int(redelivers)
            ),
            then=lambda: self._spawn(self._adopt(adoption, sock, close, result)),
        )

    def _read(
        self, order: Adopt, sock: socket.socket, slot: Slot
    ) -> tuple[remainder.Remainder, handshake.Record, Arrival]:
        kernel = None
        if sock.family != socket.AF_UNIX:
            kernel = positions.of(sock)
            if kernel.is_lost:
                raise OSError("the client has left")
        left = remainder.read(slot, kernel, redeliver=False)
        record = handshake.decode(left.record)
        is_again = left.is_in_hand and self._policy.redelivers(record)
        if is_again:
            left = remainder.read(slot, kernel, redeliver=True)
        count = max(order.count, left.handovers + 1)
        return left, record, Arrival(order.reason, count, left.checkpoint, left.word, is_again)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _adopt(
        self, adoption: Adoption, sock: socket.socket, close: int, result: str
    ) -> None:
        assert self._loop is not None
        connection = adoption.connection
        sock.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(lambda: connection, sock)
        except Exception as error:
            _log.error("an adopted WebSocket is gone: %r", error)
            sock.close()
            if connection.phase is not Phase.OVER:
                connection.phase = Phase.OVER
                self._home.ended(connection)
            return
        if connection.phase is Phase.OVER:
            return
        if close and not adoption.left.is_closing:
            self._home.refused(connection, result)
        adoption.begin(close)
