"""One WebSocket in the worker: what the app receives and sends, and how it leaves.

The interface sends one message at a time: the next one comes when the app has asked for more, which
is taken as the sign that it has dealt with the one it had. So when this process dies, at most one
message was in its hands.
"""

import asyncio
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from chansup.protocol.connection import Connection
from chansup.protocol.connection import connection as current_connection
from chansup.relay import scopes
from chansup.relay.appworker import events
from chansup.relay.appworker.context import StreamContext
from chansup.relay.appworker.errors import (
    ClientDisconnected,
    UnexpectedEvent,
    says_that_client_left,
)
from chansup.relay.appworker.sender import Sender
from chansup.relay.credits import MESSAGE_COST
from chansup.relay.extension import CHECKPOINT, POLICY
from chansup.relay.frames import (
    AGAIN,
    ASKS,
    FAILED,
    FINISHED,
    MAX_PAYLOAD,
    MORE,
    TEXT,
    WORDS_SINCE,
    FrameError,
    Kind,
    pack,
    pieces,
    split,
)
from chansup.relay.streams import TO_WORKER, State, advance
from chansup.relay.waiters import Waiters

Message = MutableMapping[str, Any]

ABNORMAL, SERVICE_RESTART = 1006, 1012  # RFC 6455, section 7.4, as registered with IANA
GOODBYE = {"type": "websocket.disconnect", "code": SERVICE_RESTART, "reason": "handover"}
_DEAF_AFTER = 1.0  # seconds after LEAVE that an app which does not receive may still send
_SLOW_CONNECT = 5.0  # the same, for one that has not received since websocket.connect
_PATIENCE = 10.0  # seconds that an app has to return after it was told to leave


