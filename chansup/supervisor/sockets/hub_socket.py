"""The Unix socket that the hub listens on.

The supervisor holds it for its whole life, and each hub inherits it: a client that comes while one
hub has ended and the next one boots waits in its queue, and is never refused.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from chansup.config.accounts import obstacle
from chansup.protocol.channel_layer import SOCKET
from chansup.supervisor.errors import RuntimeDirectoryError
from chansup.unix import Ownership, Presence, UnixListener

BACKLOG = 1024


@dataclass(frozen=True)
class FormerSocket:
    """A listening socket whose file vanished, while a hub is still on it."""

    place: int  # O_PATH descriptor of the file: /proc/self/fd/N leads to the socket
    listener: socket.socket

    def close(self) -> None:
        """Let go of it."""
        os.close(self.place)
        self.listener.close()


class HubSocket:
    """The listening socket, while the site's channel layer is chansup's own."""

    opened = 0.0  # when a new socket had to be made for the vanished one (CLOCK_MONOTONIC)
    former: FormerSocket | None = None  # where the hub of that time can still be reached

    def __init__(
        self, directory: Path, let_pass: Callable[[], None], warn: Callable[[str], None]
    ) -> None:
        self.path = directory / SOCKET
        self._let_pass = let_pass  # opens the way to the directory for other users
        self._warn = warn
        self._warned = False
        self._listener: UnixListener | None = None
        self._place = -1  # O_PATH descriptor of its file
        self._users: Collection[int] = ()
        self._is_used = False
        self._watching: Callable[[], None] | None = None

    @property
    def address(self) -> str:
        """Where clients find it."""
        return str(self.path)

    @property
    def listener(self) -> socket.socket | None:
        """The listening socket; None where it does not listen."""
        return self._listener.sock if self._listener is not None else None

    def fileno(self) -> int:
        """Return the descriptor of the open socket."""
        assert self._listener is not None
        return self._listener.sock.fileno()

    def open(self, users: Collection[int], *, is_used: bool) -> None:
        """Listen, for `users` and root: the hub itself asks who connects.

        Where it listens already, it only looks at the users again. Raises RuntimeDirectoryError.
        """
        self._users, self._is_used = users, is_used
        try:
            if self._listener is None:
                self.path.unlink(missing_ok=True)  # of a supervisor that was killed
                self._listener = UnixListener.listen(self.path, BACKLOG)
                self._place = os.open(self.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            self._admit(users, is_used)
        except OSError as error:
            raise RuntimeDirectoryError(
                f"cannot listen on {self.path} for the channel layer: {error.strerror or error}"
            ) from None

    def restore(self) -> Presence:
        """Return what stands at its path; where that is nothing, listen there again.

        Who waits in the queue of the former socket is left to the hub that has it. Raises
        RuntimeDirectoryError when the socket cannot be made.
        """
        if self._listener is None:
            return Presence.OURS
        presence = self._listener.presence()
        if presence is not Presence.MISSING:
            return presence
        listener, watching = self._listener, self._watching
        former = FormerSocket(self._place, listener.sock)
        self.ignore()
        self._listener = None
        try:
            self.open(self._users, is_used=self._is_used)
        except RuntimeDirectoryError:
            if self._listener is None:
                self._place, self._listener = former.place, listener
            raise
        finally:
            if watching is not None:
                self.watch(watching)
        self.forget_former()
        self.former = former
        self.opened = time.monotonic()
        return presence

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
        if self._watching is not None:
            return
        self._watching = came

        def look() -> None:
            self.ignore()
            came()

        asyncio.get_running_loop().add_reader(self.fileno(), look)

    def ignore(self) -> None:
        """Watch no more: a hub does."""
        if self._watching is not None:
            self._watching = None
            asyncio.get_running_loop().remove_reader(self.fileno())

    def close(self) -> None:
        """Listen no more, and take the path away."""
        if self._listener is None:
            return
        self.ignore()
        self._listener.close()
        os.close(self._place)
        self._listener = None
        self.forget_former()

    def forget_former(self) -> None:
        """Reset whoever waits on the former socket: no hub is left there."""
        if self.former is not None:
            self.former.close()
            self.former = None
