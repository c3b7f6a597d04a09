"""Where a child reports: the supervisor's end of the notify protocol, a socket for each process.

Nobody but the child's user, the supervisor's and root can send to it, and no process fills the
queue of another. Sources: sd_notify(3); unix(7) on SCM_CREDENTIALS and max_dgram_qlen. The kernel
says who sent a message, so a process can only speak for itself.
"""

import array
import asyncio
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from chansup.protocol.notify import MAX_DATAGRAM, parse
from chansup.unix import Ownership, Presence, UnixListener

DATAGRAMS_AT_ONCE = 64  # then the loop gets its turn
_UCRED = struct.Struct("3i")  # pid, uid, gid
_MAX_DESCRIPTORS = 253  # in one message: SCM_MAX_FD
_ANCILLARY = socket.CMSG_SPACE(_UCRED.size) + socket.CMSG_SPACE(_MAX_DESCRIPTORS * 4)
_QUEUE_LENGTH = Path("/proc/sys/net/unix/max_dgram_qlen")
_USUAL_QUEUE = 10  # datagrams

Callback = Callable[[int, dict[str, str]], None]


class NotifySocket:
    """A datagram socket of mode 0600 that belongs to the user of one process."""

    def __init__(self, path: Path, user: int | None = None) -> None:
        """Listen at `path`, for `user`, the supervisor's own user and root. Raises OSError."""
        self.path = path
        self.address = str(path)  # for NOTIFY_SOCKET
        self.dropped = 0  # messages of strangers, cut or malformed ones
        self._user = os.geteuid() if user is None else user
        self._uids = {os.geteuid(), 0, self._user}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._callback: Callback = _ignore
        self._crowded: Callable[[], None] = _ignore_crowd
        self._queue = _queue_length()
        self._former: list[socket.socket] = []  # whose file vanished: who is connected sends on
        self._listener = self._bind()

    def _bind(self) -> UnixListener:
        made = UnixListener.bind(self.path, socket.SOCK_DGRAM, socket.SO_PASSCRED)
        try:
            Ownership(0o600, self._user).give(self.path, made.identity)
        except BaseException:
            made.close()
            raise
        return made

    def start(
        self,
        loop: asyncio.AbstractEventLoop,
        callback: Callback,
        crowded: Callable[[], None] | None = None,
    ) -> None:
        """Call `callback` with the sender's pid and the fields of each message from now on.

        `crowded` is called when the queue was full, so that messages may have been lost.
        """
        self._loop, self._callback = loop, callback
        self._crowded = crowded or _ignore_crowd
        loop.add_reader(self._listener.sock, self._receive, self._listener.sock)

    def restore(self) -> Presence:
        """Return what stands at its path; where that is nothing, make a new file first.

        Raises OSError when it cannot be made.
        """
        presence = self._listener.presence()
        if presence is Presence.MISSING:
            fresh = self._bind()
            self._former.append(self._listener.sock)
            self._listener = fresh
            if self._loop is not None:
                self._loop.add_reader(fresh.sock, self._receive, fresh.sock)
        return presence

    def close(self) -> None:
        """Stop listening, and remove the file if it is still ours."""
        for sock in (self._listener.sock, *self._former):
            if self._loop is not None:
                self._loop.remove_reader(sock)
        self._loop = None
        self._listener.close()
        for sock in self._former:
            sock.close()
        self._former.clear()

    def _receive(self, sock: socket.socket) -> None:
        taken = 0
        while taken < DATAGRAMS_AT_ONCE:
            try:
                message = sock.recvmsg(
                    MAX_DATAGRAM, _ANCILLARY, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # an error that is queued on the socket is reported once
                self.dropped += 1
                break
            taken += 1
            datagram, ancillary, flags, _ = message
            pid, uid = _take(ancillary)
            fields = {} if flags & socket.MSG_TRUNC else parse(datagram)
            if pid <= 0 or uid not in self._uids or not fields:
                self.dropped += 1
                continue
            self._callback(pid, fields)
            if self._loop is None:  # closed by what it said
                return
        if taken >= self._queue:
            self._crowded()


def _ignore(pid: int, fields: dict[str, str]) -> None:
    """Stand in for a callback until `start`."""


def _ignore_crowd() -> None:
    """Stand in for a callback until `start`."""


def _queue_length() -> int:
    with suppress(OSError, ValueError):
        return max(1, int(_QUEUE_LENGTH.read_text()))
    return _USUAL_QUEUE


def _take(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, int]:
    """Return pid and uid of the sender; close the descriptors that came along."""
    pid = uid = -1
    for level, kind, content in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_CREDENTIALS and len(content) >= _UCRED.size:
            pid, uid, _ = _UCRED.unpack_from(content)
        elif kind == socket.SCM_RIGHTS:
            descriptors = array.array("i")
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
            for descriptor in descriptors:  # closing one is the answer to BARRIER=1
                os.close(descriptor)
    return pid, uid
