"""What one event loop says to the hub. It is gathered during a turn and written at its end."""

import asyncio
import socket
from collections.abc import Callable, Container

from chansup.layer.frames import Kind, pack_ids
from chansup.wire import Writer

_MAX_ID = 2**32 - 1


class Outbox:
    """Frames to the hub, and where the conversation with it stands.

    `connect` sees to it that there will be a connection.
    """

    __slots__ = (
        "_deferred", "_frames", "_id", "_in_use", "_writer", "closed", "connect", "epoch", "loop",
        "ready", "taken",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, connect: Callable[[], None]) -> None:
        self.loop = loop
        self.connect = connect
        self.ready = False  # the hub has greeted this process, and listens
        self.closed = False  # for good
        self.epoch = ""  # of the hub
        self.taken: list[int] = []  # ids, once for each message that the hub may forget
        self._frames: list[bytes] = []
        self._deferred: list[bytes] = []  # for when the connection is back
        self._writer = Writer(loop, self._gather, self._break_off)
        self._id = 0
        self._in_use: list[Container[int]] = []

    @property
    def is_connected(self) -> bool:
        """Whether something can be written."""
        return self._writer.is_open

    @property
    def has_deferred(self) -> bool:
        """Whether something is to be said when the connection is back."""
        return bool(self._deferred)

    # Ids, of whatever listens

    def keep_free(self, ids: Container[int]) -> None:
        """Give out none of these ids, whatever they are then."""
        self._in_use.append(ids)

    def new_id(self) -> int:
        """Return an id that nothing has."""
        found = self._id
        while True:
            found = found % _MAX_ID + 1
            for ids in self._in_use:
                if found in ids:
                    break
            else:
                self._id = found
                return found

    # Frames

    def emit(self, frame: bytes) -> None:
        """Send a frame at the end of this turn."""
        self._frames.append(frame)
        if not self._writer.is_scheduled:
            self._writer.schedule()

    def emit_taken(self) -> None:
        """Say now what was taken, before what follows."""
        if self.taken:
            self._frames.append(pack_ids(Kind.TAKEN, self.taken))
            self.taken.clear()

    def emit_ids(self, kind: int, ids: list[int]) -> None:
        """Say something of these ids, after what was taken."""
        self.emit_taken()
        self.emit(pack_ids(kind, ids))

    def schedule(self) -> None:
        """Write at the end of this turn."""
        self._writer.schedule()

    def flush_unless_scheduled(self) -> None:
        """Write now, unless the end of this turn does."""
        if not self._writer.is_scheduled:
            self._writer.flush()

    def flush(self) -> None:
        """Write now."""
        self._writer.flush()

    def flush_once(self) -> None:
        """Write what goes without waiting, and forget the rest. It may be another thread."""
        self._writer.flush_once()

    def _gather(self) -> bytes:
        frames, taken = self._frames, self.taken
        if taken:
            frames.append(pack_ids(Kind.TAKEN, taken))
            taken.clear()
        if not frames:
            return b""
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        frames.clear()
        return data

    # What has no answer, and must not be lost

    def send_or_defer(self, frame: bytes) -> None:
        """Send a frame, or keep it for when the connection is back."""
        if self.ready:
            self.emit(frame)
        else:
            self._deferred.append(frame)
            self.connect()

    def defer(self, frame: bytes) -> None:
        """Keep a frame for when the connection is back."""
        self._deferred.append(frame)

    def take_deferred(self) -> list[bytes]:
        """Return what was kept, and keep it no more."""
        deferred, self._deferred = self._deferred, []
        return deferred

    # The connection

    def open(self, sock: socket.socket, greeting: bytes) -> None:
        """Write to this socket from now on, the greeting first."""
        self._frames[:] = [greeting]
        self._writer.open(sock)
        self._writer.flush()

    def _break_off(self, error: OSError) -> None:
        """Say nothing more. What the hub has said is still there, and is read until its end."""
        self.ready = False
        self._frames.clear()

    def drop(self) -> None:
        """Forget the connection, and what was to leave by it. Call it before it is closed."""
        self.ready = False
        self.taken.clear()
        self._frames.clear()
        self._writer.close()
