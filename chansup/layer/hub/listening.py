"""The socket that clients connect to."""

import contextlib
import errno
import os
import socket

from chansup.errors import ChansupError

_BACKLOG = 1024
_MAX_PATH = 107  # bytes; sun_path holds 108 with the final NUL, see unix(7)


class ListeningError(ChansupError):
    """The hub cannot listen where it should."""


def listen(path: str) -> socket.socket:
    """Return a listening socket of mode 0600. Raises ListeningError."""
    if len(os.fsencode(path)) > _MAX_PATH:
        raise ListeningError(f"{path}: longer than {_MAX_PATH} bytes, choose a shorter path")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            _bind(sock, path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _remove_stale(path)
            _bind(sock, path)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise ListeningError(f"cannot listen on {path}: {error.strerror or error}") from None
    except BaseException:
        sock.close()
        raise
    return sock


def _bind(sock: socket.socket, path: str) -> None:
    former = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(former)


def _remove_stale(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise ListeningError(
                f"{path}: another hub listens there. To replace it, add --takeover"
            )


def remove(path: str, listener: socket.socket) -> None:
    """Remove the socket of a hub that ends, if it is still its own."""
    with contextlib.suppress(OSError):
        if listener.getsockname() == path:
            os.unlink(path)
