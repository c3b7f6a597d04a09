"""Puts a config where it belongs."""

import os
from pathlib import Path

from chansup.errors import ChansupError
from chansup.project.errors import FileExistsAlreadyError
from chansup.project.project import Project
from chansup.project.render import render


def write(project: Project, path: Path, force: bool = False) -> None:
    """Write the project's chansup.toml to `path`.

    Raises FileExistsAlreadyError unless `force`, and ChansupError where it cannot be written.
    """
    mode = "w" if force else "x"
    try:
        with open(path, mode, encoding="utf-8") as file:
            file.write(render(project))
    except FileExistsError:
        raise FileExistsAlreadyError(path) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise ChansupError(f"{os.fspath(path)} cannot be written: {reason}") from None
