"""Where messages go that are given up: a file with one line of JSON for each, or the log."""

import json
import logging
import os
import time
from typing import Any

_log = logging.getLogger("chansup.worker")


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
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        before = os.fstat(descriptor).st_size
        written = os.write(descriptor, line)  # at once: lines of several processes do not mix
        if written < len(line):
            os.ftruncate(descriptor, before)
            raise OSError(28, "No space left on device")
    finally:
        os.close(descriptor)


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
