"""Where a supervisor has its sockets: found from the path of its config file alone.

1. ``[supervisor] runtime_directory``, relative to the directory of the config file;
2. for root ``/run/chansup/HASH``;
3. for others ``$XDG_RUNTIME_DIR/chansup/HASH`` if there is one, else ``/tmp/chansup-UID/HASH``.

HASH is of the real path of the config file.
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from chansup.unix import MAX_PATH

REMEDY = "set [supervisor] runtime_directory to a directory that only you can write to"
_LONGEST_NAME = "control.sock"  # of the sockets in there
OF_ROOT = Path("/run/chansup")  # of supervisors that root runs


def directories(config: Path, configured: str | None, environ: Mapping[str, str]) -> list[Path]:
    """Return where the supervisor of a config file may have its sockets, the usual place first.

    The others are for one that was started in another environment.
    """
    real = Path(os.path.realpath(config))
    if configured:
        return [Path(os.path.abspath(real.parent / configured))]
    return [base / _name(real) for base in bases(environ)]


def bases(environ: Mapping[str, str]) -> list[Path]:
    """Return where this user's supervisors have their sockets by default, the usual place first."""
    user = os.geteuid()
    fallback = Path(f"/tmp/chansup-{user}")  # noqa: S108 - its owner and mode are checked
    if user == 0:
        return [OF_ROOT, fallback]
    session = environ.get("XDG_RUNTIME_DIR", "")
    places = [Path(session)] if _is_usable(session) else []
    usual = Path(f"/run/user/{user}")
    return [*(place / "chansup" for place in places), fallback, usual / "chansup"]


def names(config: Path) -> list[str]:
    """Return what a config file is called there: as it is named now, and as that is resolved."""
    paths = (os.path.realpath(config), os.path.abspath(config))
    return list(dict.fromkeys(_name(path) for path in paths))


def of_root(config: Path) -> Path:
    """Return where a supervisor of root has its sockets, if its config names no other place."""
    return OF_ROOT / _name(os.path.realpath(config))


def fault(directory: Path) -> str | None:
    """Return why `directory` cannot be a runtime directory, or None; it need not exist yet."""
    longest = directory / _LONGEST_NAME
    if len(os.fsencode(longest)) > MAX_PATH:
        return (
            f"the path of the control socket, {longest}, is longer than {MAX_PATH} bytes: "
            "set a shorter [supervisor] runtime_directory"
        )
    own = (os.geteuid(),)
    above = Path(os.path.realpath(directory.parent))
    for path, trusted in ((above, (*own, 0)), (directory, own)):
        try:
            status = path.lstat()
        except OSError:  # it is made, or cannot be
            continue
        if not stat.S_ISDIR(status.st_mode):
            if stat.S_ISLNK(status.st_mode):
                return f"{path} is a symbolic link: {REMEDY}"
            return f"{path} is not a directory: remove it, or {REMEDY}"
        if status.st_uid not in trusted:
            return (
                f"{path} belongs to user {status.st_uid}, not to user {os.geteuid()} who runs "
                f"chansup: {REMEDY}"
            )
        mode = stat.S_IMODE(status.st_mode)
        if path is directory and mode & 0o022:
            return f"{path} has mode {mode:04o}, so other users can write to it: chmod 700 it"
    return None


def in_the_way(path: Path) -> Path | None:
    """Return the file on the way to `path` that is not a directory, or None."""
    for place in path.parents:
        try:
            return None if stat.S_ISDIR(place.stat().st_mode) else place
        except OSError:  # missing, or below the one that is in the way
            continue
    return None


def _name(path: str | Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def _is_usable(directory: str) -> bool:
    try:
        status = os.stat(directory)
    except OSError:
        return False
    return (
        os.path.isabs(directory)
        and stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and os.access(directory, os.W_OK | os.X_OK)
    )
