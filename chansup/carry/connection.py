"""One connection between the loop's transport and the server's own WebSocket protocol.

It uses asyncio's protocol methods alone, and writes no attribute of the server. Bytes are kept only
once a 101 goes out; everything else passes untouched.
"""

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

from chansup.carry import handshake
from chansup.carry.arena import Slot
from chansup.carry.handshake import Record
from chansup.carry.inbound import Inbound
from chansup.carry.layout import CLOSING, OPEN, PARKED, READ, STATE, WRITTEN
from chansup.carry.outbound import Outbound
from chansup.carry.transport import Transport
from chansup.carry.views import App, Host, Phase

_LINGER = 10.0  # seconds that a client has to take what is owed to it, when it is closed
_ROOM = 256 * 1024  # bytes of the outbound journal that are kept for what cannot wait


CURRENT: contextvars.ContextVar["Connection | None"] = contextvars.ContextVar(
    "chansup_carried", default=None
)


class Connection(asyncio.BufferedProtocol):
    """The wrapper. Not an asyncio.Protocol: the loop asks for the difference."""

    def __init__(self, host: Host, inner: Any) -> None:
        """`inner` is the server's protocol object."""
        self._host = host
        self.inner = inner
        self.phase = Phase.HANDSHAKE
        self.raw: asyncio.Transport | None = None
        self.transport = Transport(self)
        self.inbound = Inbound(
            inner.data_received,
            host.scratch,
            self._stop_reading,
            asyncio.get_running_loop().call_soon,
            lambda: self.forsake("inbound"),
            self._grows,
        )
        self.outbound = Outbound(
            _nowhere,
            _nothing,
            lambda: self.forsake("outbound"),
            self._close_frame_written,
            self._grows,
        )
        # No call on the way to the journal.
        self.get_buffer = self.inbound.get_buffer  # type: ignore
        self.buffer_updated = self.inbound.buffer_updated  # type: ignore
        self.stay: App | None = None  # as soon as the app runs
        self.slot: Slot | None = None
        self.is_offered = False  # the supervisor holds a duplicate
        self.is_clean = False  # the kernel had all when it was left
        self.is_kernel_counted = False  # TCP: it can be adopted after a kill
        self.record: Record | None = None  # of an adopted one
        self.request = b""
        self._head = b""  # of an answer that is not whole
        self._writing_paused = False  # the server was told so
        self.on_answer: Callable[[bytes, bytes], None] = self._pass_on  # head, and what follows
        self.on_refusal: Callable[[], object] = _nothing  # the server closes in place of an answer
        self._server_told = True  # that the connection is lost: before it is made it is not told
        self._server_closed = False

    # The loop's side

    def connection_made(self, transport: Any) -> None:
        """Stand before an asyncio.Transport; that of uvloop does not say that it is one."""
        self.raw = transport
        self.transport.open(transport)
        if self.phase is Phase.REPEATING:
            self.transport.read_by(self.inbound)
            transport.pause_reading()
        self.outbound.send = transport.write
        self.outbound.unsent = transport.get_write_buffer_size
        if self.phase is not Phase.REPEATING:
            self.make()

    def make(self) -> None:
        """Begin the server's protocol."""
        self._server_told = False
        token = CURRENT.set(self)  # some servers begin the app's task here, others with the request
        try:
            self.inner.connection_made(self.transport)
        finally:
            CURRENT.reset(token)

    def data_received(self, data: bytes) -> None:
        """Take the request, as the server's HTTP protocol gives it."""
        self.request += data
        token = CURRENT.set(self)
        try:
            self.inner.data_received(data)
        finally:
            CURRENT.reset(token)

    def eof_received(self) -> bool | None:
        """Take notice that the client sends no more."""
        if not self.inbound.end_of_input():
            return True
        keeps_open: bool | None = self.inner.eof_received()
        return keeps_open

    def pause_writing(self) -> None:
        """Have the server wait for a slow client, unless it leaves: then the journal takes it."""
        if self.phase is Phase.LEAVING and self.outbound.room > _ROOM:
            return
        self._writing_paused = True
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        """Have the server write again."""
        if self._writing_paused:
            self._writing_paused = False
            self.inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take notice that the socket is closed here."""
        phase, self.phase = self.phase, Phase.OVER
        if phase is Phase.PARKING:
            assert self.slot is not None
            self.slot.words[STATE] = PARKED
            self.let_go()
            self._host.parked(self)
            return
        if self.stay is not None:
            self.stay.lost()
        self.let_go()
        self._host.ended(self)
        self.tell_lost(exc)

    def let_go(self) -> None:
        """Keep nothing of it any more."""
        self.inbound.forsake()
        if self.raw is not None:
            self.transport.read_by(self.raw)
        self.outbound.forsake()
        if self.stay is not None:
            self.stay.keep_no_more()

    def tell_lost(self, exc: Exception | None) -> None:
        """Tell the server, once, that the connection is lost."""
        if not self._server_told:
            self._server_told = True
            self.inner.connection_lost(exc)

    def _stop_reading(self, stops: bool) -> None:
        raw = self.raw
        if raw is None or raw.is_closing():
            return
        if stops:
            raw.pause_reading()
        else:
            raw.resume_reading()

    # The handshake

    def early_write(self, data: bytes) -> None:
        """Take what the server writes before its answer to the handshake is complete."""
        self._head += data
        parts = handshake.split(self._head)
        if parts is None:
            if len(self._head) > handshake.MAX_HEAD:
                self.become_plain(self._head)
            return
        self._head = b""
        self.on_answer(*parts)

    def _pass_on(self, head: bytes, rest: bytes) -> None:
        self.become_plain(head + rest)

    def become_plain(self, data: bytes) -> None:
        """Keep nothing of it, and write what the server has written so far."""
        assert self.raw is not None
        self.phase = Phase.PLAIN
        self.request = b""
        self.inbound.forsake()
        self.transport.write = self.raw.write
        self.raw.write(data)

    @property
    def descriptor(self) -> int:
        """The descriptor of the socket."""
        assert self.raw is not None
        number: int = self.raw.get_extra_info("socket").fileno()
        return number

    # What makes it plain

    def forsake(self, reason: str) -> None:
        """Continue as a connection that ends with the process."""
        if self.slot is None or self.phase in (Phase.PARKING, Phase.OVER):
            return
        self.let_go()
        if self.phase is not Phase.LEAVING:
            self.phase = Phase.PLAIN
        self._host.plain(self, reason)

    def _grows(self) -> None:
        self._host.grows(self)

    def shrink(self) -> bool:
        """Give back memory that is not used. Say whether only the first page is left."""
        if self.phase is Phase.OVER:
            return True
        return self.inbound.shrink() & self.outbound.shrink()

    # Closing

    @property
    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        if self._server_closed or self.phase in (Phase.PARKING, Phase.OVER):
            return True
        return self.raw is None or self.raw.is_closing()

    @property
    def may_move(self) -> bool:
        """Whether another process could continue with it, as far as the connection goes."""
        slot = self.slot
        return (
            self.phase is Phase.OPEN
            and self.is_offered
            and slot is not None
            and slot.words[STATE] == OPEN
            and not self.is_closing
        )

    def _close_frame_written(self) -> None:
        """Take notice that the server closes the WebSocket: there is nothing to move any more."""
        if self.phase is Phase.LEAVING:
            self.phase = Phase.OPEN
            self.inbound.let_go()

    def server_closes(self, at_once: bool) -> None:
        """Take notice that the server closes the connection."""
        if self.phase is Phase.LEAVING or self.phase is Phase.PARKING:
            return  # it believes that the client is gone
        if self.phase is Phase.REPEATING:
            self.on_refusal()
            return
        if self.raw is None or self._server_closed:
            return
        self._server_closed = True
        if self._head:
            self.become_plain(self._head)
        if self.slot is not None and self.phase is Phase.OPEN:
            self.slot.words[STATE] = CLOSING
        if at_once:
            self.raw.abort()
        else:
            self.raw.close()

    # Leaving

    def leave(self) -> None:
        """Give the app nothing more: another process is to continue."""
        self.phase = Phase.LEAVING
        self.inbound.hold()
        self.resume_writing()  # a send that waits for a slow client goes on into the journal

    def interrupt(self) -> None:
        """Have the server's receive() return, for the app is to leave."""
        self.tell_lost(None)

    def stay_after_all(self) -> None:
        """Take notice that the app ended by itself: what the server does about it counts."""
        if self.phase is Phase.LEAVING:
            self.phase = Phase.OPEN if self.is_kept else Phase.PLAIN

    @property
    def is_kept(self) -> bool:
        """Whether the journal keeps bytes that are written."""
        return self.slot is not None and self.inbound.is_kept

    def part(self) -> None:
        """Close the socket here, after the app has left: others hold it, too.

        What was not sent stands in the journal.
        """
        raw, slot = self.raw, self.slot
        assert raw is not None
        if self.phase is not Phase.LEAVING:
            return
        if slot is None or not self.is_kept:
            self.tell_lost(None)
            self.end_with(1012, "service restart")
            return
        self.tell_lost(None)
        self.phase = Phase.PARKING
        slot.words[READ] = self.inbound.position
        unsent = raw.get_write_buffer_size()
        self.is_clean = not unsent
        slot.words[WRITTEN] = self.outbound.end - unsent
        raw.abort()

    def end_with(self, code: int, reason: str = "") -> None:
        """Close the WebSocket in the server's place."""
        self.phase = Phase.OPEN if self.is_kept else Phase.PLAIN
        self.outbound.write(handshake.close_frame(code, reason))
        self.end()

    def end(self) -> None:
        """Close the connection in the server's place, when all is written."""
        assert self.raw is not None
        self._server_closed = True
        self.raw.close()
        asyncio.get_running_loop().call_later(_LINGER, self.raw.abort)


def _nowhere(_data: Any) -> None:
    pass


def _nothing() -> int:
    return 0
