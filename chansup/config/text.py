"""Files that people write, read whole, with a clear reason where that fails. Never blocks."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

MAX_BYTES = 1024 * 1024
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_NULL = os.makedev(1, 3)  # /dev/null: an empty file; null(4)


class UnreadableFileError(Exception):
    """Why a file cannot be used, as the rest of a sentence that begins with its name."""


def read(path: Path) -> str:
    """Return the text of a UTF-8 file of at most 1 MiB; raises UnreadableFileError."""
    try:
        with open_file(path) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UnreadableFileError(f"cannot be read: {error.strerror or error}") from None
    if len(content) > MAX_BYTES:
        raise UnreadableFileError("is larger than 1 MiB: is it the right file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnreadableFileError(f"is not UTF-8 (line {line}): save it as UTF-8") from None


def open_file(path: Path) -> BinaryIO:
    """Open a file to be read. Raises UnreadableFileError for anything else, as a named pipe.

    A pipe would make us wait for a writer, and to open a device may do harm.
    """
    try:
        _require_file(os.stat(path))
        file = open(path, "rb", opener=_open)  # noqa: SIM115 - the caller closes it
    except FileNotFoundError:
        raise UnreadableFileError("does not exist") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableFileError(f"cannot be read: {reason}") from None
    try:
        _require_file(os.fstat(file.fileno()))  # somebody may have changed it meanwhile
    except UnreadableFileError:
        file.close()
        raise
    return file


def _require_file(status: os.stat_result) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind in _KINDS and not (kind == stat.S_IFCHR and status.st_rdev == _NULL):
        raise UnreadableFileError(f"is {_KINDS[kind]}, not a file")


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
