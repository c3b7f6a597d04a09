"""Shows log lines. What processes print is never trusted."""

import time
from typing import TextIO

import click

from chansup.protocol.status import LogLine
from chansup.text import clean, clean_but_colours, slot_colour


class LogPrinter:
    """Prints log lines: with colours on a terminal, with a plain prefix in a pipe."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._colours = stream.isatty()
        self._width = 0

    def print(self, line: LogLine) -> None:
        """Print one line, at once."""
        moment = time.strftime("%H:%M:%S", time.localtime(line.time))
        slot = clean(line.slot)
        self._width = max(self._width, len(slot))
        if self._colours:
            name = f"\x1b[{slot_colour(line.slot)}m{slot.ljust(self._width)}\x1b[0m"
            prefix = f"{click.style(moment, dim=True)} {name}"
            self._stream.write(f"{prefix} {clean_but_colours(line.text)}\n")
        else:
            day = time.strftime("%Y-%m-%dT", time.localtime(line.time))
            zone = time.strftime("%z", time.localtime(line.time))
            self._stream.write(f"{day}{moment}{zone} {slot}[{line.pid}] {clean(line.text)}\n")
        self._stream.flush()
