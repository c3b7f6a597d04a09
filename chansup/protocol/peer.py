"""Who is on the other side of a Unix socket, as the kernel tells it."""

import socket
import struct
from typing import NamedTuple

_UCRED = struct.Struct("3i")


class Credentials(NamedTuple):
    """`struct ucred` of unix(7): of who connected or, seen from there, of who listens."""

    pid: int  # 0 when it is of another PID namespace
    uid: int
    gid: int


def credentials(connection: socket.socket) -> Credentials:
    """Return the peer's credentials (SO_PEERCRED). Raises OSError on any other kind of socket."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Credentials(*_UCRED.unpack(data))
