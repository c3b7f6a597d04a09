"""The Unix sockets that app workers listen on: a new one for each process, gone with it.

They lie in the runtime directory, under short names: a path of the kernel's holds 107 bytes. The
child inherits the listening descriptor; the supervisor keeps none, so that the socket of a worker
that died refuses at once.
"""

import os
import re
from collections.abc import Callable, Collection
from pathlib import Path

from chansup.config.accounts import obstacle
from chansup.supervisor.errors import SpawnError
from chansup.unix import KEEP, Ownership, UnixListener, remove_sockets

BACKLOG = 2048  # every interface process connects, and all at once after a worker's start
_NAME = re.compile(r"w\d+\.sock\Z")


class WorkerSockets:
    """Makes them in one directory, which the supervisor alone uses."""

    def __init__(
        self, directory: Path, let_pass: Callable[[], None], warn: Callable[[str], None]
    ) -> None:
        self._directory = directory
        self._let_pass = let_pass  # opens the way to the directory for other users
        self._warn = warn
        self._warned = False
        self._made = 0

    def clear(self) -> None:
        """Remove what a supervisor that was killed left behind."""
        remove_sockets(self._directory, _NAME)

    def listen(self, users: Collection[int]) -> UnixListener:
        """Return a listener that the supervisor and `users` can connect to. Raises SpawnError.

        Its socket is for the child: the supervisor closes its copy after the spawn.
        """
        self._made += 1
        path = str(self._directory / f"w{self._made}.sock")
        others = sorted(set(users) - {os.geteuid()})
        try:
            if others:
                self._let_pass()
                self._look_for_obstacles(others[0])
            # Several only while [interface] user changes; the worker asks who connects anyway.
            mode = 0o600 if len(others) < 2 else 0o666
            ownership = Ownership(mode, others[0] if others else KEEP)
            return UnixListener.listen(path, BACKLOG, ownership)
        except OSError as error:
            raise SpawnError(
                f"cannot listen on {path} for the interface: {error.strerror or error}"
            ) from None

    def _look_for_obstacles(self, user: int) -> None:
        """Say so, once, if `user` cannot get to the directory."""
        closed = obstacle(self._directory, user)
        if closed is not None and not self._warned:
            self._warned = True
            self._warn(
                f"{closed} is closed to user {user}, as whom the interface runs: it cannot reach"
                " the app workers. Set [supervisor] runtime_directory to one that it can get to"
            )
