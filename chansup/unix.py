"""Unix sockets that listen: their file, whom it belongs to, and who is at the other end.

Only the owner of a file may change its mode without CAP_FOWNER, and only CAP_CHOWN gives a file
away. So the mode comes first. A directory may belong to somebody else, who could put a symbolic
link in the file's place at any moment: all calls go to the file itself, by a descriptor.
Sources: capabilities(7), chmod(2), chown(2), open(2) for O_PATH, unix(7).
"""

import contextlib
import enum
import errno
import os
import re
import socket
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

MAX_PATH = 107  # bytes; sun_path holds 108 with the final NUL, see unix(7)
KEEP = -1  # a user or group that stays as it is, chown(2)
_DIRECTORY_MODE = 0o755  # the socket's own mode says who may connect
_UCRED = struct.Struct("3i")

AnyPath = str | os.PathLike[str]


class Credentials(NamedTuple):
    """`struct ucred` of unix(7): of who connected or, seen from there, of who listens."""

    pid: int  # 0 when it is of another PID namespace
    uid: int
    gid: int


def credentials(connection: socket.socket) -> Credentials:
    """Return the peer's credentials (SO_PEERCRED). Raises OSError on any other kind of socket."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Credentials(*_UCRED.unpack(data))


def who_listens(path: AnyPath) -> int | None:
    """Return the pid of who listens at `path`: 0 if it is not known, None if nobody does.

    Raises OSError where that cannot be tried.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)
        try:
            caller.connect(os.fspath(path))
        except BlockingIOError:  # its queue is full, so it lives
            return 0
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        return credentials(caller).pid


class Presence(enum.Enum):
    """What stands at a path."""

    OURS = enum.auto()
    MISSING = enum.auto()
    FOREIGN = enum.auto()  # something that somebody else put there, or that cannot be looked at


@dataclass(frozen=True)
class FileIdentity:
    """A file, whatever its name: by device and inode.

    Good for as long as somebody holds the file open.
    """

    device: int
    inode: int

    @classmethod
    def of(cls, file: AnyPath | int) -> Self:
        """Return who a path or an open descriptor is; links are not followed. Raises OSError."""
        status = os.fstat(file) if isinstance(file, int) else os.lstat(file)
        return cls(status.st_dev, status.st_ino)

    def presence_at(self, path: AnyPath) -> Presence:
        """Return whether this file stands at `path`."""
        try:
            found = FileIdentity.of(path)
        except (FileNotFoundError, NotADirectoryError):
            return Presence.MISSING
        except OSError:
            return Presence.FOREIGN
        return Presence.OURS if found == self else Presence.FOREIGN

    def remove_from(self, path: AnyPath) -> None:
        """Remove this file from `path`; another one there, or none, is left alone."""
        if self.presence_at(path) is Presence.OURS:
            with contextlib.suppress(OSError):  # it goes with its directory, or somebody was faster
                os.unlink(path)


class Ownership(NamedTuple):
    """Mode, user and group of a socket file."""

    mode: int = 0o660
    user: int = KEEP
    group: int = KEEP

    def give(self, path: AnyPath, identity: FileIdentity | None = None) -> None:
        """Make the socket at `path` what this says, if it has `identity`.

        Raises OSError: FileNotFoundError if another file, or none, is there.
        """
        with _held(path) as (name, status):
            if not stat.S_ISSOCK(status.st_mode) or (
                identity is not None and identity != FileIdentity(status.st_dev, status.st_ino)
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
def _held(path: AnyPath) -> Iterator[tuple[str, os.stat_result]]:
    """Hold the file itself, links not followed; yield a name that leads to it, and its status."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}", os.fstat(descriptor)
    finally:
        os.close(descriptor)


PRIVATE = Ownership(0o600)


@dataclass(frozen=True)
class UnixListener:
    """A socket with a file at `path`, made here."""

    sock: socket.socket  # non-blocking
    path: str
    identity: FileIdentity

    @classmethod
    def bind(cls, path: AnyPath, kind: int = socket.SOCK_STREAM, *options: int) -> Self:
        """Make a socket whose file has mode 0600 from its first moment. Raises OSError.

        `options` of SOL_SOCKET are switched on before anybody can send to it.
        """
        sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
        try:
            for option in options:
                sock.setsockopt(socket.SOL_SOCKET, option, 1)
            former = os.umask(0o177)
            try:
                sock.bind(os.fspath(path))
            finally:
                os.umask(former)
            return cls(sock, os.fspath(path), FileIdentity.of(path))
        except BaseException:
            sock.close()
            raise

    @classmethod
    def listen(cls, path: AnyPath, backlog: int, ownership: Ownership = PRIVATE) -> Self:
        """Listen at `path`, where nothing is; nothing is left there if that fails.

        Raises OSError.
        """
        made = cls.bind(path)
        try:
            ownership.give(path, made.identity)
            made.sock.listen(backlog)
        except BaseException:
            made.close()
            raise
        return made

    def presence(self) -> Presence:
        """Return what stands at its path."""
        return self.identity.presence_at(self.path)

    def remove(self) -> None:
        """Remove the file, if it is still ours. The socket is to be open somewhere."""
        self.identity.remove_from(self.path)

    def close(self) -> None:
        """Remove the file, if it is still ours, and close the socket."""
        self.remove()  # before close: its inode cannot be another's yet
        self.sock.close()


def remove_sockets(directory: AnyPath, name: re.Pattern[str]) -> None:
    """Remove the sockets whose names match: what a process that was killed left behind."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory):
            if name.match(entry.name) and stat.S_ISSOCK(entry.stat().st_mode):
                os.unlink(entry.path)
