"""Bringing the newest roster to one interface process, without ever waiting for it."""

import asyncio
import socket
from collections.abc import Callable

from chansup.wire import LineBuffer

_READ_SIZE = 64 * 1024  # bytes; no line that makes sense is nearly so long


class RosterPipe:
    """The supervisor's end of a socket pair; the child inherits `theirs`.

    Where the child reads too slowly, a line that was begun is finished, and of those that came
    meanwhile only the newest follows: each line is the whole truth.
    """

    def __init__(self) -> None:
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ours.setblocking(False)
        self._begun = memoryview(b"")  # what is left of the line that was begun
        self._next: bytes | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # that says when there is room
        self._closed = False
        self._listening: asyncio.AbstractEventLoop | None = None
        self._said = LineBuffer(_READ_SIZE)

    def listen(self, take: Callable[[bytes], None]) -> None:
        """Have `take` called with each line that the child says, until it is gone."""
        if self._listening is None and not self._closed:
            self._listening = asyncio.get_running_loop()
            self._listening.add_reader(self._ours, self._read, take)

    def _read(self, take: Callable[[bytes], None]) -> None:
        try:
            data = self._ours.recv(_READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._listen_no_more()
            return
        for line in self._said.lines(data):
            take(line)

    def _listen_no_more(self) -> None:
        if self._listening is not None:
            self._listening.remove_reader(self._ours)
            self._listening = None

    def send(self, line: bytes) -> None:
        """Send `line`, now or as soon as there is room; it replaces one that waits."""
        if not self._closed:
            self._next = line
            self._write()

    def close(self) -> None:
        """Let go of the socket pair: the child is gone, or was never there."""
        if not self._closed:
            self._closed = True
            self._wait_no_more()
            self._listen_no_more()
            self._ours.close()
            self.theirs.close()

    def _write(self) -> None:
        while self._begun or self._next is not None:
            if not self._begun and self._next is not None:
                self._begun, self._next = memoryview(self._next), None
            try:
                sent = self._ours.send(self._begun)
            except (BlockingIOError, InterruptedError):
                self._wait()
                return
            except OSError:  # it ends, or closed its end
                self.close()
                return
            self._begun = self._begun[sent:]
        self._wait_no_more()

    def _wait(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_writer(self._ours, self._write)

    def _wait_no_more(self) -> None:
        if self._loop is not None:
            self._loop.remove_writer(self._ours)
            self._loop = None
