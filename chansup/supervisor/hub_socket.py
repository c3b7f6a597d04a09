"""The Unix socket that the hub listens on.

The supervisor holds it for its whole life, and each hub inherits it: a client that comes while one
hub has ended and the next one boots waits in its queue, and is never refused.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Collection
from pathlib import Path

from chansup.config.accounts import obstacle
from chansup.protocol.channel_layer import SOCKET
from chansup.supervisor.errors import RuntimeDirectoryError
from chansup.supervisor.ownership import Ownership

BACKLOG = 1024


class HubSocket:
    """The listening socket, while the site's channel layer is chansup's own."""

    def __init__(
        self, directory: Path, let_pass: Callable[[], None], warn: Callable[[str], None]
    ) -> None:
        self.path = directory / SOCKET
        self._let_pass = let_pass  # opens the way to the directory for other users
        self._warn = warn
        self._warned = False
        self._socket: socket.socket | None = None
        self._watching = False

    @property
    def address(self) -> str:
        """Where clients find it."""
        return str(self.path)

    @property
    def is_open(self) -> bool:
        """Whether it listens."""
        return self._socket is not None

    def fileno(self) -> int:
        """Return the descriptor of the open socket."""
        assert self._socket is not None
        return self._socket.fileno()

    def open(self, users: Collection[int], *, is_used: bool) -> None:
        """Listen, for `users` and root: the hub itself asks who connects.

        Where it listens already, it only looks at the users again. Raises RuntimeDirectoryError.
        """
        try:
            if self._socket is None:
                self._socket = self._listen()
            self._admit(users, is_used)
        except OSError as error:
            raise RuntimeDirectoryError(
                f"cannot listen on {self.path} for the channel layer: {error.strerror or error}"
            ) from None

    def _listen(self) -> socket.socket:
        self.path.unlink(missing_ok=True)  # of a supervisor that was killed: we hold the lock
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(str(self.path))
            self.path.chmod(0o600)  # nobody can connect before listen(2)
            sock.listen(BACKLOG)
            sock.setblocking(False)
        except OSError:
            sock.close()
            raise
        return sock

    def _admit(self, users: Collection[int], is_used: bool) -> None:
        others = sorted(set(users) - {0, os.geteuid()})
        if others:
            self._let_pass()
            closed = obstacle(self.path, others[0])
            if closed is not None and is_used and not self._warned:
                self._warned = True
                self._warn(
                    f"{closed} is closed to user {others[0]}, as whom processes of the site run:"
                    " they cannot reach the channel layer. Set [supervisor] runtime_directory to"
                    " one that they can get to"
                )
        mode = 0o600 if len(others) < 2 else 0o666
        Ownership(mode, others[0] if others else os.geteuid()).give(self.path)

    def watch(self, came: Callable[[], None]) -> None:
        """Call `came`, once, when somebody connects whom no hub has accepted."""
        if self._watching:
            return
        self._watching = True

        def look() -> None:
            self.ignore()
            came()

        asyncio.get_running_loop().add_reader(self.fileno(), look)

    def ignore(self) -> None:
        """Watch no more: a hub does."""
        if self._watching:
            self._watching = False
            asyncio.get_running_loop().remove_reader(self.fileno())

    def close(self) -> None:
        """Listen no more, and take the path away."""
        if self._socket is None:
            return
        self.ignore()
        self._socket.close()
        self._socket = None
        with contextlib.suppress(OSError):
            self.path.unlink()
