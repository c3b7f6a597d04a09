"""One WebSocket on its way through the relay, from one worker to the next.

One message of the client is under way at a time: it is kept here until the app has asked for more.
So whatever happens to a worker, this side knows which message may have been lost with it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any

import msgspec

from chansup.protocol import relay_board as board
from chansup.protocol import roster, sessions
from chansup.relay import scopes
from chansup.relay.frames import AGAIN, END, FAILED, FINISHED, FrameError, Kind
from chansup.relay.interface.answers import EXPLANATIONS, answer
from chansup.relay.interface.attachment import Attachment
from chansup.relay.interface.books import Books
from chansup.relay.interface.client import ABNORMAL, Client
from chansup.relay.interface.handovers import CLOSED
from chansup.relay.interface.phases import (
    COURSE,
    HAS_WORKER,
    NEEDS_WORKER,
    OPEN_FOR_CLIENT,
    PAUSED,
    Happening,
    Phase,
)
from chansup.relay.interface.pool import Pool, Rejected, Stay
from chansup.relay.interface.quarantine import MAX_DEATHS, SUSPICIOUS
from chansup.relay.interface.request import host_of
from chansup.relay.interface.worker import Worker

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# RFC 6455, section 7.4, and IANA's registry
NORMAL, POLICY, TOO_BIG = 1000, 1008, 1009
INTERNAL_ERROR, SERVICE_RESTART, TRY_AGAIN_LATER = 1011, 1012, 1013

_DENIALS: dict[str, tuple[int, str, int | None]] = {  # status, text, Retry-After
    "denied": (500, "Internal Server Error", None),
    "poison": (502, "the process that worked on it died", None),
    "no_worker": (503, EXPLANATIONS["no_worker"], 1),
    "closed": (503, EXPLANATIONS["no_worker"], 1),
    "session": (503, EXPLANATIONS["no_worker"], 1),
}

_log = logging.getLogger("chansup.relay")


class WebSocket:
    """A WebSocket, from its handshake to its end."""

    __slots__ = (
        "_books", "_client", "_client_left_with", "_code", "_count", "_deaths", "_denial",
        "_handshake", "_held", "_id", "_number", "_pending", "_permit_of", "_phase",
        "_pool", "_receive", "_redeliver", "_route_handover", "_scope", "_scope_bytes", "_send",
        "_subprotocol", "_verdict", "_word", "accepted", "attachment", "checkpoint", "moving_from",
        "on_moved", "paused_at", "reason", "turn",
    )  # fmt: skip

    def __init__(
        self,
        id: str,
        pool: Pool,
        route: roster.Route,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._id = id  # of no other WebSocket on this machine
        self._pool = pool
        self._route_handover = route.handover
        self._redeliver = route.redeliver
        self._scope: Scope | None = scope  # until it is accepted
        self._scope_bytes = b""
        self._receive = receive
        self._send = send
        self._client = Client(self, receive, send, pool.loop)
        self._phase = Phase.SEEKING
        self.attachment: Attachment | None = None  # where it is
        self._permit_of: Worker | None = None
        self._number = 0  # messages of the client so far
        self._pending: tuple[int, bytes] | None = None  # flags and payload of the newest of these
        self._held = False  # it waits for the end of a handover
        self._denial: tuple[int, str, int | None] | None = None  # how to answer the handshake
        self._subprotocol: str | None = None
        self._handshake: sessions.Handshake | None = None  # once it is accepted
        self._word: sessions.Handover | None = None  # the newest of an app, on whether it may move
        self._verdict = sessions.Verdict(True)
        self.accepted = False
        self._code = 0  # close code, as soon as it is known
        self._books: Books
        self._count = 0  # handovers
        self.checkpoint: Any = None
        self._deaths = 0  # of workers in a row that had something of it in hand
        self._client_left_with: tuple[int, bytes] | None = None
        self.moving_from: Worker | None = None
        self.on_moved: Callable[[str], None] | None = None  # called once, with the result
        self.turn: asyncio.Future[Worker] | None = None
        self.paused_at = 0.0  # monotonic
        self.reason = "deploy"  # of the handover under way

    # Its course

    async def run(self, books: Books) -> None:
        """Bring it to a worker, and pass on what the workers say."""
        books.came(self)
        self._books = books
        try:
            await self._run()
        except asyncio.CancelledError:
            if not books.traffic.is_cut:
                raise
        finally:
            books.went(self, self.accepted, self._code)

    async def _run(self) -> None:
        assert self._scope is not None
        message = await self._receive()
        if message["type"] != "websocket.connect":
            return
        arrived = time.monotonic()
        try:
            self._scope_bytes = scopes.encode_websocket(self._scope, arrived)
        except scopes.ScopeError:
            await self._answer(400, "the handshake cannot be relayed")
            return
        if len(self._scope_bytes) > scopes.MAX_SCOPE:
            await self._answer(431, "the header fields are too large")
            return
        self._client.begin_to_read()
        try:
            try:
                worker = await self._find_worker(arrived)
            except Rejected as rejected:
                if self._client_left_with is None:
                    await self._answer(503, EXPLANATIONS[rejected.reason], 1)
                return
            self._permit_of = worker
            self.attach(worker)
            await self._client.write()
            if self._denial is not None:
                await self._answer(*self._denial)
        finally:
            self._finish()

    async def _find_worker(self, arrived: float) -> Worker:
        while True:
            pool = self._pool
            try:
                stay = Stay.FIXED if self._route_handover == "close" else Stay.MOVABLE
                assert self._scope is not None
                session = pool.affinity.session(self._scope)
                worker = pool.worker_at_once(stay, session)
                worker = worker or await pool.worker(arrived, self, stay=stay, session=session)
                if session is not None:
                    session.begun(pool.counts)
                return worker
            except Rejected as rejected:
                place = pool.place_of("websocket", *self.host_and_path())
                if rejected.reason != "no_route" or place is None or place[0] is pool:
                    raise
                self._pool, route = place
                self.follow(route)

    def _move_on(self, happening: Happening) -> None:
        before, self._phase = self._phase, COURSE[self._phase][happening]
        counts = self._pool.counts
        if (before in PAUSED) != (self._phase in PAUSED):
            counts.add(board.PAUSED, 1 if self._phase in PAUSED else -1)
        if (before is Phase.OPEN) != (self._phase is Phase.OPEN):
            counts.add(board.ATTACHED, 1 if self._phase is Phase.OPEN else -1)

    def close(self) -> None:
        """Have the client come back elsewhere: this process ends."""
        if self._phase in OPEN_FOR_CLIENT:
            self._tell_disconnect(SERVICE_RESTART, b"service restart")
            self._end("left", SERVICE_RESTART, "service restart")

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end."""
        self._pool.background(work)

    # Questions

    @property
    def needs_worker(self) -> bool:
        """Whether it looks for a worker."""
        return self._phase in NEEDS_WORKER and (self.is_transparent or not self.accepted)

    @property
    def is_transparent(self) -> bool:
        """Whether another worker may continue with it, as was decided when it last mattered."""
        return self._verdict.moves

    @property
    def is_to_close(self) -> bool:
        """Whether its worker is gone, and no other one may continue with it."""
        return self._phase is Phase.BETWEEN and not self.is_transparent

    @property
    def is_suspect(self) -> bool:
        """Whether so many workers died with it that it is tried alone."""
        return self._deaths >= SUSPICIOUS

    @property
    def is_over(self) -> bool:
        """Whether it has ended, for the client and for the workers."""
        return self._phase is Phase.OVER

    @property
    def is_writing(self) -> bool:
        """Whether something waits for the client, which may be slow."""
        return self._client.is_writing

    def works_at(self, attachment: Attachment) -> bool:
        """Whether it is open, and `attachment` is where."""
        return self._phase is Phase.OPEN and self.attachment is attachment

    def host_and_path(self) -> tuple[bytes | None, str]:
        """Return what its route was found by."""
        fields = scopes.decode_websocket_scope(self._scope_bytes)
        return host_of(fields.headers), fields.path

    # From worker to worker

    def attach(self, worker: Worker) -> None:
        """Begin at a worker."""
        self._move_on(Happening.FOUND)
        reason = self.reason if self._count else None
        resumption = scopes.Resumption(self._id, self._count, reason, self.checkpoint)
        before = self._number - (self._pending is not None)
        opening = scopes.opening(resumption, self._scope_bytes)
        self.attachment = Attachment(self, worker, before, opening)

    def begin_to_move(self, worker: Worker) -> bool:
        """Say whether it is to leave `worker`, and was not told so before."""
        if self._phase is not Phase.OPEN or self.moving_from is worker:
            return False
        self.moving_from = worker
        self._decide()
        return True

    def _decide(self) -> None:
        """Decide, with present knowledge, whether it may move."""
        if self._handshake is not None:
            rules = self._pool.settings.rules
            handshake, handover = self._handshake, self._route_handover
            self._verdict = sessions.decide(handshake, rules, handover, self._word)

    def app_decides(self, word: sessions.Handover) -> None:
        """Take the app's word on whether it may move."""
        self._word = word

    def move(self, on_moved: Callable[[str], None]) -> str:
        """Go to another worker though its own stays. Say "begun", or why that cannot be.

        `on_moved` is called with the result, one of `relay_board.HANDOVERS`.
        """
        attachment = self.attachment
        if self._phase is not Phase.OPEN or attachment is None:
            return "early"
        if not self._pool.may_leave(attachment.worker):
            return "alone"
        self.on_moved = on_moved
        if self.begin_to_move(attachment.worker):
            self._pool.loop.call_soon(self.leave, attachment.worker)
        return "begun"

    def _settle(self, result: str, pause: float) -> None:
        """Count a handover that came to its end, and tell who waits for it."""
        self._pool.counts.handed_over(self.reason, result, pause)
        on_moved, self.on_moved = self.on_moved, None
        if on_moved is not None:
            on_moved(result)

    def leave(self, worker: Worker) -> None:
        """Ask the app at `worker` to let it go."""
        attachment = self.attachment
        if self._phase is not Phase.OPEN or attachment is None or attachment.worker is not worker:
            return
        if not self._pool.may_leave(worker):
            self.moving_from = None  # as soon as there is another one
            return
        self._move_on(Happening.ASKED_TO_LEAVE)
        self.paused_at = time.monotonic()
        self.reason = "deploy"
        self._decide()
        attachment.leave(for_good=not self.is_transparent)

    def change_pool(self, pool: Pool, route: roster.Route) -> None:
        """Go to a worker of another pool: its own serves no more."""
        self._pool.handovers.forget(self)
        former, self._pool = self._pool.counts, pool
        for gauge, present in ((board.PAUSED, self._phase in PAUSED), (board.HELD, self._held)):
            former.add(gauge, -present)
            pool.counts.add(gauge, present)
        self.follow(route)
        pool.handovers.find_home(self)

    def follow(self, route: roster.Route) -> None:
        """Take over what its route says from now on."""
        self._route_handover = route.handover
        self._redeliver = route.redeliver

    def give_up(self, result: str, reason: str) -> None:
        """Close it: no worker appeared in time, nothing serves it any more, or so it is wanted."""
        if result == "closed" and self._verdict.is_session and self._phase is not Phase.OVER:
            result = "session"
            self._pool.handovers.say_once(self._verdict.reason)
        code = TRY_AGAIN_LATER if result == "no_worker" else SERVICE_RESTART
        self._tell_disconnect(code, reason.encode())
        self._end(result, code, reason)

    def worker_lost(self, attachment: Attachment) -> None:
        """Take notice that the worker is gone."""
        if self.attachment is not attachment or self._phase not in HAS_WORKER:
            return
        self._detach()
        self._decide()
        if self._phase is Phase.CONNECTING or self._phase is Phase.REJOINING:
            if self._died_again():
                self._move_on(Happening.WORKER_DIED)
                self.paused_at = self.paused_at or time.monotonic()
            return
        if self._phase is Phase.OPEN:
            self.paused_at = time.monotonic()
        self.reason = "crash"
        if self._pending is not None and not self._held and not self._keep_for_another():
            return
        self._move_on(Happening.WORKER_DIED)
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Between two workers: go to another one, if it is to."""
        if self._client_left_with is not None and self._pending is None:
            self._end("left")
        elif self.is_transparent:
            self._count += 1
        elif self.reason == "deploy":  # after a crash, `Handovers.rescue` sets the pace
            self._pool.loop.call_soon(self.give_up, *CLOSED)

    def _keep_for_another(self) -> bool:
        """Keep the message that a dead worker had in hand, or lose it. Say whether it continues."""
        if self._redeliver and not self._died_again():
            return False
        self._lose_or_keep()
        return True

    def _lose_or_keep(self) -> None:
        """Count the message in hand as lost, or keep it for another worker."""
        assert self._pending is not None
        if self._redeliver:
            flags, payload = self._pending
            self._pending = flags | AGAIN, payload
            self._hold(True)
        else:
            self._pool.counts.add(board.LOST)
            self._forget_pending()

    def _died_again(self) -> bool:
        """Count a worker that died with something of it in hand. Say whether it may continue."""
        self._deaths += 1
        self._pool.quarantine.leave(self)
        if self._deaths < MAX_DEATHS:
            return True
        self._pool.counts.add(board.POISON)
        _log.error(
            "poison: WebSocket %s: %d workers of %s died with it, it is closed",
            self.host_and_path()[1],
            self._deaths,
            self._pool.settings.name,
        )
        self._end("poison", INTERNAL_ERROR, "")
        return False

    def _clear(self) -> None:
        """Take notice that a worker has survived it."""
        if self._deaths:
            self._deaths = 0
            self._pool.quarantine.leave(self)

    def _detach(self) -> None:
        self.attachment = None
        self._release_permit()

    def _release_permit(self) -> None:
        worker, self._permit_of = self._permit_of, None
        if worker is not None:
            worker.release()

    # What the app does

    def app_accepts(
        self, attachment: Attachment, subprotocol: str | None, headers: scopes.Headers
    ) -> None:
        """Open it for the client, or continue after a handover."""
        self._release_permit()
        word, headers = sessions.word_of(headers)
        self._word = word or self._word
        if self._phase is Phase.CONNECTING:
            assert self._scope is not None
            self._handshake = _handshake(self._scope, subprotocol)
            self._scope = None
            self._subprotocol = subprotocol
            self.accepted = True
            self._books.accepted()
            self._client.put(
                {"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers}
            )
        elif self._phase is not Phase.REJOINING:
            return
        elif subprotocol != self._subprotocol:
            self._tell_disconnect(SERVICE_RESTART, b"subprotocol")
            self._end("subprotocol", SERVICE_RESTART, "service restart")
            return
        else:
            pause = time.monotonic() - self.paused_at
            self._settle("moved", pause)
        self._move_on(Happening.ACCEPTED)
        self._resume()
        if attachment.worker.draining:
            self._pool.handovers.also_moves(self, attachment.worker)

    def _resume(self) -> None:
        self._pool.handovers.forget(self)
        self.moving_from = None
        if self._pending is None:
            self._clear()
            self.sent()
        else:
            if self._pending[0] & AGAIN:
                self._pool.counts.add(board.REDELIVERED)
            self._transmit()

    def app_sends(self, attachment: Attachment, event: Message, size: int) -> None:
        """Pass a message on. `size` bytes of it were not reported as consumed yet."""
        if self._phase is Phase.OPEN or self._phase is Phase.LEAVING:
            self._client.put(event, size, attachment)

    def app_sends_too_much(self, attachment: Attachment) -> None:
        """Close it: such a message is not kept in memory."""
        if self._phase in OPEN_FOR_CLIENT:
            _log.error("WebSocket %s: the app sent too large a message", self.host_and_path()[1])
            attachment.disconnect(TOO_BIG, b"")
            self._end("left", TOO_BIG, "")

    def app_asks(self, number: int | None = None) -> None:
        """Take notice that it has dealt with a message, the newest if `number` is None."""
        if self._pending is not None and number in (None, self._number):
            self._clear()
            self._forget_pending()

    def app_closes(self, code: int, reason: str) -> None:
        """Close it; after a handover that is a refusal."""
        if self._phase is Phase.REJOINING:
            self._end("denied", code if 3000 <= code < 5000 else POLICY, reason)
        else:
            self._end("left", code if _may_be_sent(code) else INTERNAL_ERROR, reason)

    def app_denies(self, attachment: Attachment, kind: int, flags: int, payload: bytes) -> None:
        """Pass on an HTTP response instead of an acceptance. Raises FrameError."""
        self._release_permit()
        if self._phase is Phase.REJOINING:
            self._end("denied", POLICY, "")
        if self._phase is not Phase.CONNECTING:
            return
        if kind == Kind.START:
            try:
                head = scopes.decode_head(payload)
            except msgspec.DecodeError as error:
                raise FrameError(f"no denial: {error}") from None
            self._client.put(
                {
                    "type": "websocket.http.response.start",
                    "status": head.status,
                    "headers": head.headers,
                }
            )
            return
        is_last = bool(flags & END)
        body = {
            "type": "websocket.http.response.body",
            "body": payload,
            "more_body": not is_last,
        }
        self._client.put(body, len(payload), attachment)
        if is_last:
            self._move_on(Happening.ENDED)

    def app_returned(self, attachment: Attachment, flags: int, given: int) -> None:
        """Take notice that the app has returned; `given` is the last message that it had."""
        if self.attachment is not attachment:
            return
        self._detach()
        failed = bool(flags & FAILED)
        if self._phase is Phase.LEAVING and flags & FINISHED:
            if self._pending is not None:
                if given != self._number:
                    self._hold(True)
                elif failed:
                    self._lose_or_keep()  # it was cut off in the midst of it
                else:
                    self._forget_pending()
            self._move_on(Happening.LET_GO)
            self._begin_anew()
            self._pool.handovers.find_home(self)
        elif self._phase is Phase.CONNECTING:
            self._end("denied", INTERNAL_ERROR, "")
        elif self._phase is Phase.REJOINING:
            self._end("denied", INTERNAL_ERROR if failed else POLICY, "")
        else:
            self._end("left", INTERNAL_ERROR if failed else NORMAL, "")

    # What the client sends

    @property
    def has_pending(self) -> bool:
        """Whether its newest message is not dealt with yet: the next one has to wait."""
        return self._pending is not None

    def client_says(self, flags: int, payload: bytes) -> None:
        """Take its next message."""
        self._pending = flags, payload
        self._number += 1
        if self._phase is Phase.OPEN:
            self._transmit()
        else:
            self._hold(True)
            if self.is_to_close:  # whoever speaks shall not wait for an answer that cannot come
                self.give_up(*CLOSED)

    def _transmit(self) -> None:
        """Send the client's newest message to the worker."""
        assert self._pending is not None
        assert self.attachment is not None
        if self._held:
            self._hold(False)
        flags, payload = self._pending
        if self.attachment.send(flags, self._number, payload):
            self.sent()

    def sent(self) -> None:
        """Take notice that the worker has all that the client sent."""
        if self._client_left_with is not None:
            self._tell_disconnect(*self._client_left_with)
            self._end("left")

    def _forget_pending(self) -> None:
        self._pending = None
        if self._held:
            self._hold(False)
        self._client.make_room()

    def _hold(self, held: bool) -> None:
        if held != self._held:
            self._held = held
            self._pool.counts.add(board.HELD, 1 if held else -1)

    def client_left(self, code: int, reason: bytes) -> None:
        """Take notice that the client is gone."""
        self._client_left_with = code, reason
        self._code = self._code or code
        if self.turn is not None and not self.turn.done():
            self.turn.set_exception(Rejected("no_worker"))
        if self._phase in PAUSED and self._pending is not None:
            return  # another worker shall have its last message
        if self._phase is Phase.LEAVING:
            return  # the app says goodbye already
        if self.attachment is not None and self.attachment.is_sending:
            return  # the end of its last message first
        self._tell_disconnect(code, reason)
        self._end("left")

    def _tell_disconnect(self, code: int, reason: bytes) -> None:
        if self.attachment is not None:
            self.attachment.disconnect(code, reason)

    async def _answer(self, status: int, text: str, retry_after: int | None = None) -> None:
        assert self._scope is not None
        await answer(self._scope, self._send, status, text, retry_after)

    # The end

    def _end(self, result: str, code: int | None = None, reason: str = "") -> None:
        """End it. `code`: tell the client, if it is still there."""
        if self._phase is Phase.OVER:
            return
        self._code = self._code or code or 0
        was_open = self._phase in OPEN_FOR_CLIENT
        if self._phase in PAUSED:
            self._settle(result, 0.0)
        if self._held and self._pending is not None:
            self._pool.counts.add(board.LOST)
        self._pool.handovers.forget(self)
        if self._deaths:
            self._pool.quarantine.leave(self)
        self._move_on(Happening.ENDED)
        if code is not None and self._client_left_with is None:
            if was_open or result == "left":
                self._client.put({"type": "websocket.close", "code": code, "reason": reason})
            else:
                self._denial = _DENIALS[result]
        self._client.wake()

    def _finish(self) -> None:
        """Leave nothing behind, however it ended."""
        self._client.end_reading()
        if self._phase is not Phase.OVER:
            if self._client_left_with is None:
                self._tell_disconnect(ABNORMAL, b"")
            self._end("left")
        self._hold(False)
        self._release_permit()


def _handshake(scope: Scope, subprotocol: str | None) -> sessions.Handshake:
    """Return what tells of a session. An app may speak a subprotocol that it does not name."""
    spoken = scope.get("subprotocols") or () if subprotocol is None else (subprotocol,)
    return sessions.Handshake(scope["path"], scope.get("query_string", b""), tuple(spoken))


def _may_be_sent(code: int) -> bool:
    """Whether a close frame may hold `code`: RFC 6455, section 7.4."""
    return 3000 <= code < 5000 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))
