"""What a line of the log looks like: for a terminal, for a pipe, and as JSON."""

import os
from datetime import UTC, datetime
from typing import Literal

import msgspec

from chansup.supervisor.logs.log_batch import Batch
from chansup.text import slot_colour

Format = Literal["console", "prefix", "json"]


def resolve(format: Format | Literal["auto"], descriptor: int = 1) -> Format:
    """Return the format that "auto" stands for: console on a terminal, else prefix."""
    if format != "auto":
        return format
    return "console" if os.isatty(descriptor) else "prefix"


class Formatter:
    """Turns batches into the bytes of one format."""

    def __init__(self, format: Format, colours: bool = True) -> None:
        self.format = getattr(self, f"_{format}")
        self._colours = colours
        self._width = 10  # of the slot column; grows with the names

    def _prefix(self, batch: Batch) -> bytes:
        head = f"{batch.slot} | {_label(batch.level)}"
        # Colours that a line leaves on end with it: it may quote what a client sent.
        end = "\x1b[0m\n" if "\x1b" in batch.text else "\n"
        text = batch.text.replace("\n", end + head)
        return f"{head}{text}{end}".encode()

    def _console(self, batch: Batch) -> bytes:
        moment = datetime.fromtimestamp(batch.time)
        self._width = max(self._width, len(batch.slot))
        head = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03} "
        name = f"{batch.slot:<{self._width}} {batch.pid:>7} |"
        if self._colours:
            name = f"\x1b[{slot_colour(batch.slot)}m{name}\x1b[0m"
        head += f"{name} {_label(batch.level)}"
        # Colours that a line leaves on end with it.
        end = "\x1b[0m\n" if "\x1b" in batch.text else "\n"
        text = batch.text.replace("\n", end + head)
        return f"{head}{text}{end}".encode()

    def _json(self, batch: Batch) -> bytes:
        encode = msgspec.json.encode
        moment = datetime.fromtimestamp(batch.time, UTC)
        stamp = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"
        level = b"" if batch.level is None else b',"level":"%b"' % batch.level.encode()
        head = b'{"time":"%b","slot":%b,"pid":%d%b,"message":' % (
            stamp.encode(),
            encode(batch.slot),
            batch.pid,
            level,
        )
        lines = [batch.text] if batch.lines == 1 else batch.text.split("\n")
        return b"".join([part for line in lines for part in (head, encode(line), b"}\n")])


def _label(level: str | None) -> str:
    return f"{level}: " if level in ("warning", "error") else ""
