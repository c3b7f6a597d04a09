"""The queue of a listening socket: who has connected, and was not accepted yet.

Whoever holds the socket can look, whichever process accepts. Sources: tcp(7) on TCP_INFO (of a
listening socket, ``tcpi_unacked`` is the length and ``tcpi_sacked`` the limit), sock_diag(7) on
inet_diag and unix_diag; ``net/unix/diag.c`` for the list of those that wait.
"""

import os
import select
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_TCP_INFO_LENGTH = struct.Struct("=24x2I")  # tcpi_unacked, tcpi_sacked
_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_REQUEST, _DUMP = 0x1, 0x300  # NLM_F_REQUEST, NLM_F_DUMP
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, number, port
_ANSWER_TIME = 1.0  # seconds; the kernel answers at once
_BUFFER = 1 << 18
_ESTABLISHED, _CLOSE_WAIT = 1, 8  # TCP states: connected, and left by the client since
_INET_REQUEST = struct.Struct("=4BI H34x8x4x")  # inet_diag_req_v2, with the source port alone
_INET_EXACT = struct.Struct("=4BI2H16s16s3I")  # the same, with both ends of a connection
_INET_ANSWER = struct.Struct("=4B40xQ16xI")  # inet_diag_msg: …, cookie, …, inode
_UNIX_REQUEST = struct.Struct("=2BHIII2I")  # unix_diag_req
_UNIX_ANSWER_SIZE = 16  # unix_diag_msg, before its attributes
_SHOW_WAITING, _SHOW_LENGTH = 0x8, 0x10  # UDIAG_SHOW_ICONS, UDIAG_SHOW_RQLEN
_SHOW_PEER = 0x4  # UDIAG_SHOW_PEER
_PEER, _WAITING, _LENGTH = 2, 3, 4  # UNIX_DIAG_PEER, UNIX_DIAG_ICONS, UNIX_DIAG_RQLEN
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ANY_COOKIE = 0xFFFFFFFF
_LISTENING = 1 << 10  # as a mask of states


class AcceptQueue(NamedTuple):
    """How many connections wait, of how many that may."""

    length: int
    limit: int

    @property
    def is_full(self) -> bool:
        """Whether further connections may have to wait elsewhere, unseen."""
        return self.length >= self.limit


def some_wait(listeners: Iterable[socket.socket]) -> set[int]:
    """Return the descriptors of those on which a connection waits."""
    poll = select.poll()
    for listener in listeners:
        if listener.fileno() >= 0:
            poll.register(listener, select.POLLIN)
    return {descriptor for descriptor, events in poll.poll(0) if events & select.POLLIN}


def look(listener: socket.socket) -> AcceptQueue | None:
    """Return how long the queue is; None if this kernel does not tell."""
    try:
        if listener.family == socket.AF_UNIX:
            return _unix(listener).queue
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_LENGTH.size + 4)
        length, limit = _TCP_INFO_LENGTH.unpack_from(info)
    except (OSError, struct.error):
        return None
    return AcceptQueue(length, limit)


def waiting(listener: socket.socket) -> frozenset[int] | None:
    """Return numbers of the connections that wait, the same as long as they do.

    On TCP these are all that wait on the port, in whichever listener's queue. Those whose clients
    gave up may be missing. None if this kernel does not tell.
    """
    try:
        if listener.family == socket.AF_UNIX:
            return _unix(listener).connections
        return frozenset(_unaccepted(listener.family, listener.getsockname()[1]))
    except (OSError, struct.error):
        return None


def accepted_as(client: socket.socket) -> int:
    """Return the inode of the other end of a connection of this machine; 0: it waits, or is gone.

    Raises OSError if this kernel does not tell.
    """
    if client.family == socket.AF_UNIX:
        inode = os.fstat(client.fileno()).st_ino & 0xFFFFFFFF
        request = _UNIX_REQUEST.pack(
            socket.AF_UNIX, 0, 0, _ANY_COOKIE, inode, _SHOW_PEER, _ANY_COOKIE, _ANY_COOKIE
        )
        peer = dict(_attributes(next(_ask(request, 0), b""))).get(_PEER, b"")
        return int(struct.unpack("=I", peer)[0]) if len(peer) == 4 else 0
    ends = [
        (socket.htons(name[1]), socket.inet_pton(client.family, name[0]).ljust(16, b"\0"))
        for name in (client.getpeername(), client.getsockname())
    ]
    request = _INET_EXACT.pack(
        client.family, socket.IPPROTO_TCP, 0, 0, _ANY_COOKIE, ends[0][0], ends[1][0],
        ends[0][1], ends[1][1], 0, _ANY_COOKIE, _ANY_COOKIE,
    )  # fmt: skip
    try:
        answer = next(_ask(request, 0), b"")
    except FileNotFoundError:
        return 0
    return int(_INET_ANSWER.unpack_from(answer)[-1])


class _UnixQueue(NamedTuple):
    queue: AcceptQueue
    connections: frozenset[int]  # inodes of the clients' sockets


def _unix(listener: socket.socket) -> _UnixQueue:
    inode = os.fstat(listener.fileno()).st_ino & 0xFFFFFFFF
    show = _SHOW_WAITING | _SHOW_LENGTH
    request = _UNIX_REQUEST.pack(
        socket.AF_UNIX, 0, 0, _LISTENING, inode, show, _ANY_COOKIE, _ANY_COOKIE
    )
    answer = next(_ask(request, 0), b"")
    queue: AcceptQueue | None = None
    clients: tuple[int, ...] = ()
    for kind, value in _attributes(answer):
        if kind == _LENGTH:
            queue = AcceptQueue(*struct.unpack_from("=2I", value))
        elif kind == _WAITING:
            clients = struct.unpack(f"={len(value) // 4}I", value)
    if queue is None:
        raise OSError("unix_diag does not tell the length")
    return _UnixQueue(queue, frozenset(clients) - {0})


def _attributes(answer: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and value of each attribute of a unix_diag_msg."""
    place = _UNIX_ANSWER_SIZE
    while place + _ATTRIBUTE.size <= len(answer):
        size, kind = _ATTRIBUTE.unpack_from(answer, place)
        if size < _ATTRIBUTE.size:
            break
        yield kind, answer[place + _ATTRIBUTE.size : place + size]
        place += (size + 3) & ~3


def _unaccepted(family: int, port: int) -> Iterator[int]:
    states = 1 << _ESTABLISHED | 1 << _CLOSE_WAIT
    request = _INET_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, states, socket.htons(port))
    for answer in _ask(request, _DUMP):
        *_, cookie, inode = _INET_ANSWER.unpack_from(answer)
        if inode == 0:  # no process has it
            yield cookie


def _ask(request: bytes, flags: int) -> Iterator[bytes]:
    """Yield the kernel's answers. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as link:
        link.settimeout(_ANSWER_TIME)
        size = _HEADER.size + len(request)
        link.send(_HEADER.pack(size, _BY_FAMILY, _REQUEST | flags, 1, 0) + request)
        while True:
            received = link.recv(_BUFFER)
            place = 0
            while place + _HEADER.size <= len(received):
                size, kind, *_ = _HEADER.unpack_from(received, place)
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", received, place + _HEADER.size)[0]
                    raise OSError(number, os.strerror(number))
                if kind == _DONE:
                    return
                yield received[place + _HEADER.size : place + size]
                place += (size + 3) & ~3
            if not flags & _DUMP:
                return
