"""The stay of one WebSocket at one worker: its stream, with its checks and counters."""

from collections.abc import Coroutine, MutableMapping
from typing import Any, Protocol

import msgspec

from chansup.protocol import relay_board as board
from chansup.protocol.sessions import WORDS, Handover
from chansup.relay import scopes
from chansup.relay.credits import MESSAGE_COST, REPORTED
from chansup.relay.frames import (
    ASKS,
    FAILED,
    MAX_PAYLOAD,
    MORE,
    TEXT,
    FrameError,
    Kind,
    pack,
    split,
)
from chansup.relay.interface.worker import Movable, Worker
from chansup.relay.link import Link
from chansup.relay.streams import TO_INTERFACE, State, advance

Message = MutableMapping[str, Any]

MAX_MESSAGE = 16 * 1024 * 1024  # bytes that an app may send at once


class StreamOwner(Movable, Protocol):
    """The WebSocket, as the one who goes from worker to worker."""

    checkpoint: Any  # the newest of the app

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end."""

    def works_at(self, attachment: "Attachment") -> bool:
        """Whether it is open, and `attachment` is where."""

    def worker_lost(self, attachment: "Attachment") -> None:
        """Take notice that the worker is gone."""

    def app_accepts(
        self, attachment: "Attachment", subprotocol: str | None, headers: scopes.Headers
    ) -> None:
        """Open it for the client, or continue after a handover."""

    def app_decides(self, word: Handover) -> None:
        """Take the app's word on whether it may move."""

    def app_returned(self, attachment: "Attachment", flags: int, given: int) -> None:
        """Take notice that the app has returned; `given` is the last message that it had."""


class AppEvents(Protocol):
    """What the app and the client of a WebSocket say to each other."""

    @property
    def is_writing(self) -> bool:
        """Whether something waits for the client, which may be slow."""

    def sent(self) -> None:
        """Take notice that the worker has all that the client sent."""

    def app_sends(self, attachment: "Attachment", event: Message, size: int) -> None:
        """Pass a message on. `size` bytes of it were not reported as consumed yet."""

    def app_sends_too_much(self, attachment: "Attachment") -> None:
        """Close it: such a message is not kept in memory."""

    def app_asks(self, number: int | None = None) -> None:
        """Take notice that it has dealt with a message, the newest if `number` is None."""

    def app_closes(self, code: int, reason: str) -> None:
        """Close it; after a handover that is a refusal."""

    def app_denies(self, attachment: "Attachment", kind: int, flags: int, payload: bytes) -> None:
        """Pass on an HTTP response instead of an acceptance. Raises FrameError."""


