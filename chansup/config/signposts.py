"""Signposts: where a supervisor really is, for who asks by a name that leads elsewhere by now.

The runtime directory follows from the real path of the config file, or from a key in it. Both may
change while the supervisor runs: a symlink to a release is switched, the file is edited. So a
supervisor leaves small files where its user's sockets lie, named after its config file as it was
given and as it was resolved.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from chansup.config import runtime_places

SUFFIX = ".site"
_MAX_SIZE = 16 * 1024  # bytes


@dataclass(frozen=True)
class Signpost:
    """One supervisor."""

    config: str  # as it was named
    directory: str  # where its sockets are
    pid: int

    def encode(self) -> bytes:
        """Return the content of the file."""
        return json.dumps(asdict(self)).encode() + b"\n"


def read(config: Path, bases: Iterable[Path]) -> list[Signpost]:
    """Return what signposts say of a config file, in the order of `bases`."""
    paths = [base / f"{name}{SUFFIX}" for base in bases for name in runtime_places.names(config)]
    return [found for path in paths if (found := decode(path)) is not None]


def read_all(bases: Iterable[Path]) -> list[Signpost]:
    """Return every signpost."""
    found: list[Signpost] = []
    for base in bases:
        try:
            names = sorted(name for name in os.listdir(base) if name.endswith(SUFFIX))
        except OSError:
            continue
        posts = (decode(base / name) for name in names)
        found += [post for post in posts if post is not None and post not in found]
    return found


def decode(path: Path) -> Signpost | None:
    """Return what the file at `path` says; None if there is none, or one that is not ours."""
    try:
        # Never a link, and never a pipe that holds us up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            document = json.loads(file.read(_MAX_SIZE))
        config, directory, pid = (document[key] for key in ("config", "directory", "pid"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not (isinstance(config, str) and isinstance(directory, str) and isinstance(pid, int)):
        return None
    return Signpost(config, directory, pid) if os.path.isabs(directory) else None
