"""Which of several equal complaints is worth a line."""

import time
from collections.abc import Callable

AGAIN_AFTER = 600.0  # seconds until a complaint that has not changed is made again


class Repetition:
    """Lets a text pass that is new, and then once in a while, with how often it came."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._text: str | None = None
        self._said = 0.0
        self._unsaid = 0

    def filter(self, text: str) -> str | None:
        """Return what to say for `text`; None if it was said already."""
        now = self._now()
        if text != self._text:
            self._text, self._said, self._unsaid = text, now, 0
            return text
        self._unsaid += 1
        if now - self._said < AGAIN_AFTER:
            return None
        count, self._said, self._unsaid = self._unsaid, now, 0
        return f"{text} (still so, {count} more attempts)"

    def forget(self) -> None:
        """Let the next text pass, whatever it is: something else happened in between."""
        self._text = None
