"""One WebSocket in the worker: what the app is given, and how its stay here begins and ends.

The interface sends one message at a time: the next one comes when the app has asked for more, which
is taken as the sign that it has dealt with the one it had. So when this process dies, at most one
message was in its hands.
"""

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any

from chansup.handover.errors import ClientDisconnected, says_that_client_left
from chansup.handover.parting import SERVICE_RESTART, Parting
from chansup.handover.standing import Standing
from chansup.protocol.connection import Connection
from chansup.protocol.connection import connection as current_connection
from chansup.relay import scopes
from chansup.relay.appworker.context import StreamContext
from chansup.relay.appworker.outbox import Outbox
from chansup.relay.frames import AGAIN, FAILED, FINISHED, MORE, TEXT, FrameError, Kind, pack
from chansup.relay.streams import TO_WORKER, State, advance
from chansup.waiters import Waiters

Message = MutableMapping[str, Any]

ABNORMAL = 1006  # RFC 6455, section 7.4
GOODBYE = {"type": "websocket.disconnect", "code": SERVICE_RESTART, "reason": "handover"}


class WebSocket:
    """A WebSocket that this worker's app works on for a while."""

    __slots__ = (
        "_chunks", "_connected", "_context", "_given", "_message", "_number", "_outbox", "_parting",
        "_reason", "_receivers", "_standing", "_state", "_stream", "scope", "task",
    )  # fmt: skip

    def __init__(
        self,
        context: StreamContext,
        stream: int,
        number: int,
        resumption: scopes.Resumption,
        fields: scopes.WebSocketScope,
        state: dict[str, Any] | None,
    ) -> None:
        self._context = context
        self._stream = stream
        self.scope = scopes.websocket_scope(fields, resumption, state)
        self._state = State.ATTACHED
        self._number = number  # messages that came in, over all workers
        self._chunks: list[bytes] = []
        self._message: Message | None = None  # not given to the app yet
        self._given = number  # number of the last message that the app was given
        self._connected = False  # the app knows of websocket.connect
        self._reason = ""  # with which the client left
        self._receivers = receivers = Waiters()
        self._standing = standing = Standing(Connection(resumption.id))
        may_deny = "websocket.http.response" in self.scope["extensions"]
        self._outbox = Outbox(context, stream, standing, receivers, may_deny)
        self._parting = Parting(context.loop, standing, receivers, self._hurries, self._outbox.wake)
        standing.connection.on_ask = self._parting.layer_is_asked
        self.task: asyncio.Task[None] | None = None

    # What comes from the interface

    def take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Take a frame of this stream. Raises FrameError."""
        self._state = advance(TO_WORKER, self._state, kind, flags)
        if kind == Kind.MESSAGE:
            self._take_message(flags, number, payload)
        elif kind == Kind.CREDIT:
            self._outbox.credit(number)
        elif kind == Kind.LEAVE:
            self._message = None  # another worker's app gets it
            self._parting.begin(for_good=bool(number))
        else:
            self.lose(number or ABNORMAL, payload.decode("utf-8", "replace"))

    def _take_message(self, flags: int, number: int, payload: bytes) -> None:
        if number != self._number + 1 or self._message is not None:
            raise FrameError(f"message {number} instead of {self._number + 1}")
        if flags & MORE:
            self._chunks.append(payload)
            return
        if self._chunks:
            payload = b"".join([*self._chunks, payload])
            self._chunks.clear()
        self._number = number
        message: Message = {"type": "websocket.receive"}
        if flags & TEXT:
            try:
                message["text"] = payload.decode()
            except UnicodeDecodeError:
                raise FrameError("a text that is not UTF-8") from None
        else:
            message["bytes"] = payload
        if flags & AGAIN:
            message["chansup.redelivered"] = True
        self._message = message
        self._receivers.wake_all()

    def hurry(self) -> None:
        """Take notice that time is nearly up: it leaves, whatever its app is busy with."""
        self._parting.hurry()

    def _hurries(self) -> bool:
        return self._context.worker.hurries

    def cut(self) -> None:
        """Take notice that the app is about to be cancelled: time is up."""
        self._parting.cut()

    def lose(self, code: int = ABNORMAL, reason: str = "") -> None:
        """Take notice that the client, or the interface, is gone."""
        standing = self._standing
        is_first = standing.left_with is None
        if is_first:
            standing.left_with = code
            self._reason = reason
            standing.code = standing.code or code
        self._receivers.wake_all()
        self._outbox.wake()
        if is_first and not (standing.returned or standing.leaving or standing.closed):
            self._context.worker.orphans.adopt(self, holds_permit=False)

    def let_go(self) -> None:
        """Have the interface forget it, as its client is gone; the app may continue for a while."""
        if not self._standing.let_go:
            self._outbox.finish()
            self._standing.let_go = True
            self._outbox.end()
            self._context.let_go(self._stream)

    # Questions

    @property
    def is_finishing(self) -> bool:
        """Whether the app does work that no client has to wait for: nobody can tell."""
        return False

    @property
    def has_in_hand(self) -> bool:
        """Whether the app deals with a message, of its client or of the channel layer."""
        return bool(self._standing.in_hand) or self._standing.connection.is_busy

    @property
    def accepted(self) -> bool:
        """Whether the app has accepted it."""
        return self._outbox.accepted

    @property
    def code(self) -> int:
        """The close code, as soon as it is known."""
        return self._standing.code

    # What the app is given

    async def run(self, application: Any) -> None:
        """Run the app for this WebSocket."""
        failed = 0
        standing = self._standing
        self._parting.task = asyncio.current_task()
        current_connection.set(standing.connection)
        try:
            await application(self.scope, self.receive, self._outbox.send)
        except ClientDisconnected:
            pass
        except asyncio.CancelledError:  # time is up
            failed = FAILED | FINISHED * standing.leaving
        except BaseException as error:  # sys.exit() in a consumer ends that, not the worker
            failed = FAILED
            standing.code = standing.code or 1011
            if not standing.gone or not says_that_client_left(error):
                self._context.report(self.scope, error)
        finally:
            self._end(failed)

    def _end(self, failed: int) -> None:
        """Tell the interface that the app has returned. Nothing is sent after that."""
        standing = self._standing
        self._outbox.finish()
        self._context.worker.orphans.ended(self)
        if standing.goodbye or failed & FINISHED:
            standing.depart()
        self._tell_channel_layer(standing.connection.farewells)
        standing.connection.on_ask = None
        standing.returned = True  # what tasks that the app left behind still do goes nowhere
        if not standing.let_go and (standing.leaving or not self._context.worker.cutting):
            left = FINISHED if standing.goodbye else failed
            self._context.link.send(pack(Kind.DONE, left, self._stream, self._given))
        standing.in_hand = 0
        if standing.left_with is None:
            standing.left_with = ABNORMAL
        self._receivers.wake_all()
        self._outbox.end()
        self._context.ended(self._stream)
        self._context.counters.count_websocket(self)

    def _tell_channel_layer(self, told: list[Callable[[], None]]) -> None:
        """Call what the channel layer wants to have called at a moment, once."""
        calls = told.copy()
        told.clear()
        for call in calls:
            try:
                call()
            except Exception as error:  # a defect there must not keep the WebSocket here
                context = {"message": "the channel layer of a WebSocket", "exception": error}
                self._context.loop.call_exception_handler(context)

    async def receive(self) -> Message:
        """Return the next event for the app."""
        standing = self._standing
        connection = standing.connection
        connection.asks_client()
        if not self._connected:
            self._connected = connection.is_answering = True
            return {"type": "websocket.connect"}
        if connection.welcomes and self._outbox.accepted:
            self._tell_channel_layer(connection.welcomes)
        while True:
            if standing.in_hand:
                self._outbox.ask(standing.in_hand)
                standing.in_hand = 0
                self._context.link.hurry()
            message = self._message
            if message is not None:
                self._message = None
                standing.in_hand = self._given = self._number
                connection.is_answering = True
                return message
            if standing.leaving and self._parting.is_due():
                return dict(GOODBYE)
            if standing.left_with is not None:
                return {
                    "type": "websocket.disconnect",
                    "code": standing.left_with,
                    "reason": self._reason,
                }
            if standing.closed:
                if self._outbox.denied:
                    standing.left_with = ABNORMAL
                else:
                    standing.left_with = standing.code or 1000
                    self._reason = self._outbox.close_reason
                continue
            await self._receivers.wait(self._context.loop)
