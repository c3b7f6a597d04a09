"""What the app of a WebSocket sends: checked, in order, as fast as the client takes it."""

from collections.abc import Iterator, MutableMapping
from typing import Any

from chansup.handover import words
from chansup.handover.errors import ClientDisconnected, UnexpectedEvent
from chansup.handover.extension import CHECKPOINT, POLICY
from chansup.handover.standing import Standing
from chansup.relay import scopes
from chansup.relay.appworker import events
from chansup.relay.appworker.context import StreamContext
from chansup.relay.appworker.sender import Sender
from chansup.relay.credits import MESSAGE_COST
from chansup.relay.frames import (
    ASKS,
    FAILED,
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
from chansup.waiters import Waiters

Message = MutableMapping[str, Any]


class Outbox:
    """The sending half of one WebSocket in the worker."""

    __slots__ = (
        "_checkpoint", "_context", "_denying", "_in_parts", "_may_deny", "_messages_out",
        "_receivers", "_sender", "_standing", "_stream", "_unsent", "accepted", "close_reason",
        "denied",
    )  # fmt: skip

    def __init__(
        self,
        context: StreamContext,
        stream: int,
        standing: Standing,
        receivers: Waiters,
        may_deny: bool,
    ) -> None:
        """`receivers` are woken when the app closes. `may_deny`: with a response of its own."""
        self._context = context
        self._stream = stream
        self._standing = standing
        self._receivers = receivers
        self._may_deny = may_deny
        self._denying = False
        self._messages_out = 0
        self._in_parts = False  # the newest message that left is not complete
        self._sender: Sender | None = None
        self._unsent: list[Any] | None = None  # flags, number, payload of a message that waits
        self._checkpoint: bytes | None = None  # the newest one, while it waits
        self.accepted = False
        self.denied = False
        self.close_reason = ""

    async def send(self, message: Message) -> None:
        """Take an event from the app."""
        kind = message["type"]
        if kind == CHECKPOINT:
            await self._store(message["checkpoint"])
            return
        if kind == POLICY:
            self._say(words.policy(message))
            return
        if self._unsent is not None or self._checkpoint is not None:
            self.emit()
        standing = self._standing
        if standing.gone and not (kind == "websocket.accept" and self._left_early):
            raise standing.disconnected()
        if kind == "websocket.send":
            if not self.accepted or standing.closed:
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
        standing = self._standing
        return standing.left_with is not None and not self.accepted and not standing.returned

    def _check(self) -> None:
        """Raise if nothing may be sent any more. A message that has begun is still completed."""
        standing = self._standing
        is_over = standing.left_with is not None or standing.returned
        if standing.gone and (not self._in_parts or is_over):
            raise standing.disconnected()
        if standing.closed:
            raise UnexpectedEvent("the app has closed this WebSocket")

    # How it begins and ends

    def _accept(self, message: Message) -> None:
        if self.accepted or self._standing.closed or self._denying:
            raise UnexpectedEvent('"websocket.accept" may not come now')
        payload = events.accept(message)
        self.accepted = True
        self._context.counters.count_accept()
        if self._standing.let_go:
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
        standing = self._standing
        if standing.closed or self._denying:
            raise UnexpectedEvent('"websocket.close" may not come now')
        standing.closed = True
        self.denied = not self.accepted
        standing.code = standing.code or code
        self.close_reason = reason
        self._context.link.send(pack(Kind.CLOSE, 0, self._stream, code, reason.encode()))
        self._receivers.wake_all()

    def _begin_to_deny(self, message: Message) -> None:
        if self.accepted or self._standing.closed or self._denying:
            raise UnexpectedEvent('"websocket.http.response.start" may not come now')
        if not self._may_deny:
            raise UnexpectedEvent("the server does not offer websocket.http.response")
        head = events.denial(message)
        self._denying = self.denied = True
        self._send_all(split(Kind.START, 0, self._stream, 0, head))

    async def _deny(self, message: Message) -> None:
        body = words.data(message.get("body", b""), "body")
        more = bool(message.get("more_body", False))
        await self._ready_sender().send_body(body, more, self._check)
        if not more:
            self._standing.closed = True
            self._receivers.wake_all()

    # Messages, checkpoints, words

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
        sender = self._ready_sender()
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

    def _ready_sender(self) -> Sender:
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
        self._expect_no_end(CHECKPOINT)
        if self._checkpoint is None:
            link.send_late(self)
        self._checkpoint = payload

    def _say(self, word: int) -> None:
        """Tell the interface, in order, whether the app wants to be moved."""
        self.emit()
        self._expect_no_end(POLICY)
        if self._context.protocol < WORDS_SINCE:
            return  # it would take this for a checkpoint
        nothing = scopes.encode(None)
        self._context.link.send(pack(Kind.CHECKPOINT, 0, self._stream, word, nothing))

    def _expect_no_end(self, kind: str) -> None:
        """Raise if the client or the app is gone, or the app denies: the next app gets nothing."""
        if self._standing.left_with is not None or self._standing.returned:
            raise ClientDisconnected
        if self._denying:
            raise UnexpectedEvent(f'"{kind}" may not come now')

    def _send_all(self, frames: Iterator[bytes]) -> None:
        for frame in frames:
            self._context.link.send(frame)

    # For the receiving half

    def ask(self, number: int) -> None:
        """Tell the interface that the app has dealt with message `number`, after what it sent."""
        if self._checkpoint is not None:
            self.emit()  # in order
        if self._unsent is not None:
            self._unsent[0] |= ASKS  # with the message that was sent just now
        elif not self._standing.returned and not self._standing.let_go:
            self._context.link.send(pack(Kind.CONSUMED, 0, self._stream, number))

    def credit(self, size: int) -> None:
        """Take notice that the client had `size` bytes. Raises FrameError."""
        if self._sender is None:
            raise FrameError("credit for what was never sent")
        if not self._standing.let_go:
            self._sender.credit(size)

    def wake(self) -> None:
        """Let whoever waits look whether something may still be sent."""
        if self._sender is not None:
            self._sender.wake()

    def finish(self) -> None:
        """Send what waits: nothing more comes."""
        self.emit()
        self._break_off()

    def end(self) -> None:
        """Give back the window: nothing more is sent."""
        if self._sender is not None:
            self._sender.end()
