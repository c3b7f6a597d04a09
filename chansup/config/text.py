"""Text files that people write, read whole, with a clear reason where that fails."""

from pathlib import Path

MAX_BYTES = 1024 * 1024


class UnreadableFileError(Exception):
    """Why a file cannot be used, as the rest of a sentence that begins with its name."""


def read(path: Path) -> str:
    """Return the text of a UTF-8 file of at most 1 MiB; raises UnreadableFileError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UnreadableFileError("does not exist") from None
    except IsADirectoryError:
        raise UnreadableFileError("is a directory, not a file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableFileError(f"cannot be read: {reason}") from None
    if len(content) > MAX_BYTES:
        raise UnreadableFileError("is larger than 1 MiB: is it the right file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnreadableFileError(f"is not UTF-8 (line {line}): save it as UTF-8") from None
