"""Who is on the other side of a Unix socket, as the kernel tells it."""

import socket
import struct

_UCRED = struct.Struct("3i")  # pid, uid, gid


def user_id(connection: socket.socket) -> int:
    """Return the user id of the process that connected or, seen from there, that listens."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(data)[1])