class WebSocket:
    """A WebSocket that this worker's app works on for a while."""

    __slots__ = (
        "_accepted", "_checkpoint", "_chunks", "_close_reason", "_closed", "_code", "_connected",
        "_connection", "_context", "_deaf", "_denying", "_for_good", "_given", "_goodbye",
        "_in_hand", "_in_parts", "_leaving", "_let_go", "_message", "_messages_out", "_number",
        "_reason", "_receivers", "_returned", "_sender", "_state", "_stream", "_unsent", "code",
        "denied", "scope", "task",
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
        self._connection = Connection(resumption.id)
        self._connection.on_ask = self._layer_is_asked
        self.scope = scopes.websocket_scope(fields, resumption, state)
        self._state = State.ATTACHED
        self._number = number  # messages that came in, over all workers
        self._chunks: list[bytes] = []
        self._message: Message | None = None  # not given to the app yet
        self._in_hand = 0  # number of the message that the app deals with
        self._given = number  # number of the last message that the app was given
        self._connected = False  # the app knows of websocket.connect
        self._accepted = False
        self._denying = False
        self._closed = False  # by the app
        self._leaving = False
        self._deaf = False  # it is to leave, and does not receive
        self._for_good = False  # it leaves, and no other worker continues
        self._returned = False  # the app
        self._let_go = False  # the interface was told that it is over; the app continues
        self._goodbye = False  # the app knows that it is to leave
        self._code: int | None = None  # with which the client left
        self._reason = ""
        self._close_reason = ""  # of the app
        self._receivers = Waiters()
        self._messages_out = 0
        self._in_parts = False  # the newest message that left is not complete
        self._sender: Sender | None = None
        self._unsent: list[Any] | None = None  # flags, number, payload of a message that waits
        self._checkpoint: bytes | None = None  # the newest one, while it waits
        self.code = 0  # close code, as soon as it is known
        self.denied = False
        self.task: asyncio.Task[None] | None = None

    # What comes from the interface

    def take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Take a frame of this stream. Raises FrameError."""
        self._state = advance(TO_WORKER, self._state, kind, flags)
        if kind == Kind.MESSAGE:
            self._take_message(flags, number, payload)
        elif kind == Kind.CREDIT:
            if self._sender is None:
                raise FrameError("credit for what was never sent")
            if not self._let_go:
                self._sender.credit(number)
        elif kind == Kind.LEAVE:
            self._leave(bool(number))
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

    def _leave(self, for_good: bool) -> None:
        self._leaving = True
        self._for_good = for_good
        self._message = None  # another worker's app gets it
        self._receivers.wake_all()
        if not self._in_hand:
            # Perhaps it never receives, or was just cancelled: then its next send tells it.
            is_connecting = self._connection.is_answering
            patience = _SLOW_CONNECT if is_connecting else _DEAF_AFTER
            self._context.loop.call_later(patience, self._refuse)

    def _refuse(self) -> None:
        if not self._in_hand and not self._receivers and not self._returned:
            self._deaf = True
            self._try_to_part()

    def _layer_is_asked(self) -> None:
        """Take notice that the app asks the channel layer for more."""
        if self._leaving and not self._goodbye:
            if asyncio.get_running_loop() is self._context.loop:
                self._try_to_part()
            else:
                self._context.loop.call_soon_threadsafe(self._try_to_part)

    def hurry(self) -> None:
        """Take notice that time is nearly up: it leaves, whatever its app is busy with."""
        if self._leaving:
            self._try_to_part()

    def _try_to_part(self) -> None:
        """Tell the app to leave, at once, if it is idle."""
        if self._in_hand or self._returned:
            return
        if self._receivers:
            if self._part():
                self._receivers.wake_all()
        elif self._deaf and not self._is_kept():
            self._say_goodbye()
            self._wake_sender()

    def _is_kept(self) -> bool:
        """Whether the app may finish what it has in hand of the channel layer before it leaves."""
        if not self._connection.is_busy:
            return False
        if not self._context.worker.hurries:
            return True
        self._connection.unfinished = True
        return False

    def _part(self) -> bool:
        """Say whether the app is to be told that it leaves; from now on nothing is given to it."""
        if not self._goodbye and self._is_kept():
            return False
        self._say_goodbye()
        self._depart()
        return True

    def _say_goodbye(self) -> None:
        if not self._goodbye:
            self._goodbye = True
            self.code = self.code or SERVICE_RESTART
            self._context.loop.call_later(_PATIENCE, self._cut)

    def _cut(self) -> None:
        if self.task is not None and not self._returned:
            self.cut()
            self.task.cancel("told to leave, it did not return")

    def cut(self) -> None:
        """Take notice that the app is about to be cancelled: time is up."""
        if not self._in_hand:  # perhaps it is in the midst of what it had from the channel layer
            self._connection.unfinished = True
        self._depart()

    def _depart(self) -> None:
        """Tell the channel layer that the app ends, and another worker continues."""
        if self._code is None and not self._closed and not self._for_good:
            self._connection.leaving = True

    def _disconnected(self) -> ClientDisconnected:
        """Return what a send raises, whoever is gone."""
        if self._goodbye:
            self._depart()
        return ClientDisconnected()

    def lose(self, code: int = ABNORMAL, reason: str = "") -> None:
        """Take notice that the client, or the interface, is gone."""
        is_first = self._code is None
        if is_first:
            self._code = code
            self._reason = reason
            self.code = self.code or code
        self._receivers.wake_all()
        self._wake_sender()
        if is_first and not (self._returned or self._leaving or self._closed):
            self._context.worker.orphans.adopt(self, holds_permit=False)

    def let_go(self) -> None:
        """Have the interface forget it, as its client is gone; the app may continue for a while."""
        if not self._let_go:
            self.emit()
            self._break_off()
            self._let_go = True
            if self._sender is not None:
                self._sender.end()
            self._context.let_go(self._stream)

    @property
    def is_finishing(self) -> bool:
        """Whether the app does work that no client has to wait for: nobody can tell."""
        return False

    @property
    def has_in_hand(self) -> bool:
        """Whether the app deals with a message, of its client or of the channel layer."""
        return bool(self._in_hand) or self._connection.is_busy

    def _wake_sender(self) -> None:
        if self._sender is not None:
            self._sender.wake()

    @property
    def gone(self) -> bool:
        """Whether what the app sends goes nowhere."""
        return self._code is not None or self._goodbye or self._returned

    @property
    def accepted(self) -> bool:
        """Whether the app has accepted it."""
        return self._accepted

    # What the app is given, and gives

    async def run(self, application: Any) -> None:
        """Run the app for this WebSocket."""
        failed = 0
        current_connection.set(self._connection)
        try:
            await application(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except asyncio.CancelledError:  # time is up
            failed = FAILED | FINISHED * self._leaving
        except BaseException as error:  # sys.exit() in a consumer ends that, not the worker
            failed = FAILED
            self.code = self.code or 1011
            if not self.gone or not says_that_client_left(error):
                self._context.report(self.scope, error)
        finally:
            self._end(failed)

    def _end(self, failed: int) -> None:
        """Tell the interface that the app has returned. Nothing is sent after that."""
        self.emit()
        self._break_off()
        self._context.worker.orphans.ended(self)
        if self._goodbye or failed & FINISHED:
            self._depart()
        self._tell_channel_layer(self._connection.farewells)
        self._connection.on_ask = None
        self._returned = True  # what tasks that the app left behind still do goes nowhere
        if not self._let_go and (self._leaving or not self._context.worker.cutting):
            left = FINISHED if self._goodbye else failed
            self._context.link.send(pack(Kind.DONE, left, self._stream, self._given))
        self._in_hand = 0
        self._code = ABNORMAL if self._code is None else self._code
        self._receivers.wake_all()
        if self._sender is not None:
            self._sender.end()
        self._context.ended(self._stream)
        self._context.books.count_websocket(self)

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
        connection = self._connection
        connection.asks_client()
        if not self._connected:
            self._connected = connection.is_answering = True
            return {"type": "websocket.connect"}
        if self._accepted and connection.welcomes:
            self._tell_channel_layer(connection.welcomes)
        while True:
            if self._in_hand:
                self._ask_for_more()
            message = self._message
            if message is not None:
                self._message = None
                self._in_hand = self._given = self._number
                connection.is_answering = True
                return message
            if self._leaving and self._part():
                return dict(GOODBYE)
            if self._code is not None:
                return {
                    "type": "websocket.disconnect",
                    "code": self._code,
                    "reason": self._reason,
                }
            if self._closed:
                if self.denied:
                    self._code = ABNORMAL
                else:
                    self._code, self._reason = self.code or 1000, self._close_reason
                continue
            await self._receivers.wait(self._context.loop)

    def _ask_for_more(self) -> None:
        if self._checkpoint is not None:
            self.emit()  # in order
        if self._unsent is not None:
            self._unsent[0] |= ASKS  # with the message that was sent just now
        elif not self._returned and not self._let_go:
            consumed = pack(Kind.CONSUMED, 0, self._stream, self._in_hand)
            self._context.link.send(consumed)
        self._in_hand = 0
        self._context.link.hurry()

    async def send(self, message: Message) -> None:
        """Take an event from the app."""
        kind = message["type"]
        if kind == CHECKPOINT:
            await self._store(message["checkpoint"])
            return
        if kind == POLICY:
            self._say(events.policy(message))
            return
        if self._unsent is not None or self._checkpoint is not None:
            self.emit()
        if self.gone and not (kind == "websocket.accept" and self._left_early):
            raise self._disconnected()
        if kind == "websocket.send":
            if not self._accepted or self._closed:
                raise UnexpectedEvent(f'"{kind}" may not come now')
            text = message.get("text")
            if type(text) is str:
                payload, is_text = text.encode(), True
            else:
                payload, is_text = events.payload_of(message)
            await self._send_message(payload, TEXT if is_text else 0)
        elif kind == "websocket.close":
            await self._close(message)
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.http.response.start":
            self._begin_to_deny(message)
        elif kind == "websocket.http.response.body" and self._denying:
            await self._deny(message)
        else:
            raise UnexpectedEvent(f'"{kind}" may not come now')

    @property
    def _left_early(self) -> bool:
        """Whether the client went while the app still decides.

        The app may accept then, and hears of the disconnect: what its `connect` has set up, its
        `disconnect` takes down again.
        """
        return self._code is not None and not self._accepted and not self._returned

    def _check(self) -> None:
        """Raise if nothing may be sent any more. A message that has begun is still completed."""
        if self.gone and (not self._in_parts or self._code is not None or self._returned):
            raise self._disconnected()
        if self._closed:
            raise UnexpectedEvent("the app has closed this WebSocket")

    def _accept(self, message: Message) -> None:
        if self._accepted or self._closed or self._denying:
            raise UnexpectedEvent('"websocket.accept" may not come now')
        payload = events.accept(message)
        self._accepted = True
        self._context.books.count_accept()
        if self._let_go:
            return
        self._send_all(split(Kind.ACCEPT, 0, self._stream, 0, payload))

    async def _close(self, message: Message) -> None:
        """Close it, after the messages that other tasks have begun to send."""
        code, reason = events.close(message)
        sender = self._sender
        if sender is None or not sender.turns.is_taken:
            self._close_now(code, reason)
            return
        await sender.turns.take(self._context.loop)
        try:
            self._check()
            self._close_now(code, reason)
        finally:
            sender.turns.give()

    def _close_now(self, code: int, reason: str) -> None:
        if self._closed or self._denying:
            raise UnexpectedEvent('"websocket.close" may not come now')
        self._closed = True
        self.denied = not self._accepted
        self.code = self.code or code
        self._close_reason = reason
        self._context.link.send(pack(Kind.CLOSE, 0, self._stream, code, reason.encode()))
        self._receivers.wake_all()

    def _begin_to_deny(self, message: Message) -> None:
        if self._accepted or self._closed or self._denying:
            raise UnexpectedEvent('"websocket.http.response.start" may not come now')
        if "websocket.http.response" not in self.scope["extensions"]:
            raise UnexpectedEvent("the server does not offer websocket.http.response")
        head = events.denial(message)
        self._denying = self.denied = True
        self._send_all(split(Kind.START, 0, self._stream, 0, head))

    async def _deny(self, message: Message) -> None:
        body = events.data(message.get("body", b""), "body")
        more = bool(message.get("more_body", False))
        await self._counting_sender().send_body(body, more, self._check)
        if not more:
            self._closed = True
            self._receivers.wake_all()

    async def _send_message(self, payload: bytes, flags: int) -> None:
        sender = self._sender
        link = self._context.link
        if (
            len(payload) <= MAX_PAYLOAD
            and sender is not None
            and not sender.turns.is_taken
            and sender.window.is_open
            and not link.crowded
        ):
            sender.window.sent(len(payload) + MESSAGE_COST)
            number = self._messages_out = self._messages_out + 1
            self._unsent = [flags, number, payload]
            link.send_late(self)
            return
        sender = self._counting_sender()
        await sender.turns.take(self._context.loop)
        try:
            for piece, is_last in pieces(payload):
                await sender.ready(self._check)
                sender.window.sent(len(piece) + MESSAGE_COST)
                if not self._in_parts:
                    self._messages_out += 1
                self._in_parts = not is_last
                more = 0 if is_last else MORE
                link.send(pack(Kind.MESSAGE, flags | more, self._stream, self._messages_out, piece))
        finally:
            self._break_off()
            sender.turns.give()

    def _counting_sender(self) -> Sender:
        if self._sender is None:
            self._sender = Sender(self._context, self._stream)
        return self._sender

    def _break_off(self) -> None:
        """Say that a message, of which parts have left, is not to be completed."""
        if self._in_parts:
            self._in_parts = False
            broken_off = pack(Kind.MESSAGE, FAILED, self._stream, self._messages_out)
            self._context.link.send(broken_off)

    def emit(self) -> None:
        """Send what waits for the end of this turn: a message, and a checkpoint after it."""
        if self._unsent is not None:
            (flags, number, payload), self._unsent = self._unsent, None
            self._context.link.send(pack(Kind.MESSAGE, flags, self._stream, number, payload))
        if self._checkpoint is not None:
            checkpoint, self._checkpoint = self._checkpoint, None
            self._send_all(split(Kind.CHECKPOINT, 0, self._stream, 0, checkpoint))

    async def _store(self, checkpoint: bytes | str) -> None:
        """Keep a checkpoint until the end of this turn: the newest one counts."""
        payload = events.checkpoint(checkpoint)
        link = self._context.link
        while link.crowded:
            await link.room()
        if self._code is not None or self._returned:
            raise ClientDisconnected
        if self._denying:
            raise UnexpectedEvent(f'"{CHECKPOINT}" may not come now')
        if self._checkpoint is None:
            link.send_late(self)
        self._checkpoint = payload

    def _say(self, word: int) -> None:
        """Tell the interface, in order, whether the app wants to be moved."""
        self.emit()
        if self._code is not None or self._returned:
            raise ClientDisconnected
        if self._denying:
            raise UnexpectedEvent(f'"{POLICY}" may not come now')
        if self._context.protocol < WORDS_SINCE:
            return  # it would take this for a checkpoint
        nothing = scopes.encode(None)
        self._context.link.send(pack(Kind.CHECKPOINT, 0, self._stream, word, nothing))

    def _send_all(self, frames: Iterator[bytes]) -> None:
        for frame in frames:
            self._context.link.send(frame)
