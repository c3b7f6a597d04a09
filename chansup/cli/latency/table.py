"""What was measured, for people."""

from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from chansup.cli.console import PIPE_WIDTH, open_console
from chansup.cli.latency.comparison import ChannelLatency, Latency, Times
from chansup.text import clean, short_duration

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.text import Text

NOTHING = "–"
_STYLES = {
    "keeps_up": "green", "falls_behind": "bold red", "not_consumed": "bold red",
    "idle": "dim", "unclear": "yellow",
}  # fmt: skip
_LABEL = 12  # columns
_COLUMN = 8
_COLUMNS = ("p50", "p90", "p99", "max")  # the last ones are left out on a narrow terminal


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

    shown = min(len(_COLUMNS), max(0, width - _LABEL) // _COLUMN)
    titles = "".join(title.rjust(_COLUMN) for title in _COLUMNS[:shown])
    lines = [Text(" " * _LABEL + titles, "dim")]
    for row in latency.channels:
        lines.append(_heading(row))
        if row.verdict == "idle":
            continue
        for label, times in (("waited", row.wait), ("took", row.handling)):
            cells = "".join(cell.rjust(_COLUMN) for cell in _times(times)[:shown])
            lines.append(Text(f"  {label}".ljust(_LABEL) + cells))
        lines.append(Text(f"  {_numbers(row)}"))
    lines.append(Text(f"measured for {latency.seconds:.3g} s", "dim"))
    lines += [Text(f"note: {clean(note)}", "dim") for note in latency.notes]
    return lines


def _heading(row: ChannelLatency) -> "Text":
    from rich.text import Text

    name = clean(row.channel or NOTHING)
    of_pool = f" ({clean(row.pool)})" if row.pool != row.channel else ""
    return Text.assemble((name, "bold"), of_pool, "  ", (clean(row.words), _STYLES[row.verdict]))


def _numbers(row: ChannelLatency) -> str:
    """Return how many messages were handled, and how many are left, in words."""
    per_second = f"{row.per_second:.1f}/s" if row.per_second < 1000 else f"{row.per_second:.0f}/s"
    words = [f"{row.messages} done ({per_second})"]
    if row.failed:
        words.append(f"{row.failed} of them failed")
    words.append(f"{row.in_flight} of {row.capacity} in hand")
    if row.depth is not None:
        words.append(f"{row.depth} waiting{_change(row.depth_change)}")
        if row.depth and row.oldest is not None:
            words.append(f"the oldest for {short_duration(row.oldest)}")
    return ", ".join(words)


def _change(change: int | None) -> str:
    if not change:
        return ""
    return f" ({abs(change)} {'more' if change > 0 else 'fewer'} than before)"


def _times(times: Times | None) -> list[str]:
    if times is None:
        return [NOTHING] * 4
    return [short_duration(value) for value in (times.p50, times.p90, times.p99, times.max)]


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
