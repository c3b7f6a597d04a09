"""Leaves signposts to the running supervisor, see `config.signposts`."""

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from chansup.config import runtime_places, signposts
from chansup.config.signposts import Signpost
from chansup.unix import FileIdentity, Presence


class Signposts:
    """The signposts of one supervisor: made at its start, removed at its end."""

    def __init__(self, config: Path, directory: Path, environ: Mapping[str, str]) -> None:
        """Leave nothing yet. `directory` is where the supervisor has its sockets."""
        self._content = Signpost(str(config), str(directory), os.getpid()).encode()
        self._bases = runtime_places.bases(environ)
        # Now: what the config resolves to may be another file when they are made again.
        self._names = [f"{name}{signposts.SUFFIX}" for name in runtime_places.names(config)]
        self._made: dict[Path, FileIdentity] = {}
        self._open: list[int] = []  # so that their inodes cannot become another file's

    def put_up(self) -> None:
        """Make them in the first place that can be used; without one, do without them."""
        for base in self._bases:
            if self._made:
                return
            with suppress(OSError):
                base.mkdir(mode=0o711, exist_ok=True)
                status = base.lstat()
                mode = stat.S_IMODE(status.st_mode)
                if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                    continue
                if mode & 0o022:
                    continue
                base.chmod(mode | 0o011)  # others may ask whether it is theirs, and see no names
                for name in self._names:
                    self._make(base / name)

    def _make(self, path: Path) -> None:
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        with suppress(FileNotFoundError):
            fresh.unlink()
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, self._content)
            os.fchmod(descriptor, 0o644)
            fresh.rename(path)
        except OSError:
            os.close(descriptor)
            raise
        self._open.append(descriptor)
        self._made[path] = FileIdentity.of(descriptor)

    def restore(self) -> list[str]:
        """Make those again that vanished; return them. One that another supervisor made stays."""
        if not self._made:
            self.put_up()
        gone = [
            path
            for path, identity in self._made.items()
            if identity.presence_at(path) is Presence.MISSING
        ]
        restored = []
        for path in gone:
            with suppress(OSError):
                path.parent.mkdir(mode=0o711, exist_ok=True)
                self._make(path)
                restored.append(str(path))
        return restored

    def take_down(self) -> None:
        """Remove them."""
        for path, identity in self._made.items():
            identity.remove_from(path)
            with suppress(OSError):
                path.parent.rmdir()
        self._made.clear()
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()
