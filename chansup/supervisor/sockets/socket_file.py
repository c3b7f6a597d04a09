"""The file of a public Unix socket, and how to bring it back when it vanished.

A socket that listens cannot be bound a second time, and its file cannot be linked again once the
last name is gone. So a second, hidden name is kept beside the first: from there the very same
socket gets its name back, and no process notices. Where the whole directory went, only a new
socket helps.
"""

import contextlib
import os
import stat
from pathlib import Path

from chansup.unix import FileIdentity, Presence


class SocketFile:
    """A socket's file at `path`, which was just made."""

    def __init__(self, path: Path) -> None:
        """Take note of it and of its directory. Raises OSError."""
        self.path = path
        self.identity = FileIdentity.of(path)
        self._directory = path.parent.stat()
        self._kept = path.with_name(f".{path.name}.chansup")
        self._is_kept = False
        with contextlib.suppress(OSError):  # a file system without links does without
            if self._kept.is_socket():  # of a supervisor that was killed
                self._kept.unlink()
            os.link(path, self._kept)
            self._is_kept = self.identity.presence_at(self._kept) is Presence.OURS

    def presence(self) -> Presence:
        """Return what stands at its path."""
        return self.identity.presence_at(self.path)

    def relink(self) -> bool:
        """Give the socket its name back; False if the second name is gone as well."""
        if not self._is_kept or self.identity.presence_at(self._kept) is not Presence.OURS:
            return False
        try:
            os.link(self._kept, self.path)
        except OSError:
            return False
        return self.presence() is Presence.OURS

    def restore_directory(self) -> None:
        """Make the directory as it was, if it is gone. Raises OSError."""
        directory = self.path.parent
        if directory.exists():
            return
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)
        # By a descriptor: whoever owns the directory above may put a link in its place meanwhile.
        made = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(made, stat.S_IMODE(self._directory.st_mode))  # first: see capabilities(7)
            if os.geteuid() == 0 and os.fstat(made).st_uid == 0:
                os.fchown(made, self._directory.st_uid, self._directory.st_gid)
        finally:
            os.close(made)

    def remove(self) -> None:
        """Remove both names, if they are still ours. Call it before the socket is closed."""
        self.identity.remove_from(self.path)
        if self._is_kept:
            self.identity.remove_from(self._kept)
