"""What passes between the client and the app of one WebSocket, whatever worker the app runs in.

One message of the client is under way at a time: it is kept here until the app has asked for more.
So whatever happens to a worker, this side knows which message may have been lost with it.
"""

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

import msgspec

from chansup.protocol import relay_board as board
from chansup.relay import scopes
from chansup.relay.frames import AGAIN, END, FrameError, Kind
from chansup.relay.interface.attachment import Attachment
from chansup.relay.interface.client import Client
from chansup.relay.interface.handovers import CLOSED
from chansup.relay.interface.phases import PAUSED, Event, Phase
from chansup.relay.interface.pool import RejectedError
from chansup.relay.interface.standing import Standing
from chansup.relay.interface.suspicion import Suspicion

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# RFC 6455, section 7.4, and IANA's registry
POLICY, TOO_BIG, INTERNAL_ERROR = 1008, 1009, 1011

_log = logging.getLogger("chansup.relay")


class Ending(Protocol):
    """The course of a WebSocket, as what passes on it may change it."""

    @property
    def is_to_close(self) -> bool:
        """Whether its worker is gone, and no other one may continue with it."""

    def give_up(self, result: str, reason: str) -> None:
        """Close it: nobody continues with it."""

    def end(self, result: str, code: int | None = None, reason: str = "") -> None:
        """End it. `code`: tell the client, if it is still there."""


