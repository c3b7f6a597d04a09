"""Where the notify sockets lie: in the runtime directory, or where their users can get to them."""

import hashlib
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

from chansup.config.accounts import Account
from chansup.supervisor.errors import SpawnError
from chansup.supervisor.process.notify import NotifySocket
from chansup.unix import remove_sockets

_NAME = re.compile(r"n\d+\.sock\Z")
_MAX_NUMBER = 1_000_000  # no name is longer than that of the control socket
_PUBLIC = Path("/run/chansup")


class NotifySockets:
    """Makes a socket for each process."""

    def __init__(
        self, directory: Path, let_pass: Callable[[], None], warn: Callable[[str], None]
    ) -> None:
        self._directory = directory
        self._let_pass = let_pass  # opens the way to the directory for other users
        self._warn = warn
        self._warned = False
        self._numbers = count(1)
        # For users to whom the runtime directory is closed. A fixed name, so that what a killed
        # supervisor left is found.
        name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
        self._outside = _PUBLIC / f"{name}-notify"

    def clear(self) -> None:
        """Remove what a supervisor that was killed left behind."""
        remove_sockets(self._directory, _NAME)
        if os.geteuid() == 0 and _is_own_directory(self._outside):
            remove_sockets(self._outside, _NAME)

    def open(self, account: Account | None) -> NotifySocket:
        """Return a socket that processes of `account` can send to. Raises SpawnError.

        None is the supervisor's own account.
        """
        directory = self._directory if account is None else self._place_for(account)
        while True:
            path = directory / f"n{next(self._numbers) % _MAX_NUMBER}.sock"
            try:
                return NotifySocket(path, account.user if account is not None else None)
            except OSError as error:
                if os.path.lexists(path) and not isinstance(error, PermissionError):
                    continue  # of a process that has lived for a million others
                raise SpawnError(
                    f"cannot listen on {path} for what the process reports: "
                    f"{error.strerror or error}"
                ) from None

    def close(self) -> None:
        """Remove the place outside, if it was made; the sockets go with their processes."""
        with suppress(OSError):
            self._outside.rmdir()
            _PUBLIC.rmdir()

    def _place_for(self, account: Account) -> Path:
        self._let_pass()
        if _can_enter(account, self._directory):
            return self._directory
        try:
            for directory in (_PUBLIC, self._outside):
                with suppress(FileExistsError):
                    directory.mkdir(mode=0o711)
                if not _is_own_directory(directory):
                    raise PermissionError
                directory.chmod(stat.S_IMODE(directory.stat().st_mode) | 0o011)
        except OSError:
            if not self._warned:
                self._warned = True
                self._warn(
                    f"{self._directory} is closed to user {account.user}, as whom processes of the"
                    " site run: they cannot report to chansup. Set [supervisor] runtime_directory"
                    " to one that they can get to"
                )
            return self._directory
        return self._outside


def _can_enter(account: Account, directory: Path) -> bool:
    """Say whether the modes on the way let `account` in."""
    for one in (directory, *directory.parents):
        try:
            status = one.stat()
        except OSError:
            return False
        if status.st_uid == account.user:
            bit = stat.S_IXUSR
        elif status.st_gid in (account.group, *account.groups):
            bit = stat.S_IXGRP
        else:
            bit = stat.S_IXOTH
        if account.user != 0 and not status.st_mode & bit:
            return False
    return True


def _is_own_directory(path: Path) -> bool:
    with suppress(OSError):
        status = path.lstat()
        return (
            stat.S_ISDIR(status.st_mode)
            and status.st_uid == os.geteuid()
            and not stat.S_IMODE(status.st_mode) & 0o022
        )
    return False
