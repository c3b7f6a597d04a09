"""A pool of app workers, as the interface sees it: who gets the next request, and who waits."""

import asyncio
import time
from collections import deque
from collections.abc import Collection
from enum import Enum, auto
from typing import Protocol

from chansup.background import BackgroundTasks
from chansup.errors import ChansupError
from chansup.protocol import relay_board as board
from chansup.protocol import roster
from chansup.protocol.session_table import SessionTable
from chansup.relay.interface.affinity import Affinity, Session
from chansup.relay.interface.choice import emptiest, least_busy
from chansup.relay.interface.handovers import Handovers
from chansup.relay.interface.pool_counters import PoolCounters
from chansup.relay.interface.quarantine import Quarantine
from chansup.relay.interface.worker import Movable, Worker


class RejectedError(ChansupError):
    """No worker takes it. `reason` is one of `relay_board.REJECTIONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Directory(Protocol):
    """What a pool asks of the relay."""

    def place_of(
        self, kind: str, host: bytes | None, path: str
    ) -> "tuple[Pool, roster.Route] | None":
        """Return where a request or a WebSocket goes now."""

    def connection_lost(self) -> None:
        """Take notice that the connection to a worker is gone."""

    def greeted(self, worker: Worker, refusal: str = "") -> None:
        """Take notice that a worker answers, or why it can never be spoken to."""


class Waiting(Protocol):
    """Who waits for a worker."""

    turn: "asyncio.Future[Worker] | None"


class Stay(Enum):
    """How long somebody is to be with a worker: it decides which one."""

    PASSING = auto()  # a request
    MOVABLE = auto()  # a WebSocket: rather with a worker that stays
    FIXED = auto()  # a WebSocket that may not move: not with one that leaves soon, if others stay


class _Waiter:
    __slots__ = ("arrived", "session", "stay", "worker")

    def __init__(
        self,
        arrived: float,
        worker: "asyncio.Future[Worker]",
        stay: Stay,
        session: Session | None,
    ) -> None:
        self.arrived = arrived
        self.stay = stay
        self.session = session
        self.worker = worker


class Pool:
    """The workers of one pool, and the queue before them."""

    def __init__(
        self,
        settings: roster.Pool,
        counters: PoolCounters,
        loop: asyncio.AbstractEventLoop,
        directory: Directory,
        table: SessionTable | None = None,
    ) -> None:
        self._directory = directory
        self.settings = settings
        self.counters = counters
        self.loop = loop
        self.workers: dict[str, Worker] = {}  # by address
        self.choices: list[Worker] = []  # that may get something new, the longest idle first
        self.homes: list[Worker] = []  # of these, those that do not leave soon, if there are any
        self._queue: deque[_Waiter] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.dismissed: set[str] = set()  # addresses of workers that were let go
        self.strangers: set[str] = set()  # addresses of workers that speak another protocol
        self.failures: dict[str, int] = {}  # attempts in a row to work with one, by address
        self.quarantine = Quarantine(loop)
        self.affinity = Affinity(self, table)
        self.affinity.use(settings.sticky)
        self._change = 0  # of the workers that may get something
        self.handovers = Handovers(self)
        self.background = BackgroundTasks()

    # Requests

    def worker_at_once(
        self, stay: Stay = Stay.PASSING, session: Session | None = None
    ) -> Worker | None:
        """Return a worker with a permit taken, if nobody has to wait for one."""
        if self._queue and session is None:
            return None  # with a session, who waits has nothing to do with other workers' permits
        worker = self._free_one(stay, session)
        if worker is not None:
            self.counters.cells[board.WAITS] += 1
        return worker

    async def worker(
        self,
        arrived: float,
        waiting: Waiting,
        again: bool = False,
        stay: Stay = Stay.PASSING,
        session: Session | None = None,
    ) -> Worker:
        """Wait for a worker for one request, with a permit taken. Raises RejectedError.

        `arrived` is of the monotonic clock, in seconds. While it waits, `waiting.turn` is what it
        waits for. `again`: it had its place in the queue before, and goes first.
        """
        if len(self._queue) >= self.settings.queue_limit and not again:
            raise self._rejected("full")
        self.counters.add(board.WAITING)
        try:
            while True:
                worker = await self._turn(waiting, again, arrived, stay, session)
                if not worker.is_closed:
                    break
                again = True  # it went away before its turn was taken
        finally:
            waiting.turn = None
            self.counters.add(board.WAITING, -1)
        self.counters.waited(time.monotonic() - arrived)
        return worker

    async def _turn(
        self,
        waiting: Waiting,
        first: bool,
        arrived: float,
        stay: Stay,
        session: Session | None,
    ) -> Worker:
        waiter = _Waiter(arrived, self.loop.create_future(), stay, session)
        waiting.turn = waiter.worker
        (self._queue.appendleft if first else self._queue.append)(waiter)
        self._tell_need()
        if self._timer is None:
            self._expire()
        try:
            return await waiter.worker
        except BaseException:
            turn = waiter.worker
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                turn.result().release()
            elif waiter in self._queue:
                self._queue.remove(waiter)  # it went away: others may have its place
            raise

    def _rejected(self, reason: str) -> RejectedError:
        self.counters.rejected(reason)
        return RejectedError(reason)

    def _free_one(self, stay: Stay, session: Session | None) -> Worker | None:
        """Take a permit of the worker that fits best."""
        known = session.worker(self._change) if session is not None else None
        if known is not None:
            if not known.has_permit:
                return None
            known.used += 1
            return known
        if stay is Stay.PASSING:
            return least_busy(self.choices)
        worker = emptiest(self.homes)
        if worker is None and stay is Stay.MOVABLE:
            worker = least_busy(self.choices)
        return worker

    def serve(self) -> None:
        """Give permits that are free to those who wait."""
        while self._queue:
            if self._queue[0].worker.done():
                self._queue.popleft()  # it went away
                continue
            served = self._first_served()
            if served is None:
                return
            waiter, worker = served
            self._queue.remove(waiter)
            waiter.worker.set_result(worker)
        for worker in self.choices:
            worker.content()

    def _first_served(self) -> tuple[_Waiter, Worker] | None:
        """Return the first who can be served, with a permit taken. Not all may go everywhere."""
        tried = set()
        for waiter in self._queue:
            if waiter.worker.done():
                continue
            kind = waiter.stay, waiter.session and waiter.session.worker(self._change)
            if kind in tried:
                continue
            tried.add(kind)
            worker = self._free_one(waiter.stay, waiter.session)
            if worker is not None:
                return waiter, worker
            if waiter.stay is not Stay.FIXED and self.affinity.name is None:
                return None  # nobody else has more to choose from
        return None

    def released(self, worker: Worker) -> None:
        """Take notice that a worker has done with a request."""
        if self._queue:
            self.serve()
        if worker.draining:
            self.look_at(worker)

    def _tell_need(self) -> None:
        for worker in self.choices:
            worker.need(len(self._queue))

    def _expire(self) -> None:
        """Turn away who has waited for too long, and look again when the next one will have."""
        self._timer = None
        settings = self.settings
        limit = settings.queue_timeout if self.choices else settings.worker_timeout
        now = time.monotonic()
        while self._queue and self._queue[0].arrived + limit <= now:
            waiter = self._queue.popleft()
            if not waiter.worker.done():
                reason = "late" if self.choices else "no_worker"
                waiter.worker.set_exception(self._rejected(reason))
        if not self._queue:
            self.serve()
        else:
            pause = self._queue[0].arrived + limit - now
            self._timer = self.loop.call_later(max(0.001, pause), self._expire)

    # Workers

    @property
    def can_serve(self) -> bool:
        """Whether there is a worker at all."""
        return bool(self.choices)

    def change(self, settings: roster.Pool) -> None:
        """Take over what the roster says of the pool."""
        if settings != self.settings:
            self.settings = settings
            self.affinity.use(settings.sticky)
            if not settings.routes:
                self.close_down()
            self._choose()

    def worker_usable(self, worker: Worker) -> None:
        """Take notice that a worker answers."""
        self.failures.pop(worker.address, None)
        self._directory.greeted(worker)
        self._choose()

    def refuses(self, worker: Worker, reason: str) -> None:
        """Take notice that a worker speaks no version of the relay that this process speaks."""
        self.strangers.add(worker.address)
        self._directory.greeted(worker, reason)

    def worker_gone(self, worker: Worker) -> None:
        """Take notice that a worker does not answer any more."""
        if self.workers.get(worker.address) is worker:
            del self.workers[worker.address]
            if worker.address not in self.dismissed:
                self._directory.connection_lost()
        self._choose()

    def dismiss(self, worker: Worker) -> None:
        """Let go of a worker that the supervisor does not list any more."""
        if worker.usable and not worker.joining:
            self.drains(worker)  # its connection ends with it
        else:
            worker.close()

    def close_down(self) -> None:
        """Take notice that the pool serves no more: who waits goes where new requests go."""
        waiting, self._queue = self._queue, deque()
        for waiter in waiting:
            if not waiter.worker.done():
                waiter.worker.set_exception(RejectedError("no_route"))
        self.handovers.house()

    def drains(self, worker: Worker) -> None:
        """Take everything away from a worker, as soon as there is another one."""
        if not worker.draining:
            worker.draining = True
            self._choose()

    def _choose(self) -> None:
        greeted = [worker for worker in self.workers.values() if worker.usable]
        usable = [worker for worker in greeted if not worker.joining]
        ready = [worker for worker in usable if not worker.draining]
        self.choices = ready or usable
        self._change += 1
        self.homes = [one for one in self.choices if not one.leaves_soon] or list(self.choices)
        if self._timer is not None:
            self._timer.cancel()
            self._expire()
        for worker in usable:
            if worker.draining and self.may_leave(worker):
                self.handovers.empty(worker)
                self.affinity.part(worker)
        if self.choices or not self.settings.routes:
            self.handovers.house()
        if self._queue:
            self._tell_need()
            self.serve()

    def look_at(self, worker: Worker) -> None:
        """Let a draining worker go when nothing is left there."""
        if worker.streams or worker.used or worker.is_closed or not self.may_leave(worker):
            return
        self.dismissed.add(worker.address)
        worker.close()

    def listed(self, listed: list[roster.Worker]) -> None:
        """Take over what the roster says of the workers."""
        everywhere = sum(one.websockets for one in listed)
        here = sum(worker.websockets for worker in self.workers.values())
        share = min(1.0, here / everywhere) if everywhere else 1.0
        for one in listed:
            worker = self.workers.get(one.address)
            if worker is not None:
                worker.update(one, share)
                worker.draining = worker.draining or one.state == "draining"
                worker.joining = one.state == "joining"
        self._choose()

    def may_leave(self, worker: Worker) -> bool:
        """Whether what `worker` has can go elsewhere: it waits for those that greet just now."""
        if not self.settings.routes:
            return True
        others = any(other is not worker and not other.draining for other in self.choices)
        return others and not any(other.is_awaited for other in self.workers.values())

    def rescue(self, websockets: Collection[Movable]) -> None:
        """Find another worker for the WebSockets of one that is gone."""
        self.handovers.rescue(websockets)

    def place_of(
        self, kind: str, host: bytes | None, path: str
    ) -> "tuple[Pool, roster.Route] | None":
        """Return where a request or a WebSocket goes now."""
        return self._directory.place_of(kind, host, path)
