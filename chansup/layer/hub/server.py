"""Accepts clients, keeps time, and ends."""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple

from chansup.layer.frames import Kind, Reason, pack
from chansup.layer.hub import ledger, observation, takeover
from chansup.layer.hub.channel import Channel, Message
from chansup.layer.hub.connection import Connection
from chansup.layer.hub.ledger import Ledger
from chansup.layer.hub.limits import CONNECTIONS, USERS, Limits, Memory
from chansup.layer.hub.observation import Reporter
from chansup.layer.hub.outbox import Outbox
from chansup.layer.hub.returning import Returning
from chansup.layer.hub.session import Session
from chansup.layer.hub.store import Store
from chansup.layer.policies import Capacities, Policy
from chansup.protocol import notify
from chansup.protocol.bulletin import Bulletin
from chansup.protocol.hub_report import DEFAULT_PATTERN, Drop
from chansup.unix import credentials
from chansup.wire import Acceptor

logger = logging.getLogger("chansup.layer.hub")

_TICK = 0.25  # seconds
_SWEEP_EACH = 16  # ticks between two looks at everything
_REPORT_EACH = 4  # ticks between two reports to the supervisor
_WATCHDOG_EACH = 16  # ticks between two signs of life, at most
_GREETING_TIME = 5.0  # seconds that a client has to say who it is
_PAUSE = 1.0  # seconds without new clients where there are no descriptors for them
_QUIET_TIME = 2.0  # seconds that clients have to stop sending before another hub takes over
_CLEARING_TIME = 0.5  # seconds that clients have to forget what was delivered to them
_MAX_POLICIES = 10_000
_REPORT_INTERVAL = 1.0  # seconds between two warnings about clients


class _Flush(NamedTuple):
    """A client that wants all to be forgotten, and those who have not said yet that they did."""

    asker: Outbox
    waiting: set[Outbox]
    deadline: float


