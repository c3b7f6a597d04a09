"""One WebSocket on its way from worker to worker: how it begins at each, leaves it, and ends."""

import time
from collections.abc import Callable, Coroutine
from typing import Any

from chansup.handover.mobility import Mobility
from chansup.protocol import relay_board as board
from chansup.protocol import roster, sessions
from chansup.relay import scopes
from chansup.relay.frames import FAILED, FINISHED
from chansup.relay.interface.attachment import Attachment
from chansup.relay.interface.client import Receive, Send
from chansup.relay.interface.handovers import CLOSED
from chansup.relay.interface.passage import INTERNAL_ERROR, POLICY, Passage
from chansup.relay.interface.phases import HAS_WORKER, NEEDS_WORKER, PAUSED, Event, Phase
from chansup.relay.interface.pool import Pool
from chansup.relay.interface.process_counters import ProcessCounters
from chansup.relay.interface.standing import Standing
from chansup.relay.interface.suspicion import Suspicion
from chansup.relay.interface.worker import Worker

# RFC 6455, section 7.4, and IANA's registry
NORMAL, SERVICE_RESTART, TRY_AGAIN_LATER = 1000, 1012, 1013


class Journey:
    """The way of one WebSocket. Handovers and quarantine know the WebSocket as this."""

    __slots__ = (
        "_count", "_id", "_mobility", "_on_moved", "_paused_at", "_process_counters",
        "_standing", "_subprotocol", "_suspicion", "checkpoint", "moving_from", "passage",
        "reason", "refusal",
    )  # fmt: skip

    def __init__(
        self,
        id: str,
        standing: Standing,
        route: roster.Route,
        receive: Receive,
        send: Send,
    ) -> None:
        self._id = id  # of no other WebSocket on this machine
        self._standing = standing
        self._mobility = Mobility(route.handover)
        self._suspicion = Suspicion(standing, self)
        self.passage = Passage(self, standing, self._suspicion, route.redeliver, receive, send)
        self._subprotocol: str | None = None
        self._process_counters: ProcessCounters | None = None
        self._count = 0  # handovers
        self._on_moved: Callable[[str], None] | None = None  # called once, with the result
        self._paused_at = 0.0  # monotonic
        self.checkpoint: Any = None
        self.moving_from: Worker | None = None
        self.reason = "deploy"  # of the handover under way
        self.refusal: str | None = None  # result of a handshake that is to be answered so

    def count_in(self, process_counters: ProcessCounters) -> None:
        """Take what it is counted in when it is accepted."""
        self._process_counters = process_counters

    # Questions

    @property
    def needs_worker(self) -> bool:
        """Whether it looks for a worker."""
        is_without = self._standing.phase in NEEDS_WORKER
        return is_without and (self.is_transparent or not self._standing.accepted)

    @property
    def is_transparent(self) -> bool:
        """Whether another worker may continue with it, as was decided when it last mattered."""
        return self._mobility.verdict.moves

    @property
    def is_to_close(self) -> bool:
        """Whether its worker is gone, and no other one may continue with it."""
        return self._standing.phase is Phase.BETWEEN and not self.is_transparent

    @property
    def is_suspect(self) -> bool:
        """Whether so many workers died with it that it is tried alone."""
        return self._suspicion.is_strong

    @property
    def is_fixed(self) -> bool:
        """Whether its route wants it closed, and not moved."""
        return self._mobility.route == "close"

    def works_at(self, attachment: Attachment) -> bool:
        """Whether it is open, and `attachment` is where."""
        return self._standing.phase is Phase.OPEN and self._standing.attachment is attachment

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end."""
        self._standing.pool.background.start(work)

    # To a worker

    def attach(self, worker: Worker) -> None:
        """Begin at a worker."""
        standing = self._standing
        standing.move_on(Event.FOUND)
        reason = self.reason if self._count else None
        resumption = scopes.Resumption(self._id, self._count, reason, self.checkpoint)
        opening = scopes.opening(resumption, standing.scope_bytes)
        before = self.passage.had_before
        standing.attachment = Attachment(self, self.passage, worker, before, opening)

    def app_accepts(
        self, attachment: Attachment, subprotocol: str | None, headers: scopes.Headers
    ) -> None:
        """Open it for the client, or continue after a handover."""
        standing = self._standing
        standing.release_permit()
        word, headers = sessions.word_of(headers)
        self._mobility.app_decides(word)
        if standing.phase is Phase.CONNECTING:
            assert standing.scope is not None
            assert self._process_counters is not None
            self._mobility.accepted(standing.scope, subprotocol)
            standing.scope = None
            self._subprotocol = subprotocol
            standing.accepted = True
            self._process_counters.accepted()
            self.passage.client.put(
                {"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers}
            )
        elif standing.phase is not Phase.REJOINING:
            return
        elif subprotocol != self._subprotocol:
            standing.tell_disconnect(SERVICE_RESTART, b"subprotocol")
            self.end("subprotocol", SERVICE_RESTART, "service restart")
            return
        else:
            self._settle("moved", time.monotonic() - self._paused_at)
        standing.move_on(Event.ACCEPTED)
        standing.pool.handovers.forget(self)
        self.moving_from = None
        self.passage.resume()
        if attachment.worker.draining:
            standing.pool.handovers.also_moves(self, attachment.worker)

    def app_decides(self, word: sessions.Handover) -> None:
        """Take the app's word on whether it may move."""
        self._mobility.app_decides(word)

    # Away from a worker

    def begin_to_move(self, worker: Worker) -> bool:
        """Say whether it is to leave `worker`, and was not told so before."""
        if self._standing.phase is not Phase.OPEN or self.moving_from is worker:
            return False
        self.moving_from = worker
        self._decide()
        return True

    def _decide(self) -> None:
        """Decide, with present knowledge, whether it may move."""
        self._mobility.decide(self._standing.pool.settings.rules)

    def move(self, on_moved: Callable[[str], None]) -> str:
        """Go to another worker though its own stays. Say "begun", or why that cannot be.

        `on_moved` is called with the result, one of `relay_board.HANDOVERS`.
        """
        standing = self._standing
        attachment = standing.attachment
        if standing.phase is not Phase.OPEN or attachment is None:
            return "early"
        if not standing.pool.may_leave(attachment.worker):
            return "alone"
        self._on_moved = on_moved
        if self.begin_to_move(attachment.worker):
            standing.pool.loop.call_soon(self.leave, attachment.worker)
        return "begun"

    def _settle(self, result: str, pause: float) -> None:
        """Count a handover that came to its end, and tell who waits for it."""
        self._standing.pool.counters.handed_over(self.reason, result, pause)
        on_moved, self._on_moved = self._on_moved, None
        if on_moved is not None:
            on_moved(result)

    def leave(self, worker: Worker) -> None:
        """Ask the app at `worker` to let it go."""
        standing = self._standing
        attachment = standing.attachment
        if standing.phase is not Phase.OPEN or attachment is None:
            return
        if attachment.worker is not worker:
            return
        if not standing.pool.may_leave(worker):
            self.moving_from = None  # as soon as there is another one
            return
        standing.move_on(Event.ASKED_TO_LEAVE)
        self._paused_at = time.monotonic()
        self.reason = "deploy"
        self._decide()
        attachment.leave(for_good=not self.is_transparent)

    def app_returned(self, attachment: Attachment, flags: int, given: int) -> None:
        """Take notice that the app has returned; `given` is the last message that it had."""
        standing = self._standing
        if standing.attachment is not attachment:
            return
        standing.detach()
        failed = bool(flags & FAILED)
        if standing.phase is Phase.LEAVING and flags & FINISHED:
            self.passage.part(given, failed)
            standing.move_on(Event.LET_GO)
            self._begin_anew()
            standing.pool.handovers.find_home(self)
        elif standing.phase is Phase.CONNECTING:
            self.end("denied", INTERNAL_ERROR, "")
        elif standing.phase is Phase.REJOINING:
            self.end("denied", INTERNAL_ERROR if failed else POLICY, "")
        else:
            self.end("left", INTERNAL_ERROR if failed else NORMAL, "")

    def worker_lost(self, attachment: Attachment) -> None:
        """Take notice that the worker is gone."""
        standing = self._standing
        if standing.attachment is not attachment or standing.phase not in HAS_WORKER:
            return
        standing.detach()
        self._decide()
        if standing.phase is Phase.CONNECTING or standing.phase is Phase.REJOINING:
            if not self._has_killed():
                standing.move_on(Event.WORKER_DIED)
                self._paused_at = self._paused_at or time.monotonic()
            return
        if standing.phase is Phase.OPEN:
            self._paused_at = time.monotonic()
        self.reason = "crash"
        if self.passage.is_in_hand:
            if self.passage.redeliver and self._has_killed():
                return
            self.passage.keep_or_lose()
        standing.move_on(Event.WORKER_DIED)
        self._begin_anew()

    def _has_killed(self) -> bool:
        """Count a worker that died with something of it in hand. Say whether that was the last."""
        if not self._suspicion.died_again():
            return False
        self.end("poison", INTERNAL_ERROR, "")
        return True

    # Between two workers

    def _begin_anew(self) -> None:
        """Go to another worker, if it is to."""
        if self._standing.left_with is not None and not self.passage.has_pending:
            self.end("left")
        elif self.is_transparent:
            self._count += 1
        elif self.reason == "deploy":  # after a crash, `Handovers.rescue` sets the pace
            self._standing.pool.loop.call_soon(self.give_up, *CLOSED)

    def follow_routes(self, pool: object) -> bool:
        """Take over what the routes say now. Say whether it is to continue in `pool`."""
        standing = self._standing
        place = standing.pool.place_of("websocket", *standing.host_and_path())
        if place is None:
            self.give_up("closed", "no route")
            return False
        if place[0] is not pool:
            self._change_pool(*place)
            return False
        self.follow(place[1])
        return True

    def _change_pool(self, pool: Pool, route: roster.Route) -> None:
        """Go to a worker of another pool: its own serves no more."""
        standing = self._standing
        standing.pool.handovers.forget(self)
        for one, present in ((standing.pool, -1), (pool, 1)):
            one.counters.add(board.PAUSED, present * (standing.phase in PAUSED))
            one.counters.add(board.HELD, present * self.passage.is_held)
        standing.pool = pool
        self.follow(route)
        pool.handovers.find_home(self)

    def follow(self, route: roster.Route) -> None:
        """Take over what its route says from now on."""
        self._mobility.route = route.handover
        self.passage.redeliver = route.redeliver

    # The end

    def give_up(self, result: str, reason: str) -> None:
        """Close it: no worker appeared in time, nothing serves it any more, or so it is wanted."""
        verdict = self._mobility.verdict
        if result == "closed" and verdict.is_session and not self._standing.is_over:
            result = "session"
            self._standing.pool.handovers.say_once(verdict.reason)
        code = TRY_AGAIN_LATER if result == "no_worker" else SERVICE_RESTART
        self._standing.tell_disconnect(code, reason.encode())
        self.end(result, code, reason)

    def end(self, result: str, code: int | None = None, reason: str = "") -> None:
        """End it. `code`: tell the client, if it is still there."""
        standing = self._standing
        if standing.is_over:
            return
        standing.code = standing.code or code or 0
        was_open = standing.is_open_for_client
        if standing.phase in PAUSED:
            self._settle(result, 0.0)
        self.passage.count_lost()
        standing.pool.handovers.forget(self)
        self._suspicion.end()
        standing.move_on(Event.ENDED)
        client = self.passage.client
        if code is not None and standing.left_with is None:
            if was_open or result == "left":
                client.put({"type": "websocket.close", "code": code, "reason": reason})
            else:
                self.refusal = result
        client.wake()
