"""The Python interpreters that run the app."""

import os
import shutil
from pathlib import Path

from chansup.config.keys import quoted


def find(python: str, directory: Path, search_path: str | None) -> str:
    """Return the absolute path of a `python`; ValueError if there is no such program.

    A name alone is looked up on `search_path`; anything with a slash is relative to `directory`,
    the app's, so that each release may bring its own. Symlinks are kept: one is what makes a
    virtual environment.
    """
    if "/" not in python:
        found = shutil.which(python, path=search_path)
        if found is None:
            raise ValueError(
                f"{quoted(python)} is not on PATH: write the path, as in "
                '"venv/bin/python" (relative to [app] directory)'
            )
        return os.path.abspath(found)
    path = Path(os.path.abspath(directory / python))
    if os.path.isdir(path):
        raise ValueError(f"{quoted(str(path), 300)} is a directory: write {path}/bin/python")
    if not os.path.exists(path):
        raise ValueError(f"{quoted(str(path), 300)} does not exist: create the environment first")
    if not os.access(path, os.X_OK):
        raise ValueError(f"{quoted(str(path), 300)} is not executable")
    return str(path)
