"""Whom a socket file belongs to, and who may connect: set without more rights than are needed.

Only the owner of a file may change its mode without CAP_FOWNER, and only CAP_CHOWN gives a file
away. So the mode comes first. A directory may belong to somebody else, who could put a symbolic
link in the file's place at any moment: all calls go to the file itself, by a descriptor.
Sources: capabilities(7), chmod(2), chown(2), open(2) for O_PATH, unix(7).
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

KEEP = -1  # a user or group that stays as it is, chown(2)
_DIRECTORY_MODE = 0o755  # the socket's own mode says who may connect


class Ownership(NamedTuple):
    """Mode, user and group of a socket file."""

    mode: int = 0o660
    user: int = KEEP
    group: int = KEEP

    def give(self, path: str | os.PathLike[str], identity: tuple[int, int] | None = None) -> None:
        """Make the socket at `path` what this says, if it has `identity` (device, inode).

        Raises OSError: FileNotFoundError if another file, or none, is there.
        """
        with _held(path) as (name, status):
            if not stat.S_ISSOCK(status.st_mode) or (
                identity is not None and identity != (status.st_dev, status.st_ino)
            ):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            if stat.S_IMODE(status.st_mode) != self.mode:
                if status.st_uid != os.geteuid():
                    os.chown(name, os.geteuid(), KEEP)  # given away earlier
                os.chmod(name, self.mode)
            self._hand_over(name)

    def _hand_over(self, name: str) -> None:
        now = os.stat(name)
        user = now.st_uid if self.user == KEEP else self.user
        group = now.st_gid if self.group == KEEP else self.group
        if (user, group) != (now.st_uid, now.st_gid):
            os.chown(name, user, group)

    def make_directory(self, path: Path) -> None:
        """Make `path` if it is missing, with all above it; the last one belongs to the owner.

        Raises OSError.
        """
        if path.is_dir():
            return
        if not path.parent.is_dir():
            Ownership().make_directory(path.parent)
        try:
            path.mkdir()
        except FileExistsError:
            if not path.is_dir():
                raise NotADirectoryError(
                    errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)
                ) from None
            return
        with _held(path) as (name, _):
            os.chmod(name, _DIRECTORY_MODE)  # whatever the umask is
            self._hand_over(name)


@contextlib.contextmanager
def _held(path: str | os.PathLike[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Hold the file itself, links not followed; yield a name that leads to it, and its status."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}", os.fstat(descriptor)
    finally:
        os.close(descriptor)
