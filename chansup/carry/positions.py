"""How far a TCP connection was read and written, as the kernel knows it: tcp(7), `TCP_INFO`.

read = tcpi_bytes_received - SIOCINQ, written = tcpi_bytes_acked + SIOCOUTQ: both count from the
moment of the accept, and no process that dies can make them wrong. A FIN counts as one byte, in
both directions. Urgent data would count and not be read; `prepare` has it read in its place.
"""

import array
import fcntl
import os
import socket
import struct
from typing import NamedTuple

_SIOCINQ, _SIOCOUTQ = 0x541B, 0x5411  # FIONREAD and TIOCOUTQ of ioctl_tty(2)
_INFO_SIZE = 192
_BYTES = struct.Struct("=QQ")  # tcpi_bytes_acked, tcpi_bytes_received
_BYTES_AT = 120  # of struct tcp_info, in linux/tcp.h
_MOST_LOOKS = 100
_LOST = frozenset({7, 10})  # TCP_CLOSE; TCP_LISTEN
_PEER_CLOSED = frozenset({8, 9, 11})  # CLOSE_WAIT, LAST_ACK, CLOSING: its FIN was received
_WE_CLOSED = frozenset({4, 5, 9, 11})  # FIN_WAIT1, FIN_WAIT2, LAST_ACK, CLOSING


class Positions(NamedTuple):
    """Bytes of a connection since it was accepted."""

    read: int  # by any process
    written: int  # the same
    is_lost: bool  # nothing can be read or written any more


class UncertainError(OSError):
    """The kernel's counters do not stand still, or say what cannot be."""


def prepare(sock: socket.socket) -> None:
    """Have urgent data read in its place, as RFC 6093 asks for. It counts for each duplicate."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


def of(sock: socket.socket) -> Positions:
    """Return the positions of a TCP connection. Raises OSError, UncertainError."""
    descriptor = sock.fileno()
    first = _info(sock)
    for _ in range(_MOST_LOOKS):
        waiting, unacked = _queued(descriptor, _SIOCINQ), _queued(descriptor, _SIOCOUTQ)
        second = _info(sock)
        if first == second:
            state, acked, received = first
            read = received - waiting - (state in _PEER_CLOSED)
            written = acked + unacked - (state in _WE_CLOSED)
            return Positions(read, written, state in _LOST)
        first = second
    raise UncertainError("the counters of a connection do not stand still")


def _info(sock: socket.socket) -> tuple[int, int, int]:
    data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
    if len(data) < _BYTES_AT + _BYTES.size:
        raise UncertainError("the kernel does not count the bytes of a connection")
    acked, received = _BYTES.unpack_from(data, _BYTES_AT)
    return data[0], acked, received


def _queued(descriptor: int, request: int) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, request, count)
    return count[0]


def check() -> str:
    """Return why the kernel's counters cannot be relied on here; empty: they are exact.

    It asks a connection of this process with itself, and takes about a millisecond.
    """
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname(), timeout=1.0) as client,
            listener.accept()[0] as server,
        ):
            return _compare(server, client)
    except OSError as error:
        return f"the counters of a connection cannot be read: {error}"


def _compare(server: socket.socket, client: socket.socket) -> str:
    server.settimeout(1.0)
    prepare(server)
    read = written = 0
    for size in (0, 1, 100, 5000, 40000):
        client.sendall(bytes(size))
        server.sendall(bytes(size))
        written += size
        if size:
            client.recv(size // 2 + 1)
            read += len(server.recv(size // 2 + 1))
        found = of(server)
        if (found.read, found.written) != (read, written):
            return (
                f"a connection that was read to {read} and written to {written} stands at "
                f"{found.read} and {found.written} for the kernel"
            )
    return ""


def of_descriptor(descriptor: int) -> Positions:
    """Return the positions of a TCP connection by its descriptor. Raises as `of` does."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        return of(sock)
