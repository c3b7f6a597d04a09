"""Unix stream sockets in an event loop, without transports: who sends decides when bytes leave."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

_AT_ONCE = 64  # clients that are accepted before the event loop gets its turn


class LineBuffer:
    """Cuts what a stream brings into lines; a line of more than `limit` bytes loses its end."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = b""  # not a whole line yet

    def lines(self, data: bytes) -> list[bytes]:
        """Take `data`, and return the lines that it completes, without their ends."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[: self._limit]
        return lines


class Writer:
    """What leaves by one socket: all that is gathered during one turn of the loop, in one write.

    `gather` returns the bytes that are to be written next, b"" if there are none; it is asked when
    they can be written. `on_broken` is called when nothing can be written any more: what the other
    side said before it went can still be read. `on_drained` is called when all has left that had
    to wait for the socket.
    """

    __slots__ = (
        "_awaits_socket", "_end_turn", "_gather", "_loop", "_on_broken", "_on_drained", "_socket",
        "_unsent", "is_broken", "is_scheduled", "written",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        gather: Callable[[], bytes],
        on_broken: Callable[[OSError], None],
        on_drained: Callable[[], object] | None = None,
        end_turn: Callable[[], object] | None = None,
    ) -> None:
        """`end_turn` is called at the end of a turn in place of `flush`, and is to call it."""
        self._loop = loop
        self._gather = gather
        self._on_broken = on_broken
        self._on_drained = on_drained
        self._end_turn = end_turn or self.flush
        self._socket: socket.socket | None = None
        self._unsent: memoryview | None = None
        self._awaits_socket = False
        self.is_broken = False
        self.is_scheduled = False  # at the end of this turn it writes
        self.written = 0  # bytes, in all

    @property
    def is_open(self) -> bool:
        """Whether there is a socket, and it can be written to."""
        return self._socket is not None and not self.is_broken

    @property
    def is_waiting(self) -> bool:
        """Whether something has to wait until the other side has read."""
        return self._unsent is not None

    def open(self, sock: socket.socket) -> None:
        """Write to this socket from now on. It does not block, and belongs to the caller."""
        self._socket = sock
        self.is_broken = False

    def schedule(self) -> None:
        """Write at the end of this turn."""
        if not self.is_scheduled:
            self.is_scheduled = True
            self._loop.call_soon(self._end_turn)

    def flush(self) -> bool:
        """Write what was gathered. Return whether all has left this process."""
        self.is_scheduled = False
        if self._socket is None or self.is_broken or self._unsent is not None:
            return False
        data = self._gather()
        return not data or self._send(data)

    def flush_once(self) -> None:
        """Write what goes without waiting, and forget the rest. It may be another thread."""
        if self._socket is None or self.is_broken:
            return
        rest, self._unsent = self._unsent, None
        with contextlib.suppress(OSError):
            self._socket.send(b"".join((rest or b"", self._gather())))

    def _send(self, data: bytes | memoryview) -> bool:
        assert self._socket is not None
        try:
            written = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            written = 0
        except OSError as error:
            self.is_broken = True
            self._unsent = None
            self._ignore_socket()
            self._on_broken(error)
            return False
        self.written += written
        if written == len(data):
            return True
        self._unsent = memoryview(data)[written:]
        if not self._awaits_socket:
            self._awaits_socket = True
            self._loop.add_writer(self._socket.fileno(), self._go_on)
        return False

    def _go_on(self) -> None:
        rest, self._unsent = self._unsent, None
        if rest is not None and not self._send(rest):
            return
        data = self._gather()
        if data and not self._send(data):
            return
        self._ignore_socket()
        if self._on_drained is not None:
            self._on_drained()

    def _ignore_socket(self) -> None:
        if self._awaits_socket and self._socket is not None and not self._loop.is_closed():
            self._loop.remove_writer(self._socket.fileno())
        self._awaits_socket = False

    def close(self) -> None:
        """Write nothing more. Call it before the socket is closed."""
        self._ignore_socket()
        self._socket = None
        self._unsent = None


class Acceptor:
    """Accepts the clients of a listening socket, which belongs to the caller and does not block.

    `welcome` is called with each of them. Where the kernel gives no descriptor for one,
    `on_failure` is called, and nobody is accepted for `pause` seconds: the client still waits, so
    the event loop would try all the time.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        welcome: Callable[[socket.socket], object],
        on_failure: Callable[[OSError], object],
        pause: float,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._welcome = welcome
        self._on_failure = on_failure
        self._pause = pause
        self._again: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Accept from now on."""
        self._again = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def stop(self) -> None:
        """Accept nobody. Call it before the socket is closed."""
        self._loop.remove_reader(self._listener.fileno())
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._on_failure(error)
                self.stop()
                self._again = self._loop.call_later(self._pause, self.start)
                return
            self._welcome(client)
