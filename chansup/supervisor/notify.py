"""Where children report: the supervisor's end of the notify protocol.

Source: sd_notify(3); unix(7) on SCM_CREDENTIALS. The kernel says who sent a message, so a process
can only speak for itself.
"""

import array
import asyncio
import os
import secrets
import socket
import struct
from collections.abc import Callable

from chansup.protocol.notify import MAX_DATAGRAM, parse

DATAGRAMS_AT_ONCE = 64  # then the loop gets its turn
_UCRED = struct.Struct("3i")  # pid, uid, gid
_MAX_DESCRIPTORS = 253  # in one message: SCM_MAX_FD
_ANCILLARY = socket.CMSG_SPACE(_UCRED.size) + socket.CMSG_SPACE(_MAX_DESCRIPTORS * 4)

Callback = Callable[[int, dict[str, str]], None]


class NotifySocket:
    """A datagram socket in the abstract namespace, under a name that nobody can guess."""

    def __init__(self) -> None:
        name = f"chansup-{secrets.token_hex(16)}"
        self.address = f"@{name}"  # for NOTIFY_SOCKET
        self.dropped = 0  # messages of strangers, cut or malformed ones
        self._uids = {os.geteuid(), 0}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        # Before bind: a message that arrives without credentials would be useless.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind("\0" + name)

    def allow(self, uid: int) -> None:
        """Take messages of processes that run as `uid`, beside root's and the supervisor's own."""
        self._uids.add(uid)

    def start(self, loop: asyncio.AbstractEventLoop, callback: Callback) -> None:
        """Call `callback` with the sender's pid and the fields of each message from now on."""
        self._loop = loop
        loop.add_reader(self._socket, self._receive, callback)

    def close(self) -> None:
        """Stop listening."""
        if self._loop is not None:
            self._loop.remove_reader(self._socket)
            self._loop = None
        self._socket.close()

    def _receive(self, callback: Callback) -> None:
        for _ in range(DATAGRAMS_AT_ONCE):
            try:
                message = self._socket.recvmsg(
                    MAX_DATAGRAM, _ANCILLARY, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # an error that is queued on the socket is reported once
                self.dropped += 1
                return
            datagram, ancillary, flags, _ = message
            pid, uid = _take(ancillary)
            fields = {} if flags & socket.MSG_TRUNC else parse(datagram)
            if pid <= 0 or uid not in self._uids or not fields:
                self.dropped += 1
                continue
            callback(pid, fields)


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
