"""One HTTP request in the worker: what the app receives and sends."""

import asyncio
from collections.abc import MutableMapping
from time import perf_counter
from typing import Any

from chansup.handover import words
from chansup.handover.errors import (
    ClientDisconnected,
    UnexpectedEvent,
    says_that_client_left,
)
from chansup.relay import scopes
from chansup.relay.appworker import events
from chansup.relay.appworker.context import StreamContext
from chansup.relay.appworker.sender import Sender
from chansup.relay.credits import MESSAGE_COST, REPORTED, WINDOW
from chansup.relay.frames import (
    END,
    EXPECTED,
    FAILED,
    FINISHED,
    MAX_PAYLOAD,
    FrameError,
    Kind,
    pack,
    split,
)
from chansup.relay.streams import TO_WORKER, State, advance
from chansup.waiters import Waiters

Message = MutableMapping[str, Any]

_START, _BODY, _TRAILERS = (
    "http.response.start",
    "http.response.body",
    "http.response.trailers",
)
_SEND_PATIENCE = 1.0  # seconds after the client left that too much waits before it raises
_EARLY = frozenset({"http.response.early_hint", "http.response.push"})  # before or after the start


class Exchange:
    """A request and its response.

    Most of what it holds begins with the same value for each: on the class, which costs nothing.
    """

    _parts_in = 0
    _unreported = 0  # bytes of the body that the app had
    _told_end = False  # the app knows that the body is complete
    _receivers: Waiters | None = None
    _head: bytes | None = None  # status and headers, not sent yet
    _body: bytes | None = None  # the whole body, not sent yet
    _trailers = False  # are to follow
    _has_body = False  # the last part of the body was sent
    _complete = False  # the app has sent the whole response
    _finished = False  # the app has returned
    _failed = False
    _sender: Sender | None = None
    _gone = False  # the client, or the interface
    _left = 0.0  # when it was noticed that it is
    _unheard = 0  # bytes that the app sent since
    is_let_go = False  # the interface was told that it is over; the app continues
    status = 0  # of the response, as soon as it is known
    ended = 0.0
    task: asyncio.Task[None] | None = None

    def __init__(
        self,
        context: StreamContext,
        stream: int,
        flags: int,
        fields: scopes.HttpScope,
        state: dict[str, Any] | None,
    ) -> None:
        self._context = context
        self._stream = stream
        self.method = fields.method
        self.scope = scopes.http_scope(fields, state)
        self._state = State.UPLOADED if flags & END else State.UPLOADING
        self._expects = flags & EXPECTED
        self._chunks: list[bytes] = []
        self._began = perf_counter()

    # What comes from the interface

    def take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Take a frame of this stream. Raises FrameError."""
        self._state = advance(TO_WORKER, self._state, kind, flags)
        if kind == Kind.BODY:
            self._parts_in += 1
            if number != self._parts_in:
                raise FrameError(f"part {number} of a body instead of {self._parts_in}")
            if payload:
                self._chunks.append(payload)
            self._wake_receivers()
        elif kind == Kind.CREDIT:
            if self._sender is None:
                raise FrameError("credit for what was never sent")
            if not self.is_let_go:
                self._sender.credit(number)
        else:
            self.lose()

    def duration(self) -> float:
        """Return the seconds from the arrival to the end of the response, or until now."""
        return (self.ended or perf_counter()) - self._began

    def lose(self) -> None:
        """Take notice that the client, or the interface, is gone."""
        if self._gone:
            return
        self._gone = True
        self._left = perf_counter()
        self._chunks.clear()
        self._wake_receivers()
        if self._sender is not None:
            self._sender.wake()
        if not self._complete and not self._finished:
            self._context.worker.orphans.adopt(self, holds_permit=True)

    def let_go(self) -> None:
        """Give back what it holds for a client that is gone; the app may continue for a while."""
        if not self.is_let_go:
            self.is_let_go = True
            if self._sender is not None:
                self._sender.end()
            self._context.let_go(self._stream)

    @property
    def is_finishing(self) -> bool:
        """Whether the app has sent its whole response: what it does now is work of its own."""
        return self._complete

    @property
    def has_in_hand(self) -> bool:
        """Whether the app deals with a request that may change something, and has not answered."""
        return self.method not in scopes.SAFE_METHODS and not self.status

    def _wake_receivers(self) -> None:
        if self._receivers:
            self._receivers.wake_all()

    # What the app is given, and gives

    async def run(self, application: Any) -> None:
        """Run the app for this request."""
        try:
            await application(self.scope, self.receive, self.send)
        except ClientDisconnected:
            self._failed = not self._gone
        except asyncio.CancelledError:
            self._failed = True  # time is up
        except BaseException as error:  # sys.exit() in a view ends the view, not the worker
            self._failed = True
            if not self._gone or not says_that_client_left(error):
                self._context.report(self.scope, error)
        finally:
            self._end()

    def abandon(self) -> None:
        """End it without the app."""
        self._end()

    async def receive(self) -> Message:
        """Return the next event for the app."""
        while True:
            if self._gone or self._complete or self._finished:
                return {"type": "http.disconnect"}
            if not self._told_end:
                complete = self._state is State.UPLOADED
                if self._chunks or complete:
                    body = b"".join(self._chunks)
                    self._chunks.clear()
                    self._told_end = complete
                    if not complete:
                        self._report(len(body))
                    return {"type": "http.request", "body": body, "more_body": not complete}
                if self._expects:
                    self._expects = 0
                    self._context.link.send_control(pack(Kind.CREDIT, 0, self._stream, 0))
            if self._receivers is None:
                self._receivers = Waiters()
            await self._receivers.wait(self._context.loop)

    def _report(self, size: int) -> None:
        self._unreported += size
        if self._unreported >= REPORTED:
            credit = pack(Kind.CREDIT, 0, self._stream, self._unreported)
            self._context.link.send_control(credit)
            self._unreported = 0

    async def send(self, message: Message) -> None:
        """Take an event from the app.

        When the client is gone it goes nowhere, and as much as would go to one that does not read
        is not an error: the app may have more to do than to answer. More than that waits for a
        moment, in which frameworks that listen for the disconnect break off, and raises.
        """
        if self._finished:
            raise ClientDisconnected
        if not self._gone:
            try:
                await self._send(message)
                return
            except ClientDisconnected:  # while it waited for the client to read
                if self._finished:
                    raise
        self._disregard(message)
        if self._unheard > WINDOW and not self._complete:
            # Not sooner: a generator that is cancelled while its last part is sent is not closed.
            await asyncio.sleep(self._left + _SEND_PATIENCE - perf_counter())
            raise ClientDisconnected

    def _disregard(self, message: Message) -> None:
        """Take notice of an event that nobody gets: what it says of the course still counts."""
        kind = message["type"]
        if kind == _START:
            self.status = self.status or int(message["status"])
            self._trailers = bool(message.get("trailers", False))
        elif kind == _BODY:
            self._unheard += MESSAGE_COST + len(message.get("body", b""))
            if not message.get("more_body", False):
                self.ended = self.ended or perf_counter()
                self._has_body = True
        is_end = kind == _TRAILERS and not message.get("more_trailers", False)
        if self._has_body and (is_end or not self._trailers):
            self._completed()

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == _BODY:
            if not self.status or self._has_body:
                raise UnexpectedEvent(f'"{kind}" may not come now')
            body = message.get("body", b"")
            if type(body) is not bytes:
                body = words.data(body, "body")
            more = message.get("more_body", False)
            if not more:
                self.ended = perf_counter()
                if (
                    self._head is not None
                    and not self._trailers
                    and len(body) + len(self._head) <= MAX_PAYLOAD
                    and (self._sender is None or not self._sender.turns.is_taken)
                ):
                    self._body = body  # leaves with the head, at the end of this turn
                    self._has_body = True
                    self._completed()
                    return
            await self._ready_sender().send_body(body, more, self._check_body)
            if not more:
                self._has_body = True
                if not self._trailers:
                    self._completed()
        elif kind == _START:
            if self.status:
                raise UnexpectedEvent(f'"{kind}" came twice')
            trailers = bool(message.get("trailers", False))
            self.status, self._head = events.head(message, trailers)
            self._trailers = trailers
            self._context.link.send_late(self)
        elif kind == _TRAILERS:
            if self._complete or not self._trailers or not self._has_body:
                raise UnexpectedEvent(f'"{kind}" may not come now')
            await self._ready_sender().send_event(events.extension(message), self._check)
            if not message.get("more_trailers", False):
                self._completed()
        elif kind in _EARLY:
            await self._ready_sender().send_event(events.extension(message), self._check)
        else:
            raise UnexpectedEvent(f'the relay does not carry "{kind}"')

    def _check(self) -> None:
        """Raise if nothing may be sent any more."""
        if self._gone or self._finished:
            raise ClientDisconnected
        if self._complete:
            raise UnexpectedEvent("the response is complete")

    def _check_body(self) -> None:
        self._check()
        if self._has_body:
            raise UnexpectedEvent("the body is complete")

    def emit(self) -> None:
        """Send the head, with the body and the end of the app if they are there, too."""
        head, self._head = self._head, None
        body, self._body = self._body, None
        if head is None:
            return
        if self._gone:
            if body is not None and self._finished:
                self._tell_end()
        elif body is not None:
            flags = END
            if self._finished:
                flags |= FINISHED | (FAILED if self._failed else 0)
            self._context.link.send(
                pack(Kind.RESPONSE, flags, self._stream, len(head), head + body)
            )
        else:
            for frame in split(Kind.START, 0, self._stream, 0, head):
                self._context.link.send(frame)

    def _ready_sender(self) -> Sender:
        """Return what sends all but heads and small responses; what waits leaves before."""
        if self._head is not None:
            self.emit()
        if self._sender is None:
            self._sender = Sender(self._context, self._stream)
        return self._sender

    def _completed(self) -> None:
        """Take notice that the response is complete: whoever receives is told to go."""
        self._complete = True
        self._wake_receivers()

    def _end(self) -> None:
        """Tell the interface that the app has returned."""
        self._finished = True  # what tasks that the app left behind still do goes nowhere
        if self._gone:
            self._context.worker.orphans.ended(self)
        if self._head is None or self._body is None:  # else it is told with the response
            if self._head is not None:
                self.emit()
            self._tell_end()
        self._wake_receivers()
        if self._sender is not None:
            self._sender.end()
        self._context.ended(self._stream)
        self._context.counters.count_request(self)
        self._context.link.hurry()

    def _tell_end(self) -> None:
        if self.is_let_go:
            return
        if self._context.worker.cutting:
            return  # the end of the connection tells it: another worker may do it again
        failed = FAILED if self._failed else 0
        self._context.link.send(pack(Kind.DONE, failed, self._stream, 0))
