"""One WebSocket in the worker: what the app receives and sends, and how it leaves.

The interface sends one message at a time: the next one comes when the app has asked for more, which
is taken as the sign that it has dealt with the one it had. So when this process dies, at most one
message was in its hands.
"""

import asyncio
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from chansup.relay import scopes
from chansup.relay.appworker.errors import ClientDisconnected, UnexpectedEvent
from chansup.relay.credits import Window
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
    pieces,
    split,
)
from chansup.relay.streams import TO_WORKER, State, advance
from chansup.relay.waiters import wake

if TYPE_CHECKING:
    from chansup.relay.appworker.interface import Interface

Message = MutableMapping[str, Any]

CHECKPOINT = "chansup.handover.checkpoint"
MAX_CHECKPOINT = 16 * 1024  # bytes
ABNORMAL, SERVICE_RESTART = 1006, 1012  # RFC 6455, section 7.4, as registered with IANA
GOODBYE = {"type": "websocket.disconnect", "code": SERVICE_RESTART, "reason": "handover"}
_DEAF_AFTER = 1.0  # seconds after LEAVE that an app which does not receive may still send
_PATIENCE = 10.0  # seconds that an app has to return after it was told to leave


class WebSocket:
    """A WebSocket that this worker's app works on for a while."""

    __slots__ = (
        "_accepted", "_chunks", "_close_reason", "_closed", "_code", "_connected", "_credited",
        "_denying", "_given", "_goodbye", "_in_hand", "_interface", "_leaving", "_message",
        "_messages_out", "_number", "_parts_out", "_reason", "_returned", "_state", "_stream",
        "_unsent", "_waiter", "_window", "code", "denied", "scope", "task",
    )  # fmt: skip

    def __init__(
        self,
        interface: "Interface",
        stream: int,
        number: int,
        resumption: scopes.Resumption,
        fields: scopes.WebSocketScope,
        state: dict[str, Any] | None,
    ) -> None:
        self._interface = interface
        self._stream = stream
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
        self._returned = False  # the app
        self._goodbye = False  # the app knows that it is to leave
        self._code: int | None = None  # with which the client left
        self._reason = ""
        self._close_reason = ""  # of the app
        self._waiter: asyncio.Future[None] | None = None  # of receive()
        self._messages_out = 0
        self._parts_out = 0
        self._window: Window | None = None
        self._credited: asyncio.Future[None] | None = None  # of send()
        self._unsent: list[Any] | None = None  # flags, number, payload of a message that waits
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
            if self._window is None or not self._window.consumed(number):
                raise FrameError("credit for what was never sent")
            wake(self._credited)
        elif kind == Kind.LEAVE:
            self._leave()
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
        wake(self._waiter)

    def _leave(self) -> None:
        self._leaving = True
        self._message = None  # another worker's app gets it
        wake(self._waiter)
        loop = self._interface.loop
        if not self._in_hand and self._waiter is None:
            # Perhaps it never receives: then its next send tells it.
            loop.call_later(_DEAF_AFTER, self._refuse)

    def _refuse(self) -> None:
        if self._waiter is None and not self._in_hand:
            self._say_goodbye()
            wake(self._credited)

    def _say_goodbye(self) -> None:
        if not self._goodbye:
            self._goodbye = True
            self.code = self.code or SERVICE_RESTART
            self._interface.loop.call_later(_PATIENCE, self._cut)

    def _cut(self) -> None:
        if self.task is not None:
            self.task.cancel("told to leave, it did not return")

    def lose(self, code: int = ABNORMAL, reason: str = "") -> None:
        """Take notice that the client, or the interface, is gone."""
        if self._code is None:
            self._code = code
            self._reason = reason
            self.code = self.code or code
        wake(self._waiter)
        wake(self._credited)

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
        try:
            await application(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except Exception as error:
            failed = FAILED
            self.code = self.code or 1011
            self._interface.report(self.scope, error)
        except asyncio.CancelledError:  # time is up
            failed = FAILED | FINISHED * self._leaving
        finally:
            self.emit()
            self._returned = True  # what tasks that the app left behind still do goes nowhere
            self._in_hand = 0
            self._code = ABNORMAL if self._code is None else self._code
            wake(self._waiter)
            wake(self._credited)
            if self._window is not None:
                self._window.close()
            self._interface.ended(self._stream)
            self._interface.books.count_websocket(self)
            if self._leaving or not self._interface.worker.cutting:
                left = FINISHED if self._goodbye else failed
                self._interface.link.send(pack(Kind.DONE, left, self._stream, self._given))

    async def receive(self) -> Message:
        """Return the next event for the app."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        if self._in_hand:
            self._ask_for_more()
        while True:
            message = self._message
            if message is not None:
                self._message = None
                self._in_hand = self._given = self._number
                return message
            if self._leaving:
                self._say_goodbye()
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
            waiter = self._waiter = self._interface.loop.create_future()
            try:
                await waiter
            finally:
                if self._waiter is waiter:
                    self._waiter = None

    def _ask_for_more(self) -> None:
        if self._unsent is not None:
            self._unsent[0] |= ASKS  # with the message that was sent just now
        elif not self._returned:
            consumed = pack(Kind.CONSUMED, 0, self._stream, self._in_hand)
            self._interface.link.send(consumed)
        self._in_hand = 0
        self._interface.link.hurry()

    async def send(self, message: Message) -> None:
        """Take an event from the app."""
        if self._unsent is not None:
            self.emit()
        kind = message["type"]
        if self.gone and (kind != CHECKPOINT or self._code is not None or self._returned):
            raise ClientDisconnected
        if kind == "websocket.send":
            if not self._accepted or self._closed:
                raise UnexpectedEvent(f'"{kind}" may not come now')
            text = message.get("text")
            if text is not None:
                await self._send_message(text.encode(), TEXT)
            else:
                await self._send_message(message["bytes"], 0)
        elif kind == CHECKPOINT:
            self._store(message["checkpoint"])
        elif kind == "websocket.close":
            self._close(message)
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.http.response.start":
            self._begin_to_deny(message)
        elif kind == "websocket.http.response.body" and self._denying and not self._closed:
            await self._deny(message.get("body", b""), message.get("more_body", False))
        else:
            raise UnexpectedEvent(f'"{kind}" may not come now')

    def _accept(self, message: Message) -> None:
        if self._accepted or self._closed or self._denying:
            raise UnexpectedEvent('"websocket.accept" may not come now')
        self._accepted = True
        headers = [(bytes(name), bytes(value)) for name, value in message.get("headers") or ()]
        payload = scopes.encode((message.get("subprotocol"), headers))
        self._interface.books.count_accept()
        self._send_all(split(Kind.ACCEPT, 0, self._stream, 0, payload))

    def _close(self, message: Message) -> None:
        if self._closed or self._denying:
            raise UnexpectedEvent('"websocket.close" may not come now')
        self._closed = True
        self.denied = not self._accepted
        code = message.get("code")
        code = 1000 if code is None else code
        self.code = self.code or code
        self._close_reason = message.get("reason") or ""
        reason = self._close_reason.encode()
        self._interface.link.send(pack(Kind.CLOSE, 0, self._stream, code, reason[:MAX_PAYLOAD]))
        wake(self._waiter)

    def _begin_to_deny(self, message: Message) -> None:
        if self._accepted or self._closed or self._denying:
            raise UnexpectedEvent('"websocket.http.response.start" may not come now')
        if "websocket.http.response" not in self.scope["extensions"]:
            raise UnexpectedEvent("the server does not offer websocket.http.response")
        head = scopes.encode_head(message, False)
        self._denying = self.denied = True
        self._send_all(split(Kind.START, 0, self._stream, 0, head))

    async def _deny(self, body: bytes, more: bool) -> None:
        await self._send_parts(body, more)
        if not more:
            self._closed = True
            wake(self._waiter)

    async def _send_parts(self, body: bytes, more: bool) -> None:
        for piece, is_last in pieces(body):
            if piece or not more:
                await self._ready_for(len(piece))
                self._parts_out += 1
                ends = END if is_last and not more else 0
                self._interface.link.send(
                    pack(Kind.BODY, ends, self._stream, self._parts_out, piece)
                )

    async def _send_message(self, payload: bytes, flags: int) -> None:
        number = self._messages_out = self._messages_out + 1
        window = self._window
        link = self._interface.link
        if (
            len(payload) <= MAX_PAYLOAD
            and window is not None
            and window.is_open
            and not link.crowded
        ):
            window.sent(len(payload))
            self._unsent = [flags, number, payload]
            link.send_late(self)
            return
        for piece, is_last in pieces(payload):
            await self._ready_for(len(piece))
            more = 0 if is_last else MORE
            link.send(pack(Kind.MESSAGE, flags | more, self._stream, number, piece))

    def emit(self) -> None:
        """Send the message that waits for the end of this turn."""
        if self._unsent is not None:
            (flags, number, payload), self._unsent = self._unsent, None
            self._interface.link.send(pack(Kind.MESSAGE, flags, self._stream, number, payload))

    async def _ready_for(self, size: int) -> None:
        """Wait until `size` bytes may be sent, and count them."""
        window = self._window
        if window is None:
            window = self._window = Window(self._interface.budget)
        link = self._interface.link
        while not window.is_open or link.crowded:
            if link.crowded:
                await link.room()
            else:
                link.send_control(pack(Kind.EXHAUSTED, 0, 0, 1))
                self._credited = self._interface.loop.create_future()
                await self._credited
            if self.gone:
                raise ClientDisconnected
        window.sent(size)

    def _store(self, checkpoint: bytes | str) -> None:
        payload = scopes.encode(checkpoint)
        if not isinstance(checkpoint, bytes | str) or len(payload) > MAX_CHECKPOINT:
            raise UnexpectedEvent(
                f'"{CHECKPOINT}": expected bytes or str of at most {MAX_CHECKPOINT} bytes'
            )
        self._interface.link.send(pack(Kind.CHECKPOINT, 0, self._stream, 0, payload))

    def _send_all(self, frames: Iterator[bytes]) -> None:
        for frame in frames:
            self._interface.link.send(frame)
