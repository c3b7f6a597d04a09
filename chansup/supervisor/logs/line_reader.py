"""The output of children, read line by line.

A line is what ends with LF, CR LF or CR, so no line can pass for several, nor overwrite the slot it
came from. Control characters are shown escaped; tabs and colours (SGR sequences, ECMA-48) pass.
"""

import asyncio
import os
from collections.abc import Callable

from chansup.text import visible_but_colours

CHUNK = 64 * 1024  # bytes read from one child before the others get their turn
PAUSE = 0.01  # seconds that a child which floods waits while the queue for stdout is crowded
MAX_LINE = 16 * 1024  # characters; longer lines are split
_LAST_CHUNKS = 16  # a pipe can be made to hold 1 MiB, fcntl(2)
_PLAIN = bytes(byte for byte in range(256) if byte in (9, 10) or (byte >= 32 and byte != 127))


class LineReader:
    """Reads the output of one child from a non-blocking pipe, on the loop."""

    def __init__(
        self,
        descriptor: int,
        on_lines: Callable[[list[str]], None],
        on_end: Callable[[], None] = lambda: None,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take over `descriptor`; `on_end` is called when the last writer has closed the pipe.

        While `crowded` (`LogWriter.crowded`), a child that floods is slowed down.
        """
        self._descriptor = descriptor
        self._on_lines = on_lines
        self._on_end = on_end
        self._crowded = crowded
        self._resume: asyncio.TimerHandle | None = None
        self._taken = 0  # bytes since the last pause, while stdout is slow
        self._rest = b""  # of a line that has not ended yet
        self._rest_continues = False
        self.continues = False  # the first of `lines` was begun together with those before
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read from now on."""
        self._loop = loop
        self._resume = None
        loop.add_reader(self._descriptor, self._read)

    def close(self) -> None:
        """Take the present content of the pipe, and read no more. Harmless after the end."""
        self.catch_up()
        self._end()

    def catch_up(self) -> None:
        """Take the present content of the pipe."""
        for _ in range(_LAST_CHUNKS):  # whoever still holds the other end may never stop writing
            if self._descriptor < 0 or not self._read():
                break

    def _read(self) -> bool:
        """Read once; return whether there may be more."""
        try:
            chunk = os.read(self._descriptor, CHUNK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:  # EIO of a pseudo-terminal whose other end is closed
            chunk = b""
        if not chunk:
            self._end()
            return False
        self._split(chunk)
        self._taken = self._taken + len(chunk) if self._crowded() else 0
        if self._taken > CHUNK and self._loop is not None:
            # Lets stdout catch up. Bounded, because a stuck stdout must not hold up any child.
            self._taken = 0
            self._stop_reading()
            self._resume = self._loop.call_later(PAUSE, self.start, self._loop)
        return True

    def _split(self, chunk: bytes) -> None:
        had_begun = bool(self._rest)
        content = self._rest + chunk
        self._rest = b""
        if b"\r" in content:
            held = b"\r" if content.endswith(b"\r") else b""  # LF may follow
            content = content[: len(content) - len(held)].replace(b"\r\n", b"\n")
            content = content.replace(b"\r", b"\n")
        else:
            held = b""
        end = content.rfind(b"\n") + 1
        rest = content[end:]
        lines = _decode(content[: end - 1]).split("\n") if end else []
        if lines and len(content) > MAX_LINE and max(map(len, lines)) > MAX_LINE:
            lines = [part for line in lines for part in _parts(line)]
        while len(rest) > MAX_LINE:
            cut = _character_boundary(rest, MAX_LINE)
            lines.append(_decode(rest[:cut]))
            rest = rest[cut:]
        if lines:
            self.continues, self._rest_continues = self._rest_continues, bool(rest)
        elif not had_begun:
            self._rest_continues = False
        self._rest = rest + held
        if lines:
            self._on_lines(lines)

    def _end(self) -> None:
        if self._descriptor < 0:
            return
        self._stop_reading()
        os.close(self._descriptor)
        self._descriptor = -1
        rest = self._rest.removesuffix(b"\r")
        self._rest = b""
        if rest:
            self.continues = self._rest_continues
            self._on_lines([_decode(rest)])
        self._on_end()

    def _stop_reading(self) -> None:
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        elif self._loop is not None:
            self._loop.remove_reader(self._descriptor)


def _decode(content: bytes) -> str:
    text = content.decode(errors="replace")
    if content.isascii() and not content.translate(None, _PLAIN):
        return text  # almost every line, at the speed of memory
    return visible_but_colours(text)


def _parts(line: str) -> list[str]:
    return [line[start : start + MAX_LINE] for start in range(0, len(line), MAX_LINE)] or [line]


def _character_boundary(content: bytes, cut: int) -> int:
    """Return the place at or shortly before `cut` where no UTF-8 character is torn."""
    for place in range(cut, cut - 4, -1):
        if content[place] & 0xC0 != 0x80:
            return place
    return cut
