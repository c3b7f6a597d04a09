"""The directory of the control socket, and the locks that keep a second supervisor out.

The supervisor finds it from the path of the config file alone, by the rules of
`config.runtime_places`. The CLI looks further, see `whereabouts`: the file may have been edited or
switched meanwhile, and the supervisor may be another user's.
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
from chansup.supervisor.errors import AlreadyRunningError, RuntimeDirectoryError
from chansup.supervisor.runtime.run_record import RunRecord
from chansup.supervisor.runtime.signposts import Signposts
from chansup.unix import FileIdentity, Presence, UnixListener, who_listens

CONTROL_SOCKET = "control.sock"
LOCK = "lock"


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
        # A link in the middle, such as /var/run, is followed once: nobody can turn it later.
        self.path = Path(os.path.realpath(path.parent)) / path.name
        self._created: list[Path] = []
        self._directory: int | None = None  # open and locked: it holds if the lock file is removed
        self._lock: int | None = None
        self._control: UnixListener | None = None
        self._lets_pass = False
        self._signposts: Signposts | None = None
        self.run_record = RunRecord(self.path)

    def open(self) -> None:
        """Create the directory if need be, check it, and lock it. Touches nothing in it before.

        Raises RuntimeDirectoryError, or AlreadyRunningError when another supervisor has it.
        """
        self._check()  # before anything is made
        try:
            while not self._claim_directory():
                pass
            self._take_lock()
            self._require_silence()
        except OSError as error:
            self.close()
            raise RuntimeDirectoryError(self._explain(error)) from None
        except BaseException:
            self.close()
            raise

    def control_socket(self, backlog: int = 64) -> socket.socket:
        """Return the listening control socket, of mode 0600. Raises RuntimeDirectoryError."""
        path = self.path / CONTROL_SOCKET
        try:
            path.unlink(missing_ok=True)  # of a supervisor that was killed: we hold the lock
            self._control = UnixListener.listen(path, backlog)
        except OSError as error:
            raise RuntimeDirectoryError(self._explain(error)) from None
        return self._control.sock

    def leave_signposts(self, config: Path, environ: Mapping[str, str]) -> None:
        """Have the CLI find this directory, whatever `config` leads to later."""
        self._signposts = Signposts(config, self.path, environ)
        self._signposts.put_up()

    def restore(self) -> list[str]:
        """Make the directory and the lock again where they are gone; return the paths.

        Raises RuntimeDirectoryError where that cannot be done, AlreadyRunningError where another
        supervisor has taken the place.
        """
        gone = []
        try:
            if self._directory is None or not _is_at(self.path, self._directory):
                while not self._claim_directory():
                    pass
                gone.append(str(self.path))
                if self._lets_pass:
                    self.let_pass()
            lock = self.path / LOCK
            if self._lock is None or not _is_at(lock, self._lock):
                self._take_lock()
                gone.append(str(lock))
        except OSError as error:
            raise RuntimeDirectoryError(self._explain(error)) from None
        gone += self.run_record.restore()
        if self._signposts is not None:
            gone += self._signposts.restore()
        return gone

    def control_presence(self) -> Presence:
        """Return what stands where the control socket should be."""
        return self._control.presence() if self._control is not None else Presence.MISSING

    def let_pass(self) -> None:
        """Let other users through to a socket that is meant for them; they still see no names.

        Only through our own directories: a directory above that is closed to them stays closed.
        """
        self._lets_pass = True
        for path in (self.path.parent, self.path):
            status = path.stat()
            ours = path == self.path or path in self._created or path.name.startswith("chansup")
            if ours and status.st_uid == os.geteuid() and not status.st_mode & stat.S_IXOTH:
                path.chmod(stat.S_IMODE(status.st_mode) | 0o011)

    def close(self) -> None:
        """Remove what was made, and let go of the locks."""
        if self._signposts is not None:
            self._signposts.take_down()
            self._signposts = None
        self.run_record.remove()
        if self._control is not None:
            self._control.remove()
            self._control = None
        if self._lock is not None:
            # While it is held: see _take_lock
            FileIdentity.of(self._lock).remove_from(self.path / LOCK)
            os.close(self._lock)
            self._lock = None
        for directory in reversed(self._created):
            with contextlib.suppress(OSError):
                directory.rmdir()
        self._created = []
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None

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
        if said := runtime_places.fault(self.path):
            raise RuntimeDirectoryError(said)

    def _claim_directory(self) -> bool:
        """Create, check, open and lock the directory; False if it was removed meanwhile.

        Raises AlreadyRunningError when another supervisor has it.
        """
        self._create(self.path)
        self._check()
        try:
            directory = os.open(
                self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
            )
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(self.path, directory):
                return False
            former, self._directory = self._directory, directory
            if former is not None:
                os.close(former)
            return True
        except BlockingIOError:
            raise self._already_running(self._holder()) from None
        finally:
            if self._directory != directory:
                os.close(directory)

    def _holder(self) -> str:
        """Return the pid of the supervisor that has the directory, "" if it is not known."""
        with contextlib.suppress(OSError):
            return (self.path / LOCK).read_text(errors="replace")[:32].strip()
        peer = self._who_answers()
        return str(peer) if peer else ""

    def _who_answers(self) -> int | None:
        """Return the pid of who listens on the control socket; None if nobody does."""
        try:
            return who_listens(self.path / CONTROL_SOCKET)
        except OSError:
            return None

    def _require_silence(self) -> None:
        """Raise AlreadyRunningError if somebody answers here who holds no lock that can be seen."""
        pid = self._who_answers()
        if pid is not None:
            raise self._already_running(str(pid) if pid else "")

    def _already_running(self, pid: str) -> AlreadyRunningError:
        who = f", as process {pid}" if pid else ""
        return AlreadyRunningError(
            f"chansup already runs for this config file{who} (it holds {self.path}). "
            "`chansup reload` gives it new code, `chansup stop` ends it"
        )

    def _take_lock(self) -> None:
        path = self.path / LOCK
        while True:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A supervisor that ended may have removed the file after we opened it.
                if _is_at(path, lock):
                    os.ftruncate(lock, 0)
                    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
                    former, self._lock = self._lock, lock
                    if former is not None:
                        os.close(former)
                    return
            except BlockingIOError:
                pid = os.pread(lock, 32, 0).decode(errors="replace").strip()
                raise self._already_running(pid) from None
            finally:
                if self._lock != lock:
                    os.close(lock)

    def _explain(self, error: OSError) -> str:
        where = error.filename or self.path
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return (
                f"cannot write to {where}: the disk is full. "
                f"Free some space, or {runtime_places.REMEDY}"
            )
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            return f"cannot write to {where} ({error.strerror}): {runtime_places.REMEDY}"
        if (other := runtime_places.in_the_way(self.path)) is not None:
            return f"{other} is not a directory: remove it, or {runtime_places.REMEDY}"
        return f"cannot use {where} ({error.strerror}): {runtime_places.REMEDY}"


def _is_at(path: Path, descriptor: int) -> bool:
    """Say whether an open file or directory stands at `path`."""
    return FileIdentity.of(descriptor).presence_at(path) is Presence.OURS
