"""What was measured, for people."""

import itertools
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from chansup.display import PIPE_WIDTH, clean, open_console
from chansup.latency.comparison import ChannelLatency, Latency, Times
from chansup.supervisor.status import time_in_words

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.text import Text

NOTHING = "–"
_STYLES = {
    "keeps_up": "green", "falls_behind": "bold red", "not_consumed": "bold red",
    "idle": "dim", "unclear": "yellow",
}  # fmt: skip
_LABEL = 8  # columns
# The last ones are left out on a narrow terminal.
_COLUMNS = (
    ("p50", 8), ("p90", 8), ("p99", 8), ("max", 8), ("done", 8), ("failed", 7), ("in hand", 9),
    ("waiting", 8), ("oldest", 8),
)  # fmt: skip


def show(latency: Latency) -> None:
    """Print everything on a terminal."""
    target = open_console()
    for line in _lines(latency, target.width):
        target.print(line)


def plain(latency: Latency) -> str:
    """Return everything for a pipe."""
    return "\n".join(line.plain.rstrip() for line in _lines(latency, PIPE_WIDTH))


def watch(latencies: Iterable[Latency]) -> None:
    """Show each in the place of the one before, on a terminal."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    target = open_console()
    with Live(console=target, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        live.update(Text("measuring", "dim"), refresh=True)
        for latency in latencies:
            live.update(Group(*_lines(latency, target.width)), refresh=True)


def _lines(latency: Latency, width: int) -> "list[Text]":
    from rich.text import Text

    ends = itertools.accumulate((size for _, size in _COLUMNS), initial=_LABEL)
    shown = sum(end <= width for end in ends) - 1
    titles = "".join(title.rjust(size) for title, size in _COLUMNS[:shown])
    lines = [Text(" " * _LABEL + titles, "dim")]
    for row in latency.channels:
        lines.append(_heading(row))
        for label, cells in _cells(row) if row.verdict != "idle" else ():
            text = "".join(
                cell.rjust(size) for cell, (_, size) in zip(cells[:shown], _COLUMNS, strict=False)
            )
            lines.append(Text(f"  {label}".ljust(_LABEL) + text))
    lines.append(Text(f"measured for {latency.seconds:.3g} s", "dim"))
    lines += [Text(f"note: {clean(note)}", "dim") for note in latency.notes]
    return lines


def _heading(row: ChannelLatency) -> "Text":
    from rich.text import Text

    name = clean(row.channel or NOTHING)
    of_pool = f" ({clean(row.pool)})" if row.pool != row.channel else ""
    return Text.assemble((name, "bold"), of_pool, "  ", (clean(row.words), _STYLES[row.verdict]))


def _cells(row: ChannelLatency) -> list[tuple[str, list[str]]]:
    change = "" if not row.depth_change else f"{row.depth_change:+d}"
    waiting = NOTHING if row.depth is None else str(row.depth)
    oldest = time_in_words(row.oldest) if row.depth and row.oldest is not None else ""
    in_hand = f"{row.in_flight}/{row.capacity}"
    per_second = f"{row.per_second:.1f}/s" if row.per_second < 1000 else f"{row.per_second:.0f}/s"
    first = [str(row.messages), str(row.failed or ""), in_hand, waiting, oldest]
    second = [per_second, "", "", change, ""]
    return [
        ("wait", [*_times(row.wait), *first]),
        ("takes", [*_times(row.handling), *second]),
    ]


def _times(times: Times | None) -> list[str]:
    if times is None:
        return [NOTHING] * 4
    return [time_in_words(value) for value in (times.p50, times.p90, times.p99, times.max)]


class Countdown:
    """A bar while it measures for so many seconds; None: nothing is shown."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        if self._seconds is not None:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TimeRemainingColumn(),
                console=open_console(),
                transient=True,
            )
            description = "measuring (Ctrl-C shows what there is)"
            self._task = self._progress.add_task(description, total=self._seconds)
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, passed: float) -> None:
        """Show how many seconds have passed."""
        if self._progress is not None:
            self._progress.update(self._task, completed=passed)
