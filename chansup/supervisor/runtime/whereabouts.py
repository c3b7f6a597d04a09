"""Where the supervisor of a config file is: asked by the CLI, and by a supervisor that starts.

It looks where a supervisor of the same user would be, and where signposts lead, then at those of
other users. What answers counts; what was left by one that was killed does not.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from chansup.config import runtime_places, signposts
from chansup.config.signposts import Signpost
from chansup.supervisor.errors import AlreadyRunningError
from chansup.supervisor.runtime.runtime import CONTROL_SOCKET, control_socket_path
from chansup.unix import who_listens

_OF_A_USER = re.compile(r"chansup-(\d+)\Z")


@dataclass(frozen=True)
class Whereabouts:
    """A control socket, and the user id of another user whose it is."""

    socket: Path
    owner: int | None = None


def locate(config: Path, configured: str | None, environ: Mapping[str, str]) -> Whereabouts:
    """Return where the supervisor of a config file is, or would be. Touches nothing.

    `configured` is the runtime directory that the file names now.
    """
    for directory in _own(config, configured, environ):
        path = directory / CONTROL_SOCKET
        if _is_of(path, (os.geteuid(), 0)) and _answers(path):
            return Whereabouts(path)
    for base, owner in _others_bases(environ):
        for directory in _in(base, config):
            path = directory / CONTROL_SOCKET
            if _may_be_of(path, owner) and _answers(path):
                return Whereabouts(path, owner)
    return Whereabouts(control_socket_path(config, configured, environ))


def others_of_this_user(environ: Mapping[str, str]) -> list[Signpost]:
    """Return the supervisors of this user that run, whatever their config."""
    return [
        post
        for post in signposts.read_all(runtime_places.bases(environ))
        if _answers(Path(post.directory) / CONTROL_SOCKET)
    ]


def require_none_elsewhere(config: Path, directory: Path, environ: Mapping[str, str]) -> None:
    """Raise AlreadyRunningError if a supervisor of this file runs in another runtime directory.

    It was started before a symlink was switched, or before the file named `directory`.
    """
    for post in signposts.read(config, runtime_places.bases(environ)):
        other = Path(post.directory)
        if other != directory and _answers(other / CONTROL_SOCKET):
            raise AlreadyRunningError(
                f"chansup already runs for this config file, as process {post.pid} (it holds"
                f" {other}). `chansup reload` gives it new code, `chansup stop` ends it"
            )


def _own(config: Path, configured: str | None, environ: Mapping[str, str]) -> Iterator[Path]:
    yield from runtime_places.directories(config, configured, environ)
    for base in runtime_places.bases(environ):
        yield from _in(base, config)


def _in(base: Path, config: Path) -> Iterator[Path]:
    for post in signposts.read(config, [base]):
        yield Path(post.directory)
    for name in runtime_places.names(config):
        yield base / name


def _others_bases(environ: Mapping[str, str]) -> Iterator[tuple[Path, int]]:
    """Yield where supervisors of other users have their sockets, if they are really theirs."""
    places: list[tuple[Path, int]] = [(Path("/run/chansup"), 0)]
    for place in _entries(Path("/run/user")):
        if place.name.isdigit():
            places.append((place / "chansup", int(place.name)))
    for place in _entries(Path("/tmp")):  # noqa: S108 - the owner is checked
        if found := _OF_A_USER.match(place.name):
            places.append((place, int(found[1])))
    own = runtime_places.bases(environ)
    for base, owner in places:
        if base not in own and owner != os.geteuid() and _is_directory_of(base, owner):
            yield base, owner


def _entries(directory: Path) -> Iterable[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _is_directory_of(path: Path, user: int) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == user


def _is_of(path: Path, users: tuple[int, ...]) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISSOCK(status.st_mode) and status.st_uid in users


def _may_be_of(path: Path, user: int) -> bool:
    """Whether there is a control socket of `user`, as far as we may look."""
    try:
        path.lstat()
    except PermissionError:
        return _is_directory_of(path.parent, user)
    except OSError:
        return False
    return _is_of(path, (user,))


def _answers(path: Path) -> bool:
    """Whether somebody listens at `path`; one that we may not talk to counts."""
    try:
        return who_listens(path) is not None
    except PermissionError:
        return True
    except OSError:
        return False
