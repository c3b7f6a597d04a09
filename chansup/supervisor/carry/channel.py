"""The supervisor's end of the socket pair to one process whose WebSockets outlive it.

Nothing here waits for the process: it may be stopped, or busy for seconds.
"""

import asyncio
import contextlib
import errno
import socket
from collections import deque
from collections.abc import Callable

from chansup.protocol import carry
from chansup.protocol.carry import ChannelClosedError, ChildMessage, HolderMessage, PacketError

_BUFFER = 1024 * 1024  # bytes that may be under way in each direction, as far as the system lets us
_AT_ONCE = 64  # messages, then the loop gets its turn
_MOST_WAITING = 4096  # messages for a process that does not read
_PAUSE = 0.05  # seconds until the next attempt, with too many descriptors under way


class Channel:
    """Both directions. The child inherits `theirs`."""

    def __init__(self) -> None:
        """Make the pair. Raises OSError."""
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._ours, self.theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            end.setblocking(False)
        self.is_open = True
        self._waiting: deque[HolderMessage] = deque()  # without descriptors
        self._loop: asyncio.AbstractEventLoop | None = None
        self._take: Callable[[ChildMessage, int | None], None] = _ignore
        self._end: Callable[[str], None] = _ignore_end
        self._has_room: Callable[[], None] = _ignore_room
        self._writes = False  # waits for room
        self._was_reset = False
        self._pause: asyncio.TimerHandle | None = None

    def start(
        self,
        take: Callable[[ChildMessage, int | None], None],
        end: Callable[[str], None],
        has_room: Callable[[], None],
    ) -> None:
        """Hear the process from now on.

        `take` is called with each message and its descriptor, which is its own then; PacketError
        that it raises ends the channel. `end` is called once: with why nothing of the process can
        be trusted, or "" if it has closed its end. `has_room` is called when it has read again.
        """
        self._take, self._end, self._has_room = take, end, has_room
        if self.is_open:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._ours, self._read)

    def read_all(self) -> None:
        """Take what a process that is gone had still said."""
        while self.is_open and self._read():
            pass

    def _read(self) -> bool:
        """Take some messages. Return whether there may be more."""
        for _ in range(_AT_ONCE):
            try:
                message, descriptor = carry.receive_from_child(self._ours)
                self._take(message, descriptor)
            except (BlockingIOError, InterruptedError):
                return False
            except ChannelClosedError:
                # Of one that died with unread messages this is said first, and once: unix(7) says
                # ECONNRESET. What it had sent can be read after that.
                if self._was_reset:
                    self._end_with("")
                    return False
                self._was_reset = True
            except PacketError as error:
                self._end_with(str(error))
                return False
            except OSError as error:
                self._end_with(f"cannot receive: {error.strerror}")
                return False
            if not self.is_open:  # by what it said
                return False
        return True

    def _end_with(self, reason: str) -> None:
        if self.is_open:
            self.close()
            self._end(reason)

    def tell(self, message: HolderMessage) -> None:
        """Send a message without a descriptor, now or as soon as there is room."""
        if not self.is_open:
            return
        if len(self._waiting) >= _MOST_WAITING:
            self._end_with("it does not read what it is told")
            return
        self._waiting.append(message)
        self._flush()

    def offer(self, message: HolderMessage, descriptor: int) -> bool:
        """Send a message with a descriptor now. Return False if there is no room for it yet."""
        return self.is_open and not self._waiting and self._send(message, descriptor)

    def _flush(self) -> None:
        while self._waiting and self.is_open:
            if not self._send(self._waiting[0], None):
                return
            self._waiting.popleft()

    def _send(self, message: HolderMessage, descriptor: int | None) -> bool:
        if self._writes or self._pause is not None:
            return False
        try:
            carry.send(self._ours, message, descriptor)
        except (BlockingIOError, InterruptedError):
            self._wait()
            return False
        except OSError as error:
            if error.errno in (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM):
                self._wait_a_moment()
            return False  # otherwise it is gone, and what it said before is read first
        return True

    def _wait(self) -> None:
        if self._loop is not None and not self._writes:
            self._writes = True
            self._loop.add_writer(self._ours, self._go_on)

    def _wait_a_moment(self) -> None:
        if self._loop is not None:
            self._pause = self._loop.call_later(_PAUSE, self._go_on)

    def _wait_no_more(self) -> None:
        if self._writes and self._loop is not None:
            self._loop.remove_writer(self._ours)
        self._writes = False
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def _go_on(self) -> None:
        self._wait_no_more()
        self._flush()
        if self.is_open and not self._waiting:
            self._has_room()

    def close(self) -> None:
        """Let go of both ends; nothing is called any more."""
        if self.is_open:
            self.is_open = False
            self._wait_no_more()
            if self._loop is not None:
                self._loop.remove_reader(self._ours)
            self._waiting.clear()
            for end in (self._ours, self.theirs):
                with contextlib.suppress(OSError):
                    end.close()


def _ignore(message: ChildMessage, descriptor: int | None) -> None:
    """Stand in until `start`."""


def _ignore_end(reason: str) -> None:
    """Stand in until `start`."""


def _ignore_room() -> None:
    """Stand in until `start`."""
