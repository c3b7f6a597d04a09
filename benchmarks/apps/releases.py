"""Releases of the test site, deployed as people deploy: a symlink to the current one.

``ROOT/releases/1`` and ``ROOT/releases/2`` are copies of `site/` that differ in their VERSION;
``ROOT/current`` points at the one to run.
"""

import os
import re
import shutil
from pathlib import Path

SITE = Path(__file__).parent / "site"
BROKEN = "broken"  # the version whose code cannot be imported

_BODY = re.compile(rb"version=(\S+) pid=(\d+)")


class Releases:
    """The release directories of one measurement, below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.current = root / "current"

    def deploy(self, version: str) -> None:
        """Write a release and switch the symlink to it, atomically."""
        release = self._write(self.root / "releases" / version, version)
        link = self.root / "next"
        link.unlink(missing_ok=True)
        link.symlink_to(release, target_is_directory=True)
        os.replace(link, self.current)

    def overwrite(self, version: str) -> None:
        """Write the release over the current one, as `git pull` in place does."""
        self._write(self.current.resolve(), version)

    def _write(self, directory: Path, version: str) -> Path:
        shutil.copytree(
            SITE, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
        (directory / "VERSION").write_text(version + "\n")
        if version == BROKEN:
            broken = 'raise RuntimeError("this release does not boot")\n'
            with (directory / "site_version.py").open("a") as module:
                module.write(broken)
        return directory


def read_body(body: bytes) -> tuple[str, int]:
    """Return which version and which process wrote a response of the test site."""
    match = _BODY.search(body)
    if match is None:
        raise ValueError(f"not an answer of the test site: {body[:100]!r}")
    return match[1].decode(), int(match[2])
