"""Where messages go that are given up: a file with one line of JSON for each, or the log.

Many processes append to the file. Each holds flock(2) on it for the one line, so that a line which
does not fit can be taken back without touching what others wrote. Where the file system knows no
locks nothing is ever taken back: the next line then begins on a line of its own.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import time
from typing import Any

_log = logging.getLogger("chansup.worker")

_LOCK_PATIENCE = 0.25  # seconds: a line takes microseconds, and whoever holds it longer is frozen
_LOCK_PAUSE = 0.005  # seconds between two attempts


class DeadLetters:
    """The file, which many processes write to."""

    def __init__(self, path: str | None, pool: str) -> None:
        self._path = path
        self._pool = pool

    def write(
        self, channel: str, attempts: int, error: str | None, message: dict[str, Any]
    ) -> None:
        """Write a message down. What cannot be written to the file goes to the log."""
        letter = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "pool": self._pool,
            "channel": channel,
            "attempts": attempts,
            "error": error,
            "message": message,
        }
        try:
            line = json.dumps(_plain(letter), default=repr)
        except Exception:  # it contains itself, is very deep, or holds what has no repr
            line = json.dumps({**letter, "message": _shown(message)})
        where = self._path
        if where is not None:
            try:
                _append(where, line.encode() + b"\n")
            except OSError as problem:
                reason = problem.strerror or str(problem)
                _log.error("chansup: dead_letters %s cannot be written: %s", where, reason)
                where = None
        why = f": {error}" if error else ""
        _log.error(
            "chansup: channel %s: a message was given up after %d attempt%s%s%s",
            channel,
            attempts,
            "" if attempts == 1 else "s",
            why,
            f" (it is in {where})" if where is not None else f"; it was {line}",
        )


def _append(path: str, line: bytes) -> None:
    """Append a line as a whole. Raises OSError if not all of it is in the file."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        is_locked = _lock(descriptor)  # closing the descriptor ends it
        end = os.fstat(descriptor).st_size
        if end and os.pread(descriptor, 1, end - 1) != b"\n":
            line = b"\n" + line  # somebody's line was torn: nothing may be glued to it
        written = os.write(descriptor, line)  # at once: lines of several processes do not mix
        if written < len(line):
            if is_locked:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Take the file's lock, and say whether there is one. Raises OSError if it is never free."""
    deadline = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise OSError(errno.EWOULDBLOCK, "another process keeps it locked") from None
            time.sleep(_LOCK_PAUSE)
        except OSError:
            return False
        else:
            return True


def _shown(message: dict[str, Any]) -> str:
    try:
        return repr(message)
    except Exception as error:
        return f"cannot be shown: {type(error).__name__}: {error}"


def _plain(value: Any) -> Any:
    """Return a value with keys that JSON can hold."""
    if isinstance(value, dict):
        return {
            key if isinstance(key, str) else repr(key): _plain(one) for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
