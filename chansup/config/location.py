"""Which config file is meant, if none is named: chansup.toml here, or in a directory above."""

import os
from collections.abc import Mapping
from pathlib import Path

CONFIG_VARIABLE = "CHANSUP_CONFIG"
CONFIG_FILE = "chansup.toml"


def working_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the working directory as its user came to it: symlinks stay, as ``pwd -L`` has it.

    A release that `current` leads to is known by that name, whatever it leads to later. Raises
    FileNotFoundError when the directory is gone.
    """
    physical = os.getcwd()
    logical = environ.get("PWD", "")
    if os.path.isabs(logical) and os.path.normpath(logical) == logical:
        try:
            if os.path.samefile(logical, physical):
                return Path(logical)
        except OSError:  # it speaks of another time
            pass
    return Path(physical)


def absolute(name: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the absolute path of a file that a user named; symlinks stay.

    Raises FileNotFoundError when the working directory is gone, and needed.
    """
    if os.path.isabs(name) or ".." in Path(name).parts:
        return Path(os.path.abspath(name))
    return Path(os.path.normpath(working_directory(environ) / name))


def find(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the nearest chansup.toml in the working directory or above; None if there is none.

    Raises FileNotFoundError when the working directory is gone.
    """
    here = working_directory(environ)
    for directory in (here, *here.parents):
        if (directory / CONFIG_FILE).is_file():
            return directory / CONFIG_FILE
    return None
