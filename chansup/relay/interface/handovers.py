"""WebSockets on their way from one worker of a pool to another: when each goes, and where to."""

import asyncio
import logging
import random
from collections.abc import Collection, Sequence
from typing import Protocol

from chansup.protocol import roster
from chansup.relay.interface.quarantine import Quarantine
from chansup.relay.interface.worker import Movable, Worker

CLOSED = ("closed", "service restart")  # result and reason of one that may not move
_CRASH_SPREAD = 0.5  # seconds, at most, over which the WebSockets of a dead worker find another
_DEPLOY_SHARE = 0.5  # of stop_timeout, at most, over which those of a draining worker move

_log = logging.getLogger("chansup.relay")


class HandoverPool(Protocol):
    """The pool, as its handovers see it."""

    settings: roster.Pool
    loop: asyncio.AbstractEventLoop
    quarantine: Quarantine
    choices: list[Worker]  # that may get something new
    homes: list[Worker]  # of these, those that do not leave soon, if there are any

    def may_leave(self, worker: Worker) -> bool:
        """Whether what `worker` has can go elsewhere."""

    def look_at(self, worker: Worker) -> None:
        """Let a draining worker go when nothing is left there."""


class Handovers:
    """The handovers of one pool."""

    def __init__(self, pool: HandoverPool) -> None:
        self._pool = pool
        self._homeless: set[Movable] = set()  # for whom there is no worker at all
        self._deadlines: dict[Movable, asyncio.TimerHandle] = {}  # of all that are on their way
        self._said: set[str] = set()  # why WebSockets do not move, as the log has it already

    def empty(self, worker: Worker) -> None:
        """Move the WebSockets of a draining worker, at the pace of handovers."""
        settings = self._pool.settings
        longest = settings.stop_timeout * _DEPLOY_SHARE
        moving = [one for one in _websockets(worker) if one.begin_to_move(worker)]
        random.shuffle(moving)
        staying = [one for one in moving if one.is_transparent]
        self._spread(staying, min(len(staying) / settings.handover_rate, longest), worker)
        closing = [one for one in moving if not one.is_transparent]
        self._spread(closing, min(settings.drain_spread, longest), worker)
        self._pool.look_at(worker)

    def _spread(self, websockets: Sequence[Movable], seconds: float, worker: Worker) -> None:
        for place, websocket in enumerate(websockets):
            delay = place / len(websockets) * seconds
            self._pool.loop.call_later(delay, websocket.leave, worker)

    def also_moves(self, websocket: Movable, worker: Worker) -> None:
        """Move a WebSocket that was accepted by a worker that drains already."""
        if self._pool.may_leave(worker) and websocket.begin_to_move(worker):
            self._pool.loop.call_soon(websocket.leave, worker)

    def rescue(self, websockets: Collection[Movable]) -> None:
        """Find a worker for those that have none, not for all at the same moment."""
        self._close_those_that_stay(websockets)
        lost = [websocket for websocket in websockets if websocket.needs_worker]
        spread = min(_CRASH_SPREAD, len(lost) / self._pool.settings.handover_rate)
        for place, websocket in enumerate(lost):
            self._pool.loop.call_later(place / len(lost) * spread, self.find_home, websocket)

    def _close_those_that_stay(self, websockets: Collection[Movable]) -> None:
        """Close those of a dead worker that may not move: nobody is behind them any more.

        A reconnect costs what a move costs, so they have the pace of moves.
        """
        closing = [websocket for websocket in websockets if websocket.is_to_close]
        settings = self._pool.settings
        spread = min(settings.drain_spread, len(closing) / settings.handover_rate)
        for place, websocket in enumerate(closing):
            delay = place / len(closing) * spread
            self._pool.loop.call_later(delay, websocket.give_up, *CLOSED)

    def say_once(self, reason: str) -> None:
        """Log why WebSockets are closed and not moved, once for each reason."""
        if reason and reason not in self._said:
            self._said.add(reason)
            _log.warning(
                "WebSockets of %s are closed with 1012 and not moved, for a new process would not "
                "know their session: %s. To overrule: [handover] move",
                self._pool.settings.name,
                reason,
            )

    def find_home(self, websocket: Movable) -> None:
        """Attach a WebSocket to a worker, now or as soon as there is one.

        A deploy may have changed the routes: then it goes where new ones go.
        """
        pool = self._pool
        if not websocket.needs_worker:
            return
        routes_count = websocket.reason == "deploy" or not pool.settings.routes
        if routes_count and not websocket.follow_routes(pool):
            return
        self._set_deadline(websocket)
        if not pool.choices:
            self._homeless.add(websocket)
        elif websocket.is_suspect:
            pool.quarantine.enter(websocket, lambda: self._try(websocket))
        else:
            websocket.attach(self._best(websocket))

    def _best(self, websocket: Movable) -> Worker:
        """Return the emptiest worker, of those that stay if there are any.

        It is not the one that the WebSocket comes from, unless there is no other.
        """
        pool, former = self._pool, websocket.moving_from
        homes = [worker for worker in pool.homes if worker is not former]
        others = homes or [worker for worker in pool.choices if worker is not former]
        places = others or pool.choices
        return min(places, key=lambda worker: (worker.load, random.random()))  # noqa: S311

    def _try(self, suspect: Movable) -> None:
        """Attach a suspect, now that it is its turn."""
        if suspect.needs_worker and self._pool.choices:
            suspect.attach(self._best(suspect))
            return
        self._pool.quarantine.leave(suspect)
        if suspect.needs_worker:
            self._homeless.add(suspect)

    def _set_deadline(self, websocket: Movable) -> None:
        """Give it `websocket_timeout` to be with a worker again, whatever comes between."""
        if websocket not in self._deadlines:
            self._deadlines[websocket] = self._pool.loop.call_later(
                self._pool.settings.websocket_timeout, self._give_up, websocket
            )

    def _give_up(self, websocket: Movable) -> None:
        self.forget(websocket)
        websocket.give_up("no_worker", "no worker")

    def forget(self, websocket: Movable) -> None:
        """Take notice that a WebSocket has a worker, or needs none any more."""
        self._homeless.discard(websocket)
        timer = self._deadlines.pop(websocket, None)
        if timer is not None:
            timer.cancel()

    def house(self) -> None:
        """Take notice that there is a worker for those who wait for one."""
        if self._homeless:
            homeless, self._homeless = self._homeless, set()
            self.rescue(homeless)


def _websockets(worker: Worker) -> list[Movable]:
    return [one.websocket for one in worker.streams.values() if one.websocket is not None]
