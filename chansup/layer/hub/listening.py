"""The socket that clients connect to."""

import contextlib
import os
import socket

from chansup.errors import ChansupError
from chansup.unix import MAX_PATH, UnixListener, who_listens

_BACKLOG = 1024


class ListeningError(ChansupError):
    """The hub cannot listen where it should."""


def listen(path: str) -> socket.socket:
    """Return a listening socket of mode 0600. Raises ListeningError."""
    if len(os.fsencode(path)) > MAX_PATH:
        raise ListeningError(f"{path}: longer than {MAX_PATH} bytes, choose a shorter path")
    try:
        if os.path.exists(path):
            if who_listens(path) is not None:
                raise ListeningError(
                    f"{path}: another hub listens there. To replace it, add --takeover"
                )
            os.unlink(path)
        return UnixListener.listen(path, _BACKLOG).sock
    except OSError as error:
        raise ListeningError(f"cannot listen on {path}: {error.strerror or error}") from None


def remove(path: str, listener: socket.socket) -> None:
    """Remove the socket of a hub that ends, if it is still its own."""
    with contextlib.suppress(OSError):
        if listener.getsockname() == path:
            os.unlink(path)
