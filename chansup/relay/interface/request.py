"""One HTTP request on its way through the relay."""

import asyncio
from collections.abc import MutableMapping
from time import monotonic
from typing import Any

from chansup.protocol import relay_board as board
from chansup.relay import scopes
from chansup.relay.frames import (
    END,
    EXPECTED,
    FINISHED,
    MAX_PAYLOAD,
    MORE,
    FrameError,
    Kind,
    pack,
    split,
)
from chansup.relay.interface.affinity import Session
from chansup.relay.interface.answers import EXPLANATIONS, answer
from chansup.relay.interface.headers import expects_continue, has_body, host_of
from chansup.relay.interface.left_behind import LeftBehind
from chansup.relay.interface.parts import Parts
from chansup.relay.interface.pool import Pool, RejectedError
from chansup.relay.interface.response import BrokenResponseError, Event, Response, Send, head_of
from chansup.relay.interface.retry import Retry
from chansup.relay.interface.upload import Upload
from chansup.relay.interface.watch import Receive, Watch
from chansup.relay.interface.worker import Worker
from chansup.relay.link import Link
from chansup.relay.streams import TO_INTERFACE, State, advance
from chansup.waiters import Waiter, wake

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]

_COMPLETE = frozenset({State.ANSWERED, State.OVER})


