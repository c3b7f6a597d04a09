"""An interpreter with chansup that every user of the machine can run.

The checkout and its environment may stand in a directory that only their owner may enter.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import chansup

_SYSTEM = f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"


@cache
def interpreter() -> str | None:
    """Return an interpreter of this version that every user can run, or None."""
    for path in (getattr(sys, "_base_executable", sys.executable), _SYSTEM):
        if os.access(path, os.X_OK) and _others_can_run(path):
            return path
    return None


def _others_can_run(path: str) -> bool:
    if os.geteuid() != 0:
        return False
    try:
        done = subprocess.run([path, "-I", "-c", ""], user="nobody", cwd="/", capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


def program() -> tuple[str, ...]:
    """Return the arguments by which this interpreter runs chansup with the one for everybody."""
    python = interpreter()
    return (
        "-c",
        f"import os, sys; os.chdir('/'); os.execv({python!r}, [{python!r}, '-m', 'chansup', *sys.argv[1:]])",
    )


def reason() -> str | None:
    """Return why tests as another user cannot run here, or None."""
    if os.geteuid() != 0:
        return "only root can become somebody else"
    if interpreter() is None:
        return f"no Python {sys.version_info[0]}.{sys.version_info[1]} that every user can run"
    return None


@contextmanager
def directory() -> Iterator[Path]:
    """Make a directory that every user can get to, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def environment(where: Path, *more: str) -> dict[str, str]:
    """Copy chansup, what it requires and the distributions `more` to `where`; return what finds them."""
    packages = where / "packages"
    packages.mkdir(mode=0o755)
    shutil.copytree(
        Path(chansup.__file__).parent,
        packages / "chansup",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    found: set[str] = set()
    wanted = [*_requirements("chansup"), *more]
    while wanted:
        name = wanted.pop()
        if name not in found:
            found.add(name)
            wanted.extend(_requirements(name))
            _copy(importlib.metadata.distribution(name), packages)
    return {"PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1"}


def _requirements(distribution: str) -> list[str]:
    try:
        wanted = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    names = [re.match(r"[\w.-]+", one) for one in wanted if "extra ==" not in one]
    return [one[0] for one in names if one and _is_installed(one[0])]


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _copy(distribution: importlib.metadata.Distribution, to: Path) -> None:
    for file in distribution.files or ():
        if file.parts[0] != ".." and file.suffix != ".pyc":
            target = to / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), target)