class Server:
    """A hub that listens."""

    def __init__(
        self,
        listener: socket.socket,
        limits: Limits,
        users: frozenset[int],
        snapshot: "takeover.Snapshot | None" = None,
        bulletin: Bulletin | None = None,
        kept: Ledger | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.limits = limits
        self.store = Store(Memory(limits.memory))
        self.epoch = secrets.token_hex(8)
        self.dirty: list[Outbox] = []
        self.ended: asyncio.Future[bool] = self.loop.create_future()  # True: handed over
        self._listener = listener
        self._users = users
        self._connections: dict[Connection, None] = {}
        self._flushes: list[_Flush] = []
        self._policies: dict[Policy, Capacities] = {}
        self._began = time.monotonic()
        self._ticks = 0
        self._bulletin = bulletin
        watchdog = notify.watchdog_interval()  # 0: nobody waits for it
        self._watchdog_each = max(1, min(_WATCHDOG_EACH, int(watchdog / _TICK)))
        self._has_watchdog = watchdog > 0
        self._reported = -_REPORT_INTERVAL
        self._heir: socket.socket | None = None
        self._speak: set[tuple[int, int]] = set()  # versions of the clients, for the heir
        self._deadline = 0.0
        self._giving: asyncio.Task[None] | None = None  # to the heir: nothing changes meanwhile
        if snapshot is not None:
            self.epoch = snapshot.epoch
            takeover.restore(self.store, snapshot, self.capacities)
        self.ledger = kept or ledger.anonymous(limits.connections)
        self._of_another: set[tuple[bytes, int]] = set()  # connections of a hub that was killed
        if snapshot is None:
            self._follow()
        self._reporter: Reporter | None = None
        if bulletin is not None:
            self.store.drops.reported = 0
            self._reporter = Reporter(self.store, bulletin, self.epoch)
        self._report(at_once=True)
        listener.setblocking(False)
        self._acceptor = Acceptor(self.loop, listener, self._welcome, self._cannot_accept, _PAUSE)
        self._acceptor.start()
        self.loop.call_later(_TICK, self._tick)

    def _follow(self) -> None:
        """Begin where another hub has ended, if there was one."""
        self.store.drops.add(Drop.LOST, DEFAULT_PATTERN, self.ledger.lost)
        self.ledger.begin()
        self._of_another = self.ledger.open_rows()
        if self.ledger.processes:
            processes = self.ledger.processes
            self.store.returning = Returning(
                self.store, self.store.parking, processes, self.ledger.close_all
            )

    # Clients

    def former(self, process: bytes, link: int, received: int) -> ledger.Former | None:
        """Return the record of a connection that a client has lost."""
        if not link:
            return None
        for connection in list(self._connections):
            if connection.key == (process, link):
                connection.finish()
        found = self.ledger.find(process, link)
        if found is not None and (process, link) in self._of_another:
            self._of_another.discard((process, link))
            self.store.drops.add(Drop.LOST, DEFAULT_PATTERN, max(0, found.given - received))
        self.ledger.close(process, link)
        return found

    def closed(self, connection: Connection) -> None:
        """Take notice that a client has gone. If it is the hub that ends, it comes back."""
        if not self.ended.done():
            self.ledger.close(*connection.key)

    def _cannot_accept(self, error: OSError) -> None:
        self.report(f"cannot accept a client: {error}")

    def _welcome(self, sock: socket.socket) -> None:
        self.tell_time()
        user = credentials(sock).uid
        if user not in self._users:
            self.report(f"a client of user id {user} is refused: {USERS}")
            _refuse(sock, f"user id {user} may not connect: {USERS}")
        elif len(self._connections) >= self.limits.connections:
            full = f"the hub has as many clients as it may ({CONNECTIONS})"
            self.report(f"a client is refused: {full}")
            _refuse(sock, full)
        else:
            sock.setblocking(False)
            self._connections[Connection(self, sock)] = None

    def listens_on(self, descriptor: int) -> bool:
        """Say whether a descriptor is of the socket that this hub listens on."""
        return os.path.sameopenfile(descriptor, self._listener.fileno())

    def forget(self, connection: Connection) -> None:
        """Take notice that a connection is closed."""
        self._connections.pop(connection, None)
        for flush in self._flushes:
            flush.waiting.discard(connection.out)
        self._end_flushes()

    def capacities(self, policy: Policy) -> Capacities:
        """Return what a policy means. Raises ValueError."""
        known = self._policies.get(policy)
        if known is None:
            if len(self._policies) >= _MAX_POLICIES:
                raise ValueError("there are too many different configurations of channel layers")
            known = self._policies[policy] = Capacities(policy)
        return known

    def flush_all(self, asker: Outbox) -> None:
        """Forget all messages and groups, and tell the client when all others have done so."""
        delivered = {
            one.out for one in self._connections if one.session and one.session.has_delivered
        }
        self._flushes.append(_Flush(asker, delivered, self.store.now + _CLEARING_TIME))
        self.store.flush()
        for session in self._sessions():
            session.forget_channels()
        self._end_flushes()

    def cleared(self, client: Outbox) -> None:
        """Take notice that a client has forgotten what was delivered to it."""
        for flush in self._flushes:
            if client in flush.waiting:
                flush.waiting.discard(client)
                break
        self._end_flushes()

    def _end_flushes(self) -> None:
        for flush in list(self._flushes):
            if not flush.waiting or flush.deadline <= self.store.now:
                self._flushes.remove(flush)
                if not flush.asker.closed:
                    flush.asker.tell(Kind.CLEAN)

    def flush(self) -> None:
        """Write to each client what was gathered for it."""
        while self.dirty:
            dirty, self.dirty = self.dirty, []
            for out in dirty:
                out.commit_given()
            self.ledger.risk(self.store.at_risk())
            for out in dirty:
                out.commit_done()
            for out in dirty:
                out.write()

    def report(self, text: str) -> None:
        """Warn, but not all the time."""
        now = time.monotonic()
        if now - self._reported >= _REPORT_INTERVAL:
            self._reported = now
            logger.warning("%s", text)

    # Time

    def tell_time(self) -> None:
        """Tell the store what time it is."""
        self.store.now = time.monotonic()

    def _tick(self) -> None:
        self._ticks += 1
        if self._giving is None:
            self._keep_house()
        if self._bulletin is not None:
            self._bulletin.beat()
        if self._has_watchdog and self._ticks % self._watchdog_each == 0:
            notify.send({"WATCHDOG": "1"})
        if not self.ended.done():
            self.loop.call_later(_TICK, self._tick)

    def _keep_house(self) -> None:
        self.tell_time()
        self.store.sweep()
        self._end_flushes()
        if self._ticks % _SWEEP_EACH == 0:
            self.store.sweep_all()
        for connection in list(self._connections):
            if connection.session is None and self.store.now - connection.born > _GREETING_TIME:
                connection.close()
        self.flush()
        if self._ticks % _REPORT_EACH == 0:
            self._report()

    def _report(self, at_once: bool = False) -> None:
        if self._reporter is not None:
            self._reporter.write(len(self._connections), at_once=at_once)

    def statistics(self) -> dict[str, object]:
        """Return what can be counted."""
        return {
            "pid": os.getpid(),
            "epoch": self.epoch,
            "uptime": round(time.monotonic() - self._began, 3),
            "connections": len(self._connections),
            "messages_in_hand": sum(len(session.held) for session in self._sessions()),
            **observation.statistics(self.store),
        }

    def _sessions(self) -> list[Session]:
        return [one.session for one in self._connections if one.session is not None]

    def _held(self) -> Iterator[tuple[Channel, Message]]:
        for session in self._sessions():
            yield from session.held.values()
        for channel, message, _ in self.store.unclaimed.values():
            yield channel, message

    # The end

    def close(self) -> None:
        """Close all connections; the listening socket belongs to whoever gave it."""
        self._report(at_once=True)
        self._acceptor.stop()
        if self.store.returning is not None:
            self.store.returning.close()
        for connection in list(self._connections):
            connection.close()

    def begin_handing_over(self, heir: socket.socket) -> None:
        """Let another hub take over, as soon as the clients are quiet."""
        if self._heir is not None or _has_gone(heir):
            heir.close()
            return
        self._heir = heir
        self._speak = {one.speaks for one in self._connections if one.speaks is not None}
        self.store.hands_out = False  # a client that is quiet could not say that it has it
        self._acceptor.stop()
        for connection in list(self._connections):
            connection.ask_for_quiet()
        self._deadline = time.monotonic() + _QUIET_TIME
        self.loop.call_soon(self._hand_over_if_quiet)

    def _hand_over_if_quiet(self) -> None:
        self.flush()
        waiting = [one for one in self._connections if not (one.is_quiet and one.out.drained)]
        if waiting and time.monotonic() < self._deadline:
            self.loop.call_later(0.002, self._hand_over_if_quiet)
            return
        for connection in waiting:  # frozen or not running: nothing of it is lost
            connection.close(keep_held=True)
        self.dirty.clear()
        self.tell_time()
        for connection in self._connections:
            connection.pause()  # what is given must not change meanwhile
        if self.store.returning is not None:
            self.store.returning.close()
            self.store.returning = None
        assert self._heir is not None
        self._giving = self.loop.create_task(self._give(self._heir))

    async def _give(self, heir: socket.socket) -> None:
        try:
            records = takeover.take_snapshot(self.store, self.epoch, self._held(), self._speak)
            await takeover.give(heir, self._listener, records)
            if not self.ended.done():  # else it was told to end meanwhile
                takeover.leave_to(heir)
                self.ended.set_result(True)
        except Exception as error:
            self._go_on(error)
        finally:
            heir.close()

    def _go_on(self, error: Exception) -> None:
        """Be the hub again. The clients connect again, as they would have to the other one."""
        logger.warning("the other hub did not take over (%s): continuing", error)
        self._heir = self._giving = None
        self.tell_time()
        for connection in list(self._connections):
            connection.close(keep_held=True)
        self.store.hands_out = True
        self._acceptor.start()


def _has_gone(heir: socket.socket) -> bool:
    """Say whether another hub has given up: it may have asked when nobody was here to answer."""
    try:
        return not heir.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True


def _refuse(sock: socket.socket, why: str) -> None:
    """Let a client know why it may not be one, if it reads that, and close its connection."""
    sock.setblocking(False)
    with contextlib.suppress(OSError):
        sock.send(pack(Kind.REFUSED, bytes((Reason.LIMIT,)) + why.encode()))
    sock.close()
