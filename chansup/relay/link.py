"""One connection between an interface process and an app worker.

All that is sent during one turn of the event loop leaves in one write at its end. Control frames
overtake data that could not be written yet.
"""

import asyncio
import errno
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from chansup.relay.frames import Decoder, Frame, FrameError
from chansup.waiters import wake
from chansup.wire import Writer

_READ_SIZE = 128 * 1024
_QUIET = 0.0003  # seconds without a write, after which nobody is expected to share the next one
_CROWDED = 128 * 1024  # bytes that wait to be written, above which senders of data wait
_ADMITTED = 8  # senders that may continue at a time, each with one frame


class Late(Protocol):
    """Somebody who decides at the end of the turn which frames to send."""

    def emit(self) -> None:
        """Send it now."""


class Link:
    """Frames in, frames out.

    `on_lost` is called once, when the connection is gone: why, and whether the other side broke
    the rules.
    """

    __slots__ = (
        "_admitted", "_control", "_crowd", "_data", "_decoder", "_flushed", "_late", "_loop",
        "_on_frames", "_on_lost", "_size", "_socket", "_turn", "_writer", "_written_at", "bytes_in",
        "closed",
    )  # fmt: skip

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        on_frames: Callable[[list[Frame]], None],
        on_lost: Callable[[str, bool], None],
    ) -> None:
        self._socket = sock
        self._loop = loop
        self._on_frames = on_frames
        self._on_lost = on_lost
        self._decoder = Decoder()
        self._writer = Writer(loop, self._gather, self._break_off, self._has_left, self.flush)
        self._writer.open(sock)
        self._crowd: deque[asyncio.Future[None]] = deque()
        self._admitted = 0  # of the crowd, may send, and have not had the time
        self._turn = False  # of the one who runs now, and was admitted
        self._control: list[bytes] = []
        self._data: list[bytes] = []
        self._flushed: list[asyncio.Future[None]] = []
        self._size = 0  # bytes of data that were not written yet
        self._late: list[Late] = []
        self._written_at = 0.0  # monotonic
        self.closed = False
        self.bytes_in = 0
        loop.add_reader(sock.fileno(), self._read)

    @property
    def bytes_out(self) -> int:
        """How many bytes have left."""
        return self._writer.written

    # Out

    def send(self, frame: bytes) -> None:
        """Send a frame at the end of this turn, in order with other data."""
        self._data.append(frame)
        self._size += len(frame)
        if not self._writer.is_scheduled:
            self.schedule()

    def send_control(self, frame: bytes) -> None:
        """Send a frame at the end of this turn, before any data."""
        self._control.append(frame)
        if not self._writer.is_scheduled:
            self.schedule()

    def send_late(self, sender: Late) -> None:
        """Ask `sender` at the end of this turn."""
        self._late.append(sender)
        if not self._writer.is_scheduled:
            self.schedule()

    def schedule(self) -> None:
        """See to it that what was gathered is written at the end of this turn."""
        if self.closed:
            self._forget()
        else:
            self._writer.schedule()

    def flush(self) -> bool:
        """Write now what was gathered. Say whether all of it has left this process."""
        while self._late:
            late, self._late = self._late, []
            for sender in late:
                self._ask(sender)
        if self._writer.flush():
            self._has_left()
            return True
        if not self._writer.is_open:
            self._forget()
        return False

    def _ask(self, sender: Late) -> None:
        try:
            sender.emit()
        except Exception as error:  # one sender's defect must not take the others' turn
            self._loop.call_exception_handler({"message": "a relayed stream", "exception": error})

    def hurry(self) -> None:
        """Write now, unless others write so often that they may share one write."""
        if self._writer.is_scheduled and time.monotonic() - self._written_at > _QUIET:
            self.flush()

    def _gather(self) -> bytes:
        if not self._control and not self._data:
            return b""
        data = b"".join(self._control + self._data)
        self._control.clear()
        self._data.clear()
        self._written_at = time.monotonic()
        return data

    def _has_left(self) -> None:
        """Take notice that everything has left this process."""
        self._size = 0
        for waiter in self._flushed:
            wake(waiter)
        self._flushed.clear()
        if self._crowd:
            self._admit()

    def _break_off(self, error: OSError) -> None:
        """Send no more. What the other side said before it went is still read, up to its end."""
        self._forget()
        if error.errno not in (errno.EPIPE, errno.ECONNRESET):
            # Not from here: whoever sends is in the middle of something.
            self._loop.call_soon(self.lose, error.strerror or str(error))

    @property
    def crowded(self) -> bool:
        """Whether senders of data should wait for `room`. Ask before each frame."""
        if self._size <= _CROWDED and not self._crowd and not self._admitted:
            return False
        if self._turn:
            self._turn = False
            return False
        return not self.closed

    async def room(self) -> None:
        """Wait until there is room for one more frame of data; first come, first served."""
        if not self.crowded:
            return
        waiter = self._loop.create_future()
        self._crowd.append(waiter)
        if not self._writer.is_scheduled and not self._writer.is_waiting:
            self.schedule()  # those admitted may have nothing to send any more
        try:
            await waiter
        finally:
            if waiter.done() and not waiter.cancelled() and not self.closed:
                self._admitted -= 1
        self._turn = True

    async def flushed(self) -> None:
        """Wait until everything has left this process, or the connection is gone."""
        if (self._writer.is_waiting or self._writer.is_broken) and not self.closed:
            waiter = self._loop.create_future()
            self._flushed.append(waiter)
            await waiter

    def _admit(self) -> None:
        """Let some of those who wait send: as much as one write takes."""
        while self._crowd and self._admitted < _ADMITTED:
            waiter = self._crowd.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._admitted += 1
        if self._crowd and not self._writer.is_scheduled:
            self.schedule()  # those admitted may have nothing to send any more

    # In

    def _read(self) -> None:
        try:
            data = self._socket.recv(_READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.lose(error.strerror or str(error))
            return
        if not data:
            self.lose("closed by the other side")
            return
        self.bytes_in += len(data)
        try:
            self._on_frames(self._decoder.feed(data))
        except FrameError as error:
            self.lose(str(error), is_error=True)
        except Exception as error:  # a defect of ours: streams are out of step now
            self._loop.call_exception_handler({"message": "a relayed frame", "exception": error})
            self.lose(f"a defect in chansup: {error!r}", is_error=True)

    # The end

    def lose(self, reason: str, is_error: bool = False) -> None:
        """Close the connection: it is of no use any more."""
        if not self.closed:
            self.close()
            self._on_lost(reason, is_error)

    def close(self) -> None:
        """Close the connection; `on_lost` is not called."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._socket.fileno())
        self._writer.close()
        self._socket.close()
        self._forget()
        for waiter in [*self._crowd, *self._flushed]:
            wake(waiter)
        self._crowd.clear()
        self._admitted = 0
        self._flushed.clear()

    def _forget(self) -> None:
        """Let go what will never leave."""
        self._control.clear()
        self._data.clear()
        self._late.clear()
        self._size = 0