class Attachment:
    """A WebSocket at a worker, from OPEN to DONE."""

    __slots__ = (
        "_app_events", "_link", "_messages_out", "_owed", "_parts", "_state", "_stream",
        "_told", "_unreported", "is_sending", "websocket", "worker",
    )  # fmt: skip

    def __init__(
        self,
        websocket: StreamOwner,
        app_events: AppEvents,
        worker: Worker,
        number: int,
        opening: bytes,
    ) -> None:
        """Begin, after `number` messages of the client that other workers had."""
        assert worker.link is not None
        self.websocket = websocket
        self._app_events = app_events
        self.worker = worker
        self._link: Link = worker.link
        self._state = State.CONNECTING
        self._messages_out = 0
        self._parts: dict[int, list[bytes]] | None = None  # of what is larger than a frame
        self._unreported = 0  # bytes that the client had
        self.is_sending = False  # a message that is not complete yet
        self._owed = 0  # bytes of a message that is not complete
        self._told = False  # the worker knows that the client is gone
        worker.websockets += 1
        self._stream = worker.begin(self)
        for frame in split(Kind.OPEN, 0, self._stream, number, opening):
            self._link.send(frame)

    # To the worker

    def send(self, flags: int, number: int, payload: bytes) -> bool:
        """Send a message of the client. Say whether it is so small that all of it is sent."""
        if len(payload) > MAX_PAYLOAD:
            self.is_sending = True
            self.websocket.background(self._send_parts(flags, number, payload))
            return False
        self._link.send(pack(Kind.MESSAGE, flags, self._stream, number, payload))
        self._link.hurry()
        return True

    async def _send_parts(self, flags: int, number: int, payload: bytes) -> None:
        for frame in split(Kind.MESSAGE, flags, self._stream, number, payload):
            while self._link.crowded:
                self.worker.pool.counters.add(board.EXHAUSTED)
                await self._link.room()
            if not self.websocket.works_at(self):
                return  # it leaves: another worker gets all of it
            self._link.send(frame)
        self.is_sending = False
        self._app_events.sent()

    def leave(self, for_good: bool) -> None:
        """Ask the app to let it go; `for_good`: to no other worker."""
        self._link.send(pack(Kind.LEAVE, 0, self._stream, int(for_good)))

    def disconnect(self, code: int, reason: bytes) -> None:
        """Tell the app that the client is gone; once."""
        if not self._told:
            self._told = True
            self._link.send(pack(Kind.DISCONNECT, 0, self._stream, code, reason))

    def consumed(self, size: int) -> None:
        """Take notice that the client had `size` bytes of what the app sent."""
        self._unreported += size
        if self._unreported >= REPORTED:
            self._link.send_control(pack(Kind.CREDIT, 0, self._stream, self._unreported))
            self._unreported = 0

    def catch_up(self) -> None:
        """Take notice that the client had all that came, but for incomplete messages."""
        if self._owed:
            owed, self._owed = self._owed, 0
            self.consumed(owed)

    # From the worker

    def worker_lost(self) -> None:
        """Take notice that the worker is gone."""
        self.worker.websockets -= 1
        self.websocket.worker_lost(self)

    def take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Take a frame of the stream. Raises FrameError."""
        if flags & MORE:
            self._gather(kind, payload)
            return
        size = len(payload)
        if self._parts and kind in self._parts:
            payload = b"".join([*self._parts.pop(kind), payload])
        self._state = advance(TO_INTERFACE, self._state, kind, flags)
        if kind == Kind.MESSAGE:
            self._messages_out += 1
            if number != self._messages_out:
                raise FrameError(f"message {number} instead of {self._messages_out}")
            if flags & FAILED:
                return  # the rest of it will not come
            app_events = self._app_events
            app_events.app_sends(self, _event(flags, payload), size + MESSAGE_COST)
            if flags & ASKS:
                app_events.app_asks()
        elif kind == Kind.CONSUMED:
            self._app_events.app_asks(number)
        elif kind == Kind.DONE:
            self.worker.websockets -= 1
            self.websocket.app_returned(self, flags, number)
        elif kind == Kind.CHECKPOINT and number:
            if number <= len(WORDS):
                self.websocket.app_decides(WORDS[number - 1])
        elif kind == Kind.CHECKPOINT:
            self.websocket.checkpoint = _decoded(scopes.decode_checkpoint, payload)
        elif kind == Kind.ACCEPT:
            self.websocket.app_accepts(self, *_decoded(scopes.decode_accept, payload))
        elif kind == Kind.CLOSE:
            self._app_events.app_closes(number, payload.decode("utf-8", "replace"))
        else:
            self._app_events.app_denies(self, kind, flags, payload)

    def _gather(self, kind: int, payload: bytes) -> None:
        """Keep a part of a payload larger than a frame."""
        if self._parts is None:
            self._parts = {}
        parts = self._parts.setdefault(kind, [])
        parts.append(payload)
        size = len(parts) * MAX_PAYLOAD
        if kind == Kind.MESSAGE:
            # The whole of it must come in; but not before the client had what came earlier.
            self._owed += len(payload) + MESSAGE_COST
            if not self._app_events.is_writing:
                self.catch_up()
            if size > MAX_MESSAGE:
                parts.clear()
                self._app_events.app_sends_too_much(self)
        elif size > scopes.MAX_EVENT:
            raise FrameError("an event that is too large")


def _event(flags: int, payload: bytes) -> Message:
    if not flags & TEXT:
        return {"type": "websocket.send", "bytes": payload}
    try:
        return {"type": "websocket.send", "text": payload.decode()}
    except UnicodeDecodeError:
        raise FrameError("a text that is not UTF-8") from None


def _decoded(decode: Any, payload: bytes) -> Any:
    try:
        return decode(payload)
    except msgspec.DecodeError as error:
        raise FrameError(f"a payload that cannot be read: {error}") from None