class Request:
    """A request, from its arrival to the end of its response.

    Most of what it holds begins with the same value for each: on the class, which costs nothing.
    """

    _upload: Upload | None = None  # where a body comes, or may come
    _watch: Watch | None = None  # of the client
    _worker: Worker | None = None
    _link: Link
    _stream = 0
    _state = State.WAITING
    _waiter: Waiter = None
    _parts_in = 0  # of the response
    _delivered = False  # the app knows of it
    started = False  # the client has seen a part of the response
    _lost = False  # the worker is gone
    _retry: Retry | None = None  # once a worker has died with it
    _attempts = 0
    _told = False  # the worker knows that the client is gone
    _is_leaving = False  # it goes to another worker, though its own is there
    _gathered: Parts | None = None  # of an event that is not complete
    _response: Response | None = None  # that comes in parts
    _session: Session | None = None  # where requests of a session go to one worker
    turn: asyncio.Future[Worker] | None = None
    client_gone = False
    websocket: None = None

    def __init__(
        self, pool: Pool, redeliver: bool, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._pool = pool
        self._redeliver = redeliver
        self._scope = scope
        self._receive = receive
        self._send = send
        self._events: list[Event] = []
        if has_body(scope):
            expects = expects_continue(scope)
            self._upload = Upload(receive, pool.counters, pool.loop, expects)
        if pool.affinity.name is not None:
            self._session = pool.affinity.session(scope)
        self.arrived = monotonic()

    # Its course

    async def run(self) -> None:
        """Have it answered."""
        try:
            head = scopes.encode_http(self._scope, self.arrived)
        except scopes.ScopeError:
            await answer(self._scope, self._send, 400, "the request cannot be relayed")
            return
        if len(head) > scopes.MAX_SCOPE:
            await answer(self._scope, self._send, 431, "the header fields are too large")
            return
        try:
            while True:
                worker = self._pool.worker_at_once(session=self._session)
                worker = worker or await self._awaited_worker()
                if worker is None:
                    return
                self._begin(worker, head)
                if await self._respond():
                    return
                if self._is_leaving and not self._lost:
                    self._leave_behind()
                elif not await self._may_try_again():
                    return
                if self._retry is not None and not await self._turn_comes(self._retry):
                    return
                self._pool.counters.add(board.RETRIES)
        finally:
            if self._watch is not None or self._retry is not None or self._state not in _COMPLETE:
                self._end()

    async def _awaited_worker(self) -> Worker | None:
        """Wait for a worker; where none can be had, answer."""
        self.watch()
        try:
            return await self._wait_for_worker()
        except RejectedError as rejected:
            if not self.client_gone:
                text = EXPLANATIONS[rejected.reason]
                await answer(self._scope, self._send, 503, text, retry_after=1)
            return None

    async def _wait_for_worker(self) -> Worker:
        while True:
            pool = self._pool
            try:
                again = self._attempts > 0
                return await pool.worker(self.arrived, self, again, session=self._session)
            except RejectedError as rejected:
                host = host_of(self._scope["headers"])
                place = pool.place_of("http", host, self._scope["path"])
                if rejected.reason != "no_route" or place is None or place[0] is pool:
                    raise
                self._pool, route = place
                self._redeliver = route.redeliver
                self._session = self._pool.affinity.session(self._scope)

    def _begin(self, worker: Worker, head: bytes) -> None:
        """Send the request to a worker, with what came of its body so far."""
        assert worker.link is not None
        self._worker = worker
        link = self._link = worker.link
        stream = self._stream = worker.begin(self)
        self._pool.counters.cells[board.IN_FLIGHT] += 1
        if self._session is not None:
            self._session.begun(self._pool.counters)
        if self._attempts:
            self._state = State.WAITING
            self._lost = self._delivered = self._told = self._is_leaving = False
            self._gathered = self._response = None
            self._parts_in = 0
        self._attempts += 1
        upload = self._upload
        flags = END if upload is None else EXPECTED * upload.expects
        if len(head) <= MAX_PAYLOAD:
            link.send(pack(Kind.REQUEST, flags, stream, 0, head))
        else:
            for frame in split(Kind.REQUEST, flags, stream, 0, head):
                link.send(frame)
        if upload is None:
            link.hurry()
        else:
            upload.begin(worker, stream)
            self.watch()

    async def _respond(self) -> bool:
        """Pass the response on. Say whether that is all; False: the worker died on the way."""
        events = self._events
        send = self._send
        while True:
            while not events:
                if self.client_gone:
                    return True
                if self._lost or self._is_leaving:
                    return False
                self._waiter = self._pool.loop.create_future()
                await self._waiter
            kind, flags, number, payload = events.pop(0)
            if kind == Kind.RESPONSE:
                head = head_of(payload[:number])
                if self._session is not None and self._worker is not None:
                    body = payload[number:]
                    self._session.learn_from(self._worker, head.status, head.headers, body)
                self.started = True
                await send(
                    {"type": "http.response.start", "status": head.status, "headers": head.headers}
                )
                await send({"type": "http.response.body", "body": payload[number:]})
                return True
            response = self._response or self._begin_response()
            passing_on = (
                response.pass_body_on(events, flags, payload)
                if kind == Kind.BODY
                else response.pass_on(kind, payload)
            )
            del payload
            if await passing_on:
                return True

    def _begin_response(self) -> Response:
        assert self._worker is not None
        scope, send = self._scope, self._send
        self._response = Response(self, scope, send, self._worker, self._stream, self._session)
        return self._response

    @property
    def is_at_worker(self) -> bool:
        """Whether its worker is there, and the app has not returned."""
        return not self._lost and self._state != State.OVER

    async def _may_try_again(self) -> bool:
        """After its worker died: say whether another one may have it. If not, answer."""
        if self.started:
            self._pool.counters.add(board.FAILED)
            raise BrokenResponseError("the worker died before the response was complete")
        if self._retry is None:
            self._retry = Retry(self, self._scope, self._send)
        allowed = await self._retry.is_allowed(
            self._pool,
            delivered=self._delivered,
            redeliver=self._redeliver,
            repeatable=self._upload is None or self._upload.is_repeatable,
        )
        if allowed:
            self.arrived = monotonic()
        return allowed

    async def _turn_comes(self, retry: Retry) -> bool:
        """Wait, if it is a suspect, until no other one is tried. Say whether to try it."""
        if not retry.is_suspect:
            return True
        turn = self._waiter = self._pool.loop.create_future()  # it ends, too, with the client
        self.watch()
        if self.client_gone:
            return False
        return await retry.wait_for_turn(self._pool, turn) and not self.client_gone

    def _end(self) -> None:
        if self._retry is not None:
            self._retry.end(self._pool)
        if self._watch is not None:
            self._watch.end()
        if self._attempts and self._state not in _COMPLETE and not self._lost:
            self._tell_worker_that_client_left()

    def _tell_worker_that_client_left(self) -> None:
        if not self._told:
            self._told = True
            self._link.send(pack(Kind.DISCONNECT, 0, self._stream, 0))

    # What the worker sends

    def take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Take a frame of this stream. Raises FrameError."""
        if flags & MORE:
            self._gathered = self._gathered or Parts()
            self._gathered.gather(kind, payload)
            return
        if self._gathered is not None:
            payload = self._gathered.completed(kind, payload)
            self._gathered = None
        self._state = advance(TO_INTERFACE, self._state, kind, flags)
        if kind == Kind.BODY:
            self._parts_in += 1
            if number != self._parts_in:
                raise FrameError(f"part {number} of a body instead of {self._parts_in}")
        elif kind == Kind.CREDIT:
            if self._upload is None:
                raise FrameError("credit for what was never sent")
            self._upload.credit(number)
            return
        elif kind == Kind.RECEIVED:
            self._delivered = True
            if self._upload is not None and not self._redeliver:
                self._upload.do_not_repeat()
            return
        if kind == Kind.DONE or flags & FINISHED:
            assert self._worker is not None
            self._pool.counters.add(board.IN_FLIGHT, -1)
            if self._upload is not None:
                self._upload.end()
            self._worker.release()
        self._events.append((kind, flags, number, payload))
        wake(self._waiter)

    def worker_lost(self) -> None:
        """Take notice that the worker is gone."""
        self._lost = True
        self._pool.counters.add(board.IN_FLIGHT, -1)
        if self._upload is not None:
            self._upload.end()
        wake(self._waiter)

    # Another worker

    def knows_worker(self, worker: Worker) -> bool:
        """Whether it is at `worker` since that one knows its session, and could be elsewhere."""
        return (
            self._session is not None
            and self._session.value is not None
            and self._worker is worker
            and self._upload is None
            and self._scope["method"] in scopes.SAFE_METHODS
        )

    def leave(self, worker: Worker) -> None:
        """Ask another worker, if `worker` has not begun to answer: it ends, and the session too."""
        is_idle = self._state == State.WAITING and not self._events and not self.started
        if is_idle and self._worker is worker and not self._lost and not self.client_gone:
            self._is_leaving = True
            wake(self._waiter)

    def _leave_behind(self) -> None:
        assert self._worker is not None
        self._worker.streams[self._stream] = LeftBehind(self._worker, self._pool.counters)
        self._tell_worker_that_client_left()
        self.arrived = monotonic()

    # The client

    def watch(self) -> None:
        """Notice from now on when it goes away; take its body."""
        if self._watch is None:
            path, loop = self._scope["path"], self._pool.loop
            self._watch = Watch(path, self._receive, self._upload, self._client_left, loop)

    def _client_left(self) -> None:
        self.client_gone = True
        if self.turn is not None and not self.turn.done():
            self.turn.set_exception(RejectedError("no_worker"))
        if self._attempts and self.is_at_worker:
            self._tell_worker_that_client_left()
        wake(self._waiter)
