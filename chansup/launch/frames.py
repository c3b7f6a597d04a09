"""Which frames of a traceback are the app's, and which only lead to them."""

import os
import traceback
from pathlib import Path

_OWN_DIRECTORY = str(Path(__file__).parent)


def are_on_the_way(file: str) -> bool:
    """Whether the frames of `file` are chansup's or the import system's."""
    return file.startswith((_OWN_DIRECTORY, "<frozen importlib")) or "importlib/__init__" in file


def place(error: BaseException, directory: str) -> str:
    """Return where in the app's own files an error comes from: `` in mysite/urls.py, line 3``.

    Nothing where none of the files below `directory` has to do with it.
    """
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        where = [(error.filename, error.lineno)]
    else:
        where = [
            (frame.filename, frame.lineno or 0)
            for frame in traceback.extract_tb(error.__traceback__)
            if not are_on_the_way(frame.filename) and _is_below(frame.filename, directory)
        ]
    if not where:
        return ""
    file, line = where[-1]
    name = os.path.relpath(file, directory) if _is_below(file, directory) else file
    return f" in {name}, line {line}"


def _is_below(file: str, directory: str) -> bool:
    inner = os.path.abspath(file)
    return inner.startswith(directory.rstrip("/") + "/") and "/site-packages/" not in inner
