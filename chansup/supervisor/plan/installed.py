"""The code that a process of chansup's own would run if it started now."""

import hashlib
import importlib
import os
import sys
from contextlib import suppress
from functools import lru_cache
from importlib import machinery, metadata
from pathlib import Path

import chansup
from chansup.config.accounts import obstacle


def fingerprint(server: str | None = None) -> tuple[object, ...]:
    """Return what changes with the code of chansup, and with the version of `server`, the last.

    The same code installed again changes nothing: a deploy may do that each time.
    """
    directory = _package()
    files = []
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith(".py"):
                with suppress(OSError):  # it is being replaced just now
                    status = os.stat(path)
                    files.append((path, _digest(path, status.st_size, status.st_mtime_ns)))
    return (*sorted(files), _version(server) if server is not None else None)


@lru_cache(maxsize=2000)  # several times what there is, so that most are read once
def _digest(path: str, size: int, changed: int) -> bytes:
    """Return what tells the content of a file that was last `changed` then."""
    with open(path, "rb") as file:
        return hashlib.blake2b(file.read(), digest_size=16).digest()


def is_reachable(user: int) -> bool:
    """Whether a user can run this interpreter and chansup in it, as far as modes tell."""
    if user in (0, os.geteuid()):
        return True
    with suppress(OSError):
        interpreter = Path(os.path.realpath(sys.executable))
        places = (interpreter, Path(os.path.realpath(_package())) / "__init__.py")
        return all(obstacle(place, user) is None for place in places)
    return False


def _package() -> str:
    """Return where a new process of this interpreter finds chansup, which may not be our own."""
    importlib.invalidate_caches()
    specification = machinery.PathFinder.find_spec("chansup", sys.path)
    origin = specification.origin if specification is not None else None
    return str(Path(origin or chansup.__file__ or "").parent)


def version() -> str | None:
    """Return the version of chansup that a new process would run, as its metadata tells."""
    return _version("chansup")


def _version(server: str) -> str | None:
    try:
        return metadata.version(server)
    except metadata.PackageNotFoundError:  # the process itself will say what to install
        return None
