"""The directory of the control socket, and the lock that keeps a second supervisor out.

The supervisor and the CLI find it from the path of the config file alone, by the rules of
`config.runtime_places`. Who asks as root after a service that runs as another user needs
``[supervisor] runtime_directory``: nothing else leads from one user to the other.
"""

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path

from chansup.config import runtime_places
from chansup.supervisor.errors import AlreadyRunning, RuntimeDirectoryError

CONTROL_SOCKET = "control.sock"
LOCK = "lock"
MAX_SOCKET_PATH = 107  # bytes; sun_path holds 108 with the final NUL, see unix(7)


def directory_for(
    config_path: Path, configured: str | None = None, environ: Mapping[str, str] = os.environ
) -> Path:
    """Return the directory that a supervisor of this config file uses. Touches nothing."""
    return runtime_places.directories(config_path, configured, environ)[0]


def control_socket_path(
    config_path: Path, configured: str | None = None, environ: Mapping[str, str] = os.environ
) -> Path:
    """Return the path that a supervisor of this config file answers on, if one runs.

    A supervisor that was started in another environment (from cron, say, without
    ``$XDG_RUNTIME_DIR``) is found too.
    """
    places = runtime_places.directories(config_path, configured, environ)
    paths = [one / CONTROL_SOCKET for one in places]
    return next((path for path in paths if _is_own_socket(path)), paths[0])


def _is_own_socket(path: Path) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISSOCK(status.st_mode) and status.st_uid in (os.geteuid(), 0)


class RuntimeDirectory:
    """A directory of mode 0700 that this process alone uses, from `open` to `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._created: list[Path] = []
        self._lock: int | None = None
        self._socket: tuple[int, int] | None = None  # device and inode

    def open(self) -> None:
        """Create the directory if need be, check it, and lock it.

        Raises RuntimeDirectoryError, or AlreadyRunning when another supervisor has it.
        """
        self._check_length()
        try:
            self._create(self.path)
            self._check()
            self._take_lock()
        except OSError as error:
            self.close()
            raise RuntimeDirectoryError(self._explain(error)) from None
        except BaseException:
            self.close()
            raise

    def control_socket(self, backlog: int = 64) -> socket.socket:
        """Return the listening control socket, of mode 0600. Raises RuntimeDirectoryError."""
        path = self.path / CONTROL_SOCKET
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path.unlink(missing_ok=True)  # of a supervisor that was killed: we hold the lock
            sock.bind(str(path))
            path.chmod(0o600)  # nobody can connect before listen(2)
            status = path.lstat()
            sock.listen(backlog)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            raise RuntimeDirectoryError(self._explain(error)) from None
        self._socket = (status.st_dev, status.st_ino)
        return sock

    def let_pass(self) -> None:
        """Let other users through to a socket that is meant for them; they still see no names.

        Only through what is ours alone: a directory above that is closed to them stays closed.
        """
        for path in (self.path.parent, self.path):
            status = path.stat()
            ours = path == self.path or path in self._created or path.name.startswith("chansup")
            if ours and status.st_uid == os.geteuid() and not status.st_mode & stat.S_IXOTH:
                path.chmod(stat.S_IMODE(status.st_mode) | 0o011)

    def close(self) -> None:
        """Remove what `open` and `control_socket` made, and let go of the lock."""
        if self._socket is not None:
            path = self.path / CONTROL_SOCKET
            with contextlib.suppress(OSError):
                status = path.lstat()
                if (status.st_dev, status.st_ino) == self._socket:
                    path.unlink()
            self._socket = None
        if self._lock is not None:
            with contextlib.suppress(OSError):
                (self.path / LOCK).unlink()  # while it is held: see _take_lock
            os.close(self._lock)
            self._lock = None
        for directory in reversed(self._created):
            with contextlib.suppress(OSError):
                directory.rmdir()
        self._created = []

    def _check_length(self) -> None:
        path = self.path / CONTROL_SOCKET
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise RuntimeDirectoryError(
                f"the path of the control socket, {path}, is longer than {MAX_SOCKET_PATH} bytes: "
                "set a shorter [supervisor] runtime_directory"
            )

    def _create(self, path: Path) -> None:
        try:
            path.mkdir(mode=0o700)
        except FileNotFoundError:
            self._create(path.parent)
            self._create(path)
        except FileExistsError:
            return
        else:
            self._created.append(path)

    def _check(self) -> None:
        for path in (self.path.parent, self.path):
            status = path.stat() if path is self.path.parent else path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no directory"
                raise RuntimeDirectoryError(f"{path} is {what}: {_REMEDY}")
            trusted = (os.geteuid(),) if path is self.path else (os.geteuid(), 0)
            if status.st_uid not in trusted:
                raise RuntimeDirectoryError(
                    f"{path} belongs to user {status.st_uid}, not to user {os.geteuid()} who runs "
                    f"chansup: {_REMEDY}"
                )
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o022:
            raise RuntimeDirectoryError(
                f"{self.path} has mode {mode:04o}, so other users can write to it: chmod 700 it"
            )

    def _take_lock(self) -> None:
        path = self.path / LOCK
        while True:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A supervisor that ended may have removed the file after we opened it.
                current = _identity(path) == _identity(lock)
                if current:
                    os.ftruncate(lock, 0)
                    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
                    self._lock = lock
                    return
            except BlockingIOError:
                pid = os.pread(lock, 32, 0).decode(errors="replace").strip()
                who = f", as process {pid}" if pid else ""
                raise AlreadyRunning(
                    f"chansup already runs for this config file{who} (it holds {path}). "
                    "`chansup reload` gives it new code, `chansup stop` ends it"
                ) from None
            finally:
                if self._lock != lock:
                    os.close(lock)

    def _explain(self, error: OSError) -> str:
        where = error.filename or self.path
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"cannot write to {where}: the disk is full. Free some space, or {_REMEDY}"
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            return f"cannot write to {where} ({error.strerror}): {_REMEDY}"
        return f"cannot use {where} ({error.strerror}): {_REMEDY}"


_REMEDY = "set [supervisor] runtime_directory to a directory that only you can write to"


def _identity(file: Path | int) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
