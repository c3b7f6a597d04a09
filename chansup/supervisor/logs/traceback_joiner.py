"""Keeps the lines of a traceback together, so that it becomes one document of a JSON log.

An interpreter prints a traceback line by line. Nothing marks its end but the next line that does
not belong to it, or silence. The message of an exception may have several lines: they are written
at once, so what came with the line that names the exception belongs to it, unless it looks like the
beginning of a log record.
"""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from chansup.supervisor.logs.log_batch import Batch

HOLD = 0.2  # seconds of silence after which a traceback is complete
MOST_LINES = 1_000  # of one document; what follows begins the next one

_BEGINS = "Traceback (most recent call last):"
# As `traceback` prints them between the exceptions of a chain.
_CHAINS = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
_QUOTE = '"""'  # around the traceback of another process, in the message of an exception
_RECORD = re.compile(  # how the lines of common log formats begin
    r"""(?:\x1b\[[\d;]*m|[\[(<])*
    (?:
        (?:[\w.]+[\s:|\]-]+)? (?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL)\b
        | \d{4}-\d\d-\d\d[T\s] | \d\d/\w{3}/\d{4} | \d\d:\d\d:\d\d
        | \d+\.\d+\.\d+\.\d+[:\s]
        | \{"(?:time|timestamp|asctime|level|severity|logger|name|event|message|msg)"
    )""",
    re.VERBOSE,
)


class _Phase(Enum):
    FRAMES = "within the frames"
    EXCEPTION = "after the line that names the exception, or more of its message"
    GAP = "after the empty line behind it"
    CHAIN = "after the line that announces the next exception"


@dataclass
class _Held:
    """A traceback that may not be complete."""

    first: Batch
    phase: _Phase = _Phase.FRAMES
    lines: list[str] = field(default_factory=list)
    last: float = 0.0  # monotonic time of the newest line

    def takes(self, line: str, with_last: bool) -> bool:
        """Whether the line belongs to it; it is added then.

        `with_last` says whether it was written together with the last one.
        """
        phase = self._next_phase(line, with_last)
        if phase is None or len(self.lines) >= MOST_LINES:
            return False
        self.phase = phase
        self.lines.append(line)
        return True

    def _next_phase(self, line: str, with_last: bool) -> _Phase | None:
        if self.phase is _Phase.FRAMES:
            indented = not line or line[0] in " \t"
            return _Phase.EXCEPTION if not indented or _ends_group(line) else _Phase.FRAMES
        if self.phase is _Phase.EXCEPTION and line[:1] == " " and line.lstrip()[:1] in {"|", "+"}:
            return _Phase.FRAMES  # of an exception group that has others inside
        if self.phase in (_Phase.EXCEPTION, _Phase.GAP):
            if not self.lines[-1] and line in _CHAINS:
                return _Phase.CHAIN
            if line.endswith(_BEGINS):
                return _Phase.FRAMES if self.lines[-1] == _QUOTE else None
            if with_last and not _RECORD.match(line):
                return _Phase.EXCEPTION
            return _Phase.GAP if self.phase is _Phase.EXCEPTION and not line else None
        if not line:
            return _Phase.CHAIN
        return _Phase.FRAMES if line.endswith(_BEGINS) else None

    def batches(self) -> list[Batch]:
        """Return the traceback as one line, and what only seemed to belong to it after that."""
        count = len(self.lines)
        if self.phase in (_Phase.EXCEPTION, _Phase.GAP):
            while not self.lines[count - 1]:
                count -= 1
        texts = ["\n".join(self.lines[:count]), *self.lines[count:]]
        return [self.first._replace(text=text, lines=1) for text in texts]


def _ends_group(line: str) -> bool:
    """Whether it is the line that `traceback` draws under an exception group."""
    rule = line.lstrip(" |")
    return rule.startswith("+--") and not rule.strip("+-")


class TracebackJoiner:
    """Takes the batches of all processes and gives them back, each traceback as a line of its own.

    A batch of one line may have LF in its text then.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held: dict[tuple[str, int], _Held] = {}

    @property
    def patience(self) -> float | None:
        """Seconds after which `complete` may have something; None: nothing is held."""
        return HOLD if self._held else None

    def add(self, batch: Batch) -> list[Batch]:
        """Return what can be written now that this batch has come."""
        key = batch.slot, batch.pid
        if key not in self._held and _BEGINS not in batch.text:
            return [batch]  # almost every batch
        ready: list[Batch] = []
        plain: list[str] = []

        def end_plain() -> None:
            if plain:
                ready.append(batch._replace(text="\n".join(plain), lines=len(plain)))
                plain.clear()

        for number, line in enumerate(batch.text.split("\n")):
            held = self._held.get(key)
            if held is not None and held.takes(line, number > 0 or batch.continues):
                held.last = self._clock()
                continue
            if held is not None:
                ready.extend(self._held.pop(key).batches())
            if line.endswith(_BEGINS):
                end_plain()
                self._held[key] = _Held(batch, lines=[line], last=self._clock())
            else:
                plain.append(line)
        end_plain()
        return ready

    def complete(self) -> list[Batch]:
        """Return the tracebacks that have been silent for `HOLD` seconds."""
        past = self._clock() - HOLD
        return self._take(key for key, held in self._held.items() if held.last <= past)

    def all(self) -> list[Batch]:
        """Return every traceback, complete or not."""
        return self._take(self._held)

    def _take(self, keys: Iterable[tuple[str, int]]) -> list[Batch]:
        return [batch for key in list(keys) for batch in self._held.pop(key).batches()]
