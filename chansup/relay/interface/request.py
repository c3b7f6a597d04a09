"""One HTTP request on its way through the relay."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from time import monotonic
from typing import Any

import msgspec

from chansup.protocol import relay_board as board
from chansup.relay import scopes
from chansup.relay.credits import REPORTED
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
from chansup.relay.interface.pool import Pool, Rejected
from chansup.relay.interface.quarantine import MAX_DEATHS, SUSPICIOUS
from chansup.relay.interface.upload import Upload
from chansup.relay.interface.worker import Worker
from chansup.relay.link import Link
from chansup.relay.streams import TO_INTERFACE, State, advance
from chansup.relay.waiters import Waiter, wake

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_COMPLETE = frozenset({State.ANSWERED, State.OVER})


_log = logging.getLogger("chansup.relay")


Event = tuple[int, int, int, bytes]  # kind, flags, number, payload


class BrokenResponse(Exception):
    """A response that has begun cannot be completed: the server shall break the connection off."""


class Request:
    """A request, from its arrival to the end of its response.

    Most of what it holds begins with the same value for each: on the class, which costs nothing.
    """

    _upload: Upload | None = None  # where a body comes, or may come
    _watch: asyncio.Task[None] | None = None  # of the client
    _worker: Worker | None = None
    _link: Link
    _stream = 0
    _state = State.WAITING
    _waiter: Waiter = None
    _parts_in = 0  # of the response
    _unreported = 0
    _delivered = False  # the app knows of it
    _started = False  # the client has seen a part of the response
    _lost = False  # the worker is gone
    _deaths = 0  # of workers that had it in hand
    _attempts = 0
    _told = False  # the worker knows that the client is gone
    _is_leaving = False  # it goes to another worker, though its own is there
    _trailers_follow = False
    _gathered: list[tuple[int, bytes]] | None = None
    _session: Session | None = None  # where requests of a session go to one worker
    _first: scopes.Head | None = None  # of a response whose body may tell a session
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
            self._upload = Upload(receive, pool.counts, pool.loop, expects)
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
                if self._deaths >= SUSPICIOUS and not await self._turn_of_suspect():
                    return
                self._pool.counts.add(board.RETRIES)
        finally:
            if self._watch is not None or self._deaths or self._state not in _COMPLETE:
                self._end()

    async def _awaited_worker(self) -> Worker | None:
        """Wait for a worker; where none can be had, answer."""
        self.watch()
        try:
            return await self._wait_for_worker()
        except Rejected as rejected:
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
            except Rejected as rejected:
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
        self._pool.counts.cells[board.IN_FLIGHT] += 1
        if self._session is not None:
            self._session.begun(self._pool.counts)
        if self._attempts:
            self._state = State.WAITING
            self._lost = self._delivered = self._told = self._is_leaving = False
            self._gathered = None
            self._parts_in = self._unreported = 0
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
                head = self._head(payload[:number])
                if self._session is not None:
                    self._learn(head, payload[number:])
                self._started = True
                await send(
                    {"type": "http.response.start", "status": head.status, "headers": head.headers}
                )
                await send({"type": "http.response.body", "body": payload[number:]})
                return True
            passing_on = (
                self._pass_body_on(flags, payload)
                if kind == Kind.BODY
                else self._pass_on(kind, flags, payload)
            )
            del payload
            if await passing_on:
                return True

    async def _pass_on(self, kind: int, flags: int, payload: bytes) -> bool:
        """Pass an event of the app to the server. Say whether it was the last one."""
        if kind == Kind.START:
            head = self._head(payload)
            if self._session is not None:
                self._learn(head, b"")
                self._first = head
            self._started = True
            self._trailers_follow = head.trailers
            start: Message = {
                "type": "http.response.start",
                "status": head.status,
                "headers": head.headers,
            }
            if head.trailers:
                start["trailers"] = True
            await self._send(start)
            return False
        if kind == Kind.EVENT:
            return await self._pass_event_on(payload)
        return await self._finish()

    async def _pass_body_on(self, flags: int, payload: bytes) -> bool:
        """Pass on what there is of the body, at once."""
        events = self._events
        body = payload
        if events and not flags & END:
            parts = [payload]
            while events and events[0][0] == Kind.BODY and not flags & END:
                _, flags, _, payload = events.pop(0)
                parts.append(payload)
            body = b"".join(parts)
            del parts, payload  # a slow client keeps one copy in memory, not two
        if self._first is not None:
            self._learn(self._first, body)
            self._first = None
        is_last = bool(flags & END)
        await self._send({"type": "http.response.body", "body": body, "more_body": not is_last})
        if not is_last or self._trailers_follow:
            self._report(len(body))
        return is_last and not self._trailers_follow

    def _learn(self, head: scopes.Head, body: bytes) -> None:
        """Take down which session the response tells of, before the client knows it."""
        if self._session is not None and self._worker is not None:
            self._session.learn_from(self._worker, head.status, head.headers, body)

    def _report(self, size: int) -> None:
        """Give the worker credit for what the client had."""
        self._unreported += size
        if self._unreported >= REPORTED and not self._lost and self._state != State.OVER:
            self._link.send_control(pack(Kind.CREDIT, 0, self._stream, self._unreported))
            self._unreported = 0

    def _head(self, payload: bytes) -> scopes.Head:
        try:
            return scopes.decode_head(payload)
        except msgspec.DecodeError as error:
            raise BrokenResponse(f"the app's status or headers: {error}") from None

    async def _pass_event_on(self, payload: bytes) -> bool:
        try:
            event = scopes.decode_event(payload)
        except msgspec.DecodeError as error:
            raise BrokenResponse(f"an event of the app: {error}") from None
        kind = event.get("type")
        if not isinstance(kind, str):
            raise BrokenResponse("an event of the app has no type")
        if isinstance(headers := event.get("headers"), list):
            event["headers"] = [tuple(pair) for pair in headers]
        await self._send(event)
        self._report(len(payload))
        return kind == "http.response.trailers" and not event.get("more_trailers", False)

    async def _finish(self) -> bool:
        """Take notice that the app has returned before the response was complete."""
        if self.client_gone:
            return True
        if self._started:
            raise BrokenResponse("the app ended before its response did")
        await answer(self._scope, self._send, 500, "Internal Server Error")
        return True

    async def _may_try_again(self) -> bool:
        """After its worker died: say whether another one may have it. If not, answer."""
        counts = self._pool.counts
        safe = self._scope["method"] in scopes.SAFE_METHODS
        if self._started:
            counts.add(board.FAILED)
            raise BrokenResponse("the worker died before the response was complete")
        if safe or self._delivered:
            self._deaths += 1
            self._pool.quarantine.leave(self)
        if self._deaths >= MAX_DEATHS:
            counts.add(board.POISON)
            _log.error(
                "poison: %s %s: %d workers of %s died with it, it is not tried again",
                self._scope["method"],
                self._scope["path"],
                self._deaths,
                self._pool.settings.name,
            )
        elif (safe or not self._delivered or self._redeliver) and (
            self._upload is None or self._upload.is_repeatable
        ):
            self.arrived = monotonic()
            return True
        counts.add(board.FAILED)
        await answer(self._scope, self._send, 502, "the process that worked on it died")
        return False

    async def _turn_of_suspect(self) -> bool:
        """Wait until no other suspect is tried. Say whether to try it; if not, answer."""
        pool = self._pool
        turn = self._waiter = pool.loop.create_future()  # it ends, too, when the client leaves
        pool.quarantine.enter(self, lambda: wake(turn))
        self.watch()
        try:
            async with asyncio.timeout(pool.settings.queue_timeout):
                if not self.client_gone:
                    await turn
        except TimeoutError:
            pool.counts.rejected("late")
            await answer(self._scope, self._send, 503, EXPLANATIONS["late"], retry_after=1)
            return False
        return not self.client_gone

    def _end(self) -> None:
        if self._deaths:
            self._pool.quarantine.leave(self)
        if self._watch is not None:
            self._watch.cancel()
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
            self._gather(kind, payload)
            return
        if self._gathered is not None:
            payload = self._completed(kind, payload)
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
            self._leave_worker()
        self._events.append((kind, flags, number, payload))
        wake(self._waiter)

    def _gather(self, kind: int, payload: bytes) -> None:
        """Keep a part of a payload larger than a frame."""
        if kind not in (Kind.START, Kind.EVENT):
            raise FrameError(f"a frame of kind {kind} in parts")
        if self._gathered is None:
            self._gathered = []
        self._gathered.append((kind, payload))
        if len(self._gathered) * MAX_PAYLOAD > scopes.MAX_EVENT:
            raise FrameError("an event that is too large")

    def _completed(self, kind: int, payload: bytes) -> bytes:
        assert self._gathered is not None
        parts, self._gathered = [*self._gathered, (kind, payload)], None
        if any(one != kind for one, _ in parts):
            raise FrameError("parts of different kinds")
        return b"".join(part for _, part in parts)

    def worker_lost(self) -> None:
        """Take notice that the worker is gone."""
        self._lost = True
        self._pool.counts.add(board.IN_FLIGHT, -1)
        if self._upload is not None:
            self._upload.end()
        wake(self._waiter)

    def _leave_worker(self) -> None:
        assert self._worker is not None
        self._pool.counts.add(board.IN_FLIGHT, -1)
        if self._upload is not None:
            self._upload.end()
        self._worker.release()

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
        is_idle = self._state == State.WAITING and not self._events and not self._started
        if is_idle and self._worker is worker and not self._lost and not self.client_gone:
            self._is_leaving = True
            wake(self._waiter)

    def _leave_behind(self) -> None:
        assert self._worker is not None
        self._worker.streams[self._stream] = LeftBehind(self._worker, self._pool.counts)
        self._tell_worker_that_client_left()
        self.arrived = monotonic()

    # The client

    def watch(self) -> None:
        """Notice from now on when it goes away; take its body."""
        if self._watch is None:
            self._watch = self._pool.loop.create_task(self._watch_client())

    @property
    def is_watched(self) -> bool:
        """Whether it would be noticed that the client goes away."""
        return self._watch is not None

    async def _watch_client(self) -> None:
        try:
            await self._until_client_leaves()
        except Exception as error:
            _log.error("%s: the server broke: %r", self._scope["path"], error)
        self.client_gone = True
        if self.turn is not None and not self.turn.done():
            self.turn.set_exception(Rejected("no_worker"))
        if self._attempts and not self._lost and self._state != State.OVER:
            self._tell_worker_that_client_left()
        wake(self._waiter)

    async def _until_client_leaves(self) -> None:
        if self._upload is not None:
            await self._upload.run()
        if self._upload is None or self._upload.is_complete:
            while (await self._receive())["type"] != "http.disconnect":
                pass
