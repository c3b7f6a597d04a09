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


def directories(config: Path, configured: str | None, environ: Mapping[str, str]) -> list[Path]:
    """Return where the supervisor of a config file may have its sockets, the usual place first.

    The others are for one that was started in another environment.
    """
    real = Path(os.path.realpath(config))
    if configured:
        return [Path(os.path.abspath(real.parent / configured))]
    name = hashlib.sha256(os.fsencode(real)).hexdigest()[:12]
    user = os.geteuid()
    fallback = Path(f"/tmp/chansup-{user}/{name}")  # noqa: S108 - its owner and mode are checked
    if user == 0:
        return [of_root(config), fallback]
    session = environ.get("XDG_RUNTIME_DIR", "")
    places = [Path(session)] if _is_usable(session) else []
    usual = Path(f"/run/user/{user}")
    return [*(place / "chansup" / name for place in places), fallback, usual / "chansup" / name]


def of_root(config: Path) -> Path:
    """Return where a supervisor of root has its sockets, if its config names no other place."""
    real = os.path.realpath(config)
    return Path("/run/chansup") / hashlib.sha256(os.fsencode(real)).hexdigest()[:12]


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
