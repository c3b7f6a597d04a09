"""One WebSocket on its way through the relay, from one worker to the next.

One message of the client is under way at a time: it is kept here until the app has asked for more.
So whatever happens to a worker, this side knows which message may have been lost with it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from chansup.protocol import relay_board as board
from chansup.protocol import roster
from chansup.relay import scopes
from chansup.relay.credits import REPORTED
from chansup.relay.frames import (
    AGAIN,
    ASKS,
    END,
    FAILED,
    FINISHED,
    MAX_PAYLOAD,
    MORE,
    TEXT,
    FrameError,
    Kind,
    pack,
    split,
)
from chansup.relay.interface.answers import answer
from chansup.relay.interface.books import Books
from chansup.relay.interface.phases import (
    COURSE,
    HAS_WORKER,
    NEEDS_WORKER,
    OPEN_FOR_CLIENT,
    PAUSED,
    Happening,
    Phase,
)
from chansup.relay.interface.pool import Pool, Rejected
from chansup.relay.interface.quarantine import SUSPICIOUS
from chansup.relay.interface.request import MAX_DEATHS
from chansup.relay.interface.worker import Worker
from chansup.relay.streams import TO_INTERFACE, State, advance
from chansup.relay.waiters import wake

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_MESSAGE = 16 * 1024 * 1024  # bytes that an app may send at once
NORMAL, POLICY, TOO_BIG, INTERNAL_ERROR, SERVICE_RESTART, TRY_AGAIN_LATER = (
    1000, 1008, 1009, 1011, 1012, 1013,
)  # fmt: skip  # RFC 6455, section 7.4, and IANA's registry
_EXPLANATIONS = {
    "full": "too many requests wait already",
    "late": "no worker was free in time",
    "no_worker": "there is no worker",
    "no_route": "nothing is served here any more",
}
_DENIALS: dict[str, tuple[int, str, int | None]] = {
    "denied": (500, "Internal Server Error", None),
    "poison": (502, "the process that worked on it died", None),
    "no_worker": (503, _EXPLANATIONS["no_worker"], 1),
    "closed": (503, _EXPLANATIONS["no_worker"], 1),
}

_log = logging.getLogger("chansup.relay")


class WebSocket:
    """A WebSocket, from its handshake to its end."""

    __slots__ = (
        "_attempt", "_books", "_checkpoint", "_client_left_with", "_code", "_count", "_deaths",
        "_denial", "_held", "_link", "_messages_out", "_moving_from", "_number", "_out", "_parts",
        "_parts_in", "_parts_size", "_pending", "_permit_of", "_phase", "_pool", "_read_task",
        "_receive", "_redeliver", "_room", "_scope", "_scope_bytes", "_send", "_state", "_stream",
        "_subprotocol", "_told", "_unreported", "_waiter", "_worker", "accepted", "is_transparent",
        "paused_at", "reason", "turn",
    )  # fmt: skip

    def __init__(
        self,
        pool: Pool,
        transparent: bool,
        redeliver: bool,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._pool = pool
        self.is_transparent = transparent
        self._redeliver = redeliver
        self._scope: Scope | None = scope
        self._scope_bytes = b""
        self._receive = receive
        self._send = send
        self._phase = Phase.SEEKING
        self._worker: Worker | None = None
        self._link: Any = None
        self._stream = 0
        self._state = State.CONNECTING
        self._attempt = 0  # counts the workers
        self._permit_of: Worker | None = None
        self._number = 0  # messages of the client so far
        self._pending: tuple[int, bytes] | None = None  # flags and payload of the newest of these
        self._held = False  # it waits for the end of a handover
        self._messages_out = 0  # of the present worker
        self._parts_in = 0  # of a denial
        self._parts: list[bytes] | None = None  # of what is larger than a frame
        self._parts_size = 0
        self._out: list[tuple[int, Message, int]] = []  # attempt, event, size: for the client
        self._unreported = 0
        self._told = False  # the present worker knows that the client is gone
        self._denial: tuple[int, str, int | None] | None = None  # how to answer the handshake
        self._subprotocol: str | None = None
        self.accepted = False
        self._code = 0  # close code, as soon as it is known
        self._books: Books
        self._count = 0  # handovers
        self._checkpoint: bytes | str | None = None
        self._deaths = 0  # of workers in a row that had something of it in hand
        self._client_left_with: tuple[int, bytes] | None = None
        self._moving_from: Worker | None = None
        self._read_task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None  # of what goes to the client
        self._room: asyncio.Future[None] | None = None  # for the next message of the client
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

    def close(self) -> None:
        """Have the client come back elsewhere: this process ends."""
        if self._phase in OPEN_FOR_CLIENT:
            self._tell_disconnect(SERVICE_RESTART, b"service restart")
            self._end("left", SERVICE_RESTART, "service restart")

    async def _run(self) -> None:
        assert self._scope is not None
        message = await self._receive()
        if message["type"] != "websocket.connect":
            return
        arrived = time.monotonic()
        try:
            self._scope_bytes = scopes.encode_websocket(self._scope, arrived)
        except scopes.ScopeError:
            await answer(self._scope, self._send, 400, "the handshake cannot be relayed")
            return
        if len(self._scope_bytes) > scopes.MAX_SCOPE:
            await answer(self._scope, self._send, 431, "the header fields are too large")
            return
        self._read_task = self._pool.loop.create_task(self._read())
        try:
            try:
                pool = self._pool
                worker = pool.worker_at_once() or await pool.worker(arrived, self)
            except Rejected as rejected:
                if self._client_left_with is None:
                    await self._answer(503, _EXPLANATIONS[rejected.reason], 1)
                return
            self._permit_of = worker
            self.attach(worker)
            await self._write()
        finally:
            self._finish()

    def _move_on(self, happening: Happening) -> None:
        before, self._phase = self._phase, COURSE[self._phase][happening]
        counts = self._pool.counts
        if (before in PAUSED) != (self._phase in PAUSED):
            counts.add(board.PAUSED, 1 if self._phase in PAUSED else -1)
        if (before is Phase.OPEN) != (self._phase is Phase.OPEN):
            counts.add(board.ATTACHED, 1 if self._phase is Phase.OPEN else -1)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be done for it."""
        return self._phase is Phase.OVER

    @property
    def needs_worker(self) -> bool:
        """Whether it looks for a worker."""
        return self._phase in NEEDS_WORKER

    @property
    def is_suspect(self) -> bool:
        """Whether so many workers died with it that it is tried alone."""
        return self._deaths >= SUSPICIOUS

    def _clear(self) -> None:
        """Take notice that a worker has survived it."""
        if self._deaths:
            self._deaths = 0
            self._pool.quarantine.leave(self)

    # Workers

    def attach(self, worker: Worker) -> None:
        """Begin at a worker."""
        self._move_on(Happening.FOUND)
        self._worker = worker
        self._link = worker.link
        worker.websockets += 1
        self._stream = worker.begin(self)
        self._state = State.CONNECTING
        self._attempt += 1
        self._messages_out = self._parts_in = self._unreported = 0
        self._parts = None
        self._told = False
        is_new = self._count == 0
        resumption = scopes.Resumption(
            self._count, None if is_new else self.reason, self._checkpoint
        )
        before = self._number - (self._pending is not None)
        payload = scopes.opening(resumption, self._scope_bytes)
        for frame in split(Kind.OPEN, 0, self._stream, before, payload):
            self._link.send(frame)

    def begin_to_move(self, worker: Worker) -> bool:
        """Say whether it is to leave `worker`, and was not told so before."""
        if self._phase is not Phase.OPEN or self._moving_from is worker:
            return False
        self._moving_from = worker
        return True

    def leave(self, worker: Worker) -> None:
        """Ask the app at `worker` to let it go."""
        if self._phase is not Phase.OPEN or self._worker is not worker:
            return
        if not self._pool.has_other_than(worker):
            self._moving_from = None  # as soon as there is another one
            return
        self._move_on(Happening.ASKED_TO_LEAVE)
        self.paused_at = time.monotonic()
        self.reason = "deploy"
        self._link.send(pack(Kind.LEAVE, 0, self._stream, 0))

    def worker_lost(self) -> None:
        """Take notice that the worker is gone."""
        if self._phase not in HAS_WORKER:
            return
        self._leave_worker()
        if self._phase is Phase.LEAVING or self._phase is Phase.OPEN:
            if self._phase is Phase.OPEN:
                self.paused_at = time.monotonic()
            self.reason = "crash"
            in_hand = self._pending is not None and not self._held
            if in_hand and not self._keep_for_another():
                return
            self._begin_anew()
        elif self._died_again():
            self._move_on(Happening.WORKER_DIED)
        if self._phase is Phase.SEEKING:
            self.paused_at = time.monotonic()

    def _begin_anew(self) -> None:
        self._move_on(Happening.WORKER_DIED)
        if self._client_left_with is not None and self._pending is None:
            self._end("left")
        elif not self.is_transparent:
            self._end("closed", SERVICE_RESTART, "service restart")
        else:
            self._count += 1

    def _keep_for_another(self) -> bool:
        """Keep the message in hand, or count it as lost. Say whether it goes on."""
        assert self._pending is not None
        if not self._redeliver:
            self._pool.counts.add(board.LOST)
            self._forget_pending()
            return True
        if not self._died_again():
            return False
        flags, payload = self._pending
        self._pending = flags | AGAIN, payload
        self._hold(True)
        return True

    def _died_again(self) -> bool:
        """Count a worker that died with something of it in hand. Say whether it may go on."""
        self._deaths += 1
        self._pool.quarantine.leave(self)
        if self._deaths < MAX_DEATHS:
            return True
        self._pool.counts.add(board.POISON)
        _log.error(
            "poison: WebSocket %s: %d workers of %s died with it, it is closed",
            self._path(),
            self._deaths,
            self._pool.settings.name,
        )
        self._end("poison", INTERNAL_ERROR, "")
        return False

    def _path(self) -> str:
        return self.host_and_path()[1]

    def host_and_path(self) -> tuple[bytes | None, str]:
        """Return what its route was found by."""
        fields = scopes.decode_websocket_scope(self._scope_bytes)
        host = next((value for name, value in fields.headers if name == b"host"), None)
        return host, fields.path

    def change_pool(self, pool: Pool, route: roster.Route) -> None:
        """Go to a worker of another pool: its own serves no more."""
        paused = self._phase in PAUSED
        self._pool.counts.add(board.PAUSED, -paused)
        pool.counts.add(board.PAUSED, paused)
        self._pool.counts.add(board.HELD, -self._held)
        pool.counts.add(board.HELD, self._held)
        self._pool = pool
        self.is_transparent = route.handover == "transparent"
        self._redeliver = route.redeliver
        pool.find_home(self)

    def _leave_worker(self) -> None:
        """Keep the books of the worker that had it."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.websockets -= 1
            self._release_permit()

    def _release_permit(self) -> None:
        worker, self._permit_of = self._permit_of, None
        if worker is not None:
            worker.release()

    def give_up(self, result: str) -> None:
        """Close it: no worker appeared in time."""
        code = SERVICE_RESTART if result == "closed" else TRY_AGAIN_LATER
        self._end(result, code, "no worker")

    # What the worker sends

    def take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Take a frame of the present stream. Raises FrameError."""
        if flags & MORE:
            self._gather(kind, payload)
            return
        last = len(payload)
        if self._parts is not None:
            parts, self._parts = [*self._parts, payload], None
            payload = b"".join(parts)
        self._state = advance(TO_INTERFACE, self._state, kind, flags)
        if kind == Kind.MESSAGE:
            self._messages_out += 1
            if number != self._messages_out:
                raise FrameError(f"message {number} instead of {self._messages_out}")
            self._take_message(flags, payload, last)
            if flags & ASKS:
                self._take_consumed(self._number)
        elif kind == Kind.CONSUMED:
            self._take_consumed(number)
        elif kind == Kind.DONE:
            self._take_done(flags, number)
        elif kind == Kind.CHECKPOINT:
            self._take_checkpoint(payload)
        elif kind == Kind.ACCEPT:
            self._take_accept(payload)
        elif kind == Kind.CLOSE:
            self._take_close(number, payload)
        else:
            self._take_denial(kind, flags, payload)

    def _gather(self, kind: int, payload: bytes) -> None:
        """Keep a part of what is larger than a frame."""
        if self._parts is None:
            self._parts = []
            self._parts_size = 0
        self._parts.append(payload)
        self._parts_size += len(payload)
        if kind == Kind.MESSAGE:
            self._consumed(self._attempt, len(payload))  # the whole of it must come in
            if self._parts_size > MAX_MESSAGE:
                self._parts.clear()
                if self._phase in OPEN_FOR_CLIENT:
                    _log.error("WebSocket %s: the app sent too large a message", self._path())
                    self._tell_disconnect(TOO_BIG, b"")
                    self._end("left", TOO_BIG, "")
        elif self._parts_size > scopes.MAX_EVENT:
            raise FrameError("an event that is too large")

    def _take_message(self, flags: int, payload: bytes, size: int) -> None:
        """Take a message, of whose last frame `size` bytes were not reported as consumed."""
        message: Message = {"type": "websocket.send"}
        if flags & TEXT:
            try:
                message["text"] = payload.decode()
            except UnicodeDecodeError:
                raise FrameError("a text that is not UTF-8") from None
        else:
            message["bytes"] = payload
        if self._phase is Phase.OPEN or self._phase is Phase.LEAVING:
            self._to_client(message, size)

    def _to_client(self, message: Message, size: int = 0) -> None:
        self._out.append((self._attempt, message, size))
        wake(self._waiter)

    def _take_consumed(self, number: int) -> None:
        if self._pending is not None and number == self._number:
            self._clear()
            self._forget_pending()

    def _forget_pending(self) -> None:
        self._pending = None
        self._hold(False)
        wake(self._room)

    def _hold(self, held: bool) -> None:
        if held != self._held:
            self._held = held
            self._pool.counts.add(board.HELD, 1 if held else -1)

    def _take_checkpoint(self, payload: bytes) -> None:
        try:
            self._checkpoint = scopes.decode_checkpoint(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FrameError(f"no checkpoint: {error}") from None

    def _take_accept(self, payload: bytes) -> None:
        try:
            subprotocol, headers = scopes.decode_accept(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FrameError(f"no acceptance: {error}") from None
        self._release_permit()
        if self._phase is Phase.CONNECTING:
            self._scope = None
            self._subprotocol = subprotocol
            self._clear()
            self.accepted = True
            self._books.accepted()
            self._move_on(Happening.ACCEPTED)
            event = {"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers}
            self._to_client(event)
            self._resume()
        elif self._phase is Phase.REJOINING:
            if subprotocol != self._subprotocol:
                self._tell_disconnect(SERVICE_RESTART, b"subprotocol")
                self._end("subprotocol", SERVICE_RESTART, "service restart")
                return
            if self._pending is None:
                self._clear()
            self._move_on(Happening.ACCEPTED)
            pause = time.monotonic() - self.paused_at
            self._pool.counts.handed_over(self.reason, "moved", pause)
            self._resume()
        else:
            return
        if self._worker is not None and self._worker.draining:
            self._pool.also_moves(self, self._worker)

    def _resume(self) -> None:
        self._moving_from = None
        if self._pending is not None:
            if self._pending[0] & AGAIN:
                self._pool.counts.add(board.REDELIVERED)
            self._transmit()
        if self._client_left_with is not None:
            self._tell_disconnect(*self._client_left_with)

    def _take_close(self, code: int, payload: bytes) -> None:
        reason = payload.decode("utf-8", "replace")
        if self._phase is Phase.REJOINING:
            honest = code if 3000 <= code < 5000 else POLICY
            self._end("denied", honest, reason)
        elif self._phase is not Phase.OVER:
            self._end("left", code, reason)

    def _take_denial(self, kind: int, flags: int, payload: bytes) -> None:
        """Take what an app sends that denies by an HTTP response."""
        self._release_permit()
        if self._phase is Phase.REJOINING:
            self._end("denied", POLICY, "")
        if self._phase is not Phase.CONNECTING:
            return
        if kind == Kind.START:
            try:
                head = scopes.decode_head(payload)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise FrameError(f"no denial: {error}") from None
            start = {
                "type": "websocket.http.response.start",
                "status": head.status,
                "headers": head.headers,
            }
            self._to_client(start)
            return
        is_last = bool(flags & END)
        body = {
            "type": "websocket.http.response.body",
            "body": payload,
            "more_body": not is_last,
        }
        self._to_client(body, len(payload))
        if is_last:
            self._move_on(Happening.ENDED)

    def _take_done(self, flags: int, given: int) -> None:
        """Take notice that the app has returned."""
        self._leave_worker()
        failed = bool(flags & FAILED)
        if self._phase is Phase.LEAVING and flags & FINISHED:
            if self._pending is not None:
                if given == self._number:
                    self._forget_pending()
                else:
                    self._hold(True)
            self._move_on(Happening.LET_GO)
            if self._client_left_with is not None and self._pending is None:
                self._end("left")
            elif not self.is_transparent:
                self._end("closed", SERVICE_RESTART, "service restart")
            else:
                self._count += 1
                self._pool.find_home(self)
        elif self._phase is Phase.CONNECTING:
            self._end("denied", INTERNAL_ERROR, "")
        elif self._phase is Phase.REJOINING:
            self._end("denied", INTERNAL_ERROR if failed else POLICY, "")
        elif self._phase is not Phase.OVER:
            self._end("left", INTERNAL_ERROR if failed else NORMAL, "")

    # What the client sends

    async def _read(self) -> None:
        """Take the client's messages, one at a time."""
        receive = self._receive
        while True:
            message = await receive()
            if message["type"] != "websocket.receive":
                reason = (message.get("reason") or "").encode()[:MAX_PAYLOAD]
                self._client_left(message.get("code") or 1005, reason)
                return
            while self._pending is not None:
                self._room = self._pool.loop.create_future()
                await self._room
            text = message.get("text")
            if text is not None:
                self._pending = TEXT, text.encode("utf-8", "surrogatepass")
            else:
                self._pending = 0, message["bytes"]
            self._number += 1
            if self._phase is Phase.OPEN:
                self._transmit()
            else:
                self._hold(True)

    def _transmit(self) -> None:
        """Send the client's newest message to the worker."""
        assert self._pending is not None
        self._hold(False)
        flags, payload = self._pending
        if len(payload) <= MAX_PAYLOAD:
            self._link.send(pack(Kind.MESSAGE, flags, self._stream, self._number, payload))
        else:
            sending = self._transmit_parts(flags, payload)
            self._pool.background(sending)

    async def _transmit_parts(self, flags: int, payload: bytes) -> None:
        attempt, link, number = self._attempt, self._link, self._number
        for frame in split(Kind.MESSAGE, flags, self._stream, number, payload):
            while link.crowded and not link.closed:
                self._pool.counts.add(board.EXHAUSTED)
                await link.room()
            if self._attempt != attempt or self._phase is not Phase.OPEN:
                return  # it leaves: another worker gets all of it
            link.send(frame)
        if self._client_left_with is not None:
            self._tell_disconnect(*self._client_left_with)

    def _client_left(self, code: int, reason: bytes) -> None:
        """Take notice that the client is gone."""
        self._client_left_with = code, reason
        self._code = self._code or code
        if self.turn is not None and not self.turn.done():
            self.turn.set_exception(Rejected("no_worker"))
        if self._phase in PAUSED and self._pending is not None:
            return  # another worker shall have its last message
        if self._phase is Phase.LEAVING:
            return  # the app says goodbye already
        self._tell_disconnect(code, reason)
        if self._phase is not Phase.OVER:
            self._end("left")

    def _tell_disconnect(self, code: int, reason: bytes) -> None:
        """Tell the worker that the client is gone; once."""
        if self._worker is not None and not self._told:
            self._told = True
            self._link.send(pack(Kind.DISCONNECT, 0, self._stream, code, reason))

    # What goes to the client

    async def _write(self) -> None:
        """Pass on what the workers send, until it is over."""
        while True:
            while self._out:
                out, self._out = self._out, []
                for attempt, message, size in out:
                    if message["type"] == "websocket.close":
                        await self._stop_reading()
                    try:
                        await self._send(message)
                    except OSError:
                        continue  # the client is gone: it will be read from it
                    if size:
                        self._consumed(attempt, size)
            if self._phase is Phase.OVER:
                if self._denial is not None:
                    await self._answer(*self._denial)
                return
            self._waiter = self._pool.loop.create_future()
            await self._waiter

    async def _stop_reading(self) -> None:
        """Let go of the connection: some servers cannot close it while somebody receives."""
        if self._read_task is not None and not self._read_task.done():
            self._read_task.cancel()
            await asyncio.sleep(0)

    def _consumed(self, attempt: int, size: int) -> None:
        if attempt != self._attempt:
            return  # it came from a former worker
        self._unreported += size
        if self._unreported >= REPORTED:
            if self._worker is not None:
                self._link.send_control(pack(Kind.CREDIT, 0, self._stream, self._unreported))
            self._unreported = 0

    async def _answer(self, status: int, text: str, retry_after: int | None = None) -> None:
        assert self._scope is not None
        await answer(self._scope, self._send, status, text, retry_after)

    def _end(self, result: str, code: int | None = None, reason: str = "") -> None:
        """End it. `code`: tell the client, if it is still there."""
        if self._phase is Phase.OVER:
            return
        self._code = self._code or code or 0
        was_open = self._phase in OPEN_FOR_CLIENT
        if self._phase in PAUSED:
            self._pool.counts.handed_over(self.reason, result, 0.0)
        self._pool.forget(self)
        if self._deaths:
            self._pool.quarantine.leave(self)
        self._move_on(Happening.ENDED)
        if code is not None and self._client_left_with is None:
            if was_open:
                self._to_client({"type": "websocket.close", "code": code, "reason": reason})
            else:
                self._deny(result, code, reason)
        wake(self._waiter)

    def _deny(self, result: str, code: int, reason: str) -> None:
        """Answer a handshake that no app has answered."""
        if result == "left":
            self._to_client({"type": "websocket.close", "code": code, "reason": reason})
            return
        self._denial = _DENIALS[result]

    def _finish(self) -> None:
        """Leave nothing behind, however it ended."""
        if self._read_task is not None:
            self._read_task.cancel()
        if self._phase is not Phase.OVER:
            if self._client_left_with is None:
                self._tell_disconnect(1006, b"")
            self._end("left")
        self._hold(False)