class Passage:
    """The messages of one WebSocket, in both directions."""

    __slots__ = (
        "_ending", "_held", "_number", "_pending", "_standing", "_suspicion", "client",
        "redeliver",
    )  # fmt: skip

    def __init__(
        self,
        ending: Ending,
        standing: Standing,
        suspicion: Suspicion,
        redeliver: bool,
        receive: Receive,
        send: Send,
    ) -> None:
        """`redeliver`: another worker gets the message that a dead one had in hand."""
        self._ending = ending
        self._standing = standing
        self._suspicion = suspicion
        self._number = 0  # messages of the client so far
        self._pending: tuple[int, bytes] | None = None  # flags and payload of the newest of these
        self._held = False  # it waits for the end of a handover
        self.redeliver = redeliver
        self.client = Client(self, standing, receive, send)

    # What the app sends

    @property
    def is_writing(self) -> bool:
        """Whether something waits for the client, which may be slow."""
        return self.client.is_writing

    def app_sends(self, attachment: Attachment, event: Message, size: int) -> None:
        """Pass a message on. `size` bytes of it were not reported as consumed yet."""
        phase = self._standing.phase
        if phase is Phase.OPEN or phase is Phase.LEAVING:
            self.client.put(event, size, attachment)

    def app_sends_too_much(self, attachment: Attachment) -> None:
        """Close it: such a message is not kept in memory."""
        if self._standing.is_open_for_client:
            path = self._standing.host_and_path()[1]
            _log.error("WebSocket %s: the app sent too large a message", path)
            attachment.disconnect(TOO_BIG, b"")
            self._ending.end("left", TOO_BIG, "")

    def app_asks(self, number: int | None = None) -> None:
        """Take notice that it has dealt with a message, the newest if `number` is None."""
        if self._pending is not None and number in (None, self._number):
            self._suspicion.survived()
            self._forget()

    def app_closes(self, code: int, reason: str) -> None:
        """Close it; after a handover that is a refusal."""
        if self._standing.phase is Phase.REJOINING:
            self._ending.end("denied", code if 3000 <= code < 5000 else POLICY, reason)
        else:
            self._ending.end("left", code if _may_be_sent(code) else INTERNAL_ERROR, reason)

    def app_denies(self, attachment: Attachment, kind: int, flags: int, payload: bytes) -> None:
        """Pass on an HTTP response instead of an acceptance. Raises FrameError."""
        standing = self._standing
        standing.release_permit()
        if standing.phase is Phase.REJOINING:
            self._ending.end("denied", POLICY, "")
        if standing.phase is not Phase.CONNECTING:
            return
        if kind == Kind.START:
            try:
                head = scopes.decode_head(payload)
            except msgspec.DecodeError as error:
                raise FrameError(f"no denial: {error}") from None
            self.client.put(
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
        self.client.put(body, len(payload), attachment)
        if is_last:
            standing.move_on(Event.ENDED)

    # What the client sends

    @property
    def has_pending(self) -> bool:
        """Whether its newest message is not dealt with yet: the next one has to wait."""
        return self._pending is not None

    def client_says(self, flags: int, payload: bytes) -> None:
        """Take its next message."""
        self._pending = flags, payload
        self._number += 1
        if self._standing.phase is Phase.OPEN:
            self._transmit()
        else:
            self._hold(True)
            if self._ending.is_to_close:  # who speaks shall not wait for an answer that cannot come
                self._ending.give_up(*CLOSED)

    def _transmit(self) -> None:
        """Send the client's newest message to the worker."""
        assert self._pending is not None
        attachment = self._standing.attachment
        assert attachment is not None
        if self._held:
            self._hold(False)
        flags, payload = self._pending
        if attachment.send(flags, self._number, payload):
            self.sent()

    def sent(self) -> None:
        """Take notice that the worker has all that the client sent."""
        if self._standing.left_with is not None:
            self._standing.tell_disconnect(*self._standing.left_with)
            self._ending.end("left")

    def client_left(self, code: int, reason: bytes) -> None:
        """Take notice that the client is gone."""
        standing = self._standing
        standing.left_with = code, reason
        standing.code = standing.code or code
        if standing.turn is not None and not standing.turn.done():
            standing.turn.set_exception(RejectedError("no_worker"))
        if standing.phase in PAUSED and self._pending is not None:
            return  # another worker shall have its last message
        if standing.phase is Phase.LEAVING:
            return  # the app says goodbye already
        if standing.attachment is not None and standing.attachment.is_sending:
            return  # the end of its last message first
        standing.tell_disconnect(code, reason)
        self._ending.end("left")

    def _forget(self) -> None:
        self._pending = None
        if self._held:
            self._hold(False)
        self.client.make_room()

    def _hold(self, held: bool) -> None:
        if held != self._held:
            self._held = held
            self._standing.pool.counters.add(board.HELD, 1 if held else -1)

    # What becomes of the newest message between two workers

    @property
    def had_before(self) -> int:
        """How many messages other workers have dealt with."""
        return self._number - (self._pending is not None)

    @property
    def is_held(self) -> bool:
        """Whether a message waits for the next worker."""
        return self._held

    @property
    def is_in_hand(self) -> bool:
        """Whether a message may be lost with the worker."""
        return self._pending is not None and not self._held

    def keep_or_lose(self) -> None:
        """Keep the message in hand for another worker, or count it as lost."""
        assert self._pending is not None
        if self.redeliver:
            flags, payload = self._pending
            self._pending = flags | AGAIN, payload
            self._hold(True)
        else:
            self._standing.pool.counters.add(board.LOST)
            self._forget()

    def part(self, given: int, failed: bool) -> None:
        """Take notice that the app has let go; `given` is the last message that it had."""
        if self._pending is None:
            return
        if given != self._number:
            self._hold(True)
        elif failed:
            self.keep_or_lose()  # it was cut off in the midst of it
        else:
            self._forget()

    def resume(self) -> None:
        """Continue at a worker that has accepted it."""
        if self._pending is None:
            self._suspicion.survived()
            self.sent()
        else:
            if self._pending[0] & AGAIN:
                self._standing.pool.counters.add(board.REDELIVERED)
            self._transmit()

    def count_lost(self) -> None:
        """Count a message that waits for a worker as lost: it ends."""
        if self._held and self._pending is not None:
            self._standing.pool.counters.add(board.LOST)

    def finish(self) -> None:
        """Leave nothing behind in the counts."""
        self._hold(False)


def _may_be_sent(code: int) -> bool:
    """Whether a close frame may hold `code`: RFC 6455, section 7.4."""
    return 3000 <= code < 5000 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))
