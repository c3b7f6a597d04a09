"""How a run is shown to people: a bar while it continues, tables at the end."""

import asyncio
import sys
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from chansup.bench.load import Load
from chansup.bench.result import document
from chansup.text import clean, size

REFRESH = 0.5  # seconds: drawing takes a millisecond or two, in which no answer is noticed
NO_TERMINAL_WIDTH = 200


async def bar(load: Load) -> None:
    """Draw what there is so far, on stderr, until it is cancelled. Needs a terminal."""

    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        auto_refresh=False,
    )
    task = progress.add_task("connecting", total=None)
    last = 0
    with progress:
        while True:
            done, total = _done(load)
            answers = load.counters.answers
            text = _so_far(load, (answers - last) / REFRESH)
            progress.update(task, description=text, completed=done, total=total)
            progress.refresh()
            last = answers
            await asyncio.sleep(REFRESH)


def _done(load: Load) -> tuple[float, float | None]:
    """Return how much is done, and of how much: whatever ends sooner."""
    options = load.options
    if load.begun is None:
        return 0, None
    shares = []
    if options.seconds:
        shares.append(load.seconds / options.seconds)
    if options.requests:
        shares.append(load.counters.finished / options.requests)
    return min(1.0, max(shares, default=0.0)), 1.0


def _so_far(load: Load, rate: float) -> str:
    counters = load.counters
    if (waiting := load.connecting) is not None:
        return f"connecting, {waiting:,} to go"
    if load.options.idle:
        return f"{counters.open:,} open  {counters.failures:,} failed"
    middle, slow = counters.latencies.quantile(0.5), counters.latencies.quantile(0.99)
    failed = f"  {counters.failures:,} failed" if counters.failures else ""
    return f"{rate:,.0f}/s  p50 {span(middle)}  p99 {span(slow)}{failed}"


def span(seconds: float | None) -> str:
    """Return a duration with a unit that suits it."""
    if seconds is None:
        return "–"
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 999.5:
            value = seconds * factor
            return f"{value:.0f} {unit}" if value >= 99.95 else f"{value:.3g} {unit}"
    return f"{seconds:.3g} s"


def show(load: Load) -> None:
    """Print what came out."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=NO_TERMINAL_WIDTH)
    found = document(load)
    timed = {
        ("message" if load.target.is_websocket else "request"): found["latency"],
        "connect": found["connect_time"],
    }
    with console.capture() as captured:  # rich would end with 1 where nobody reads any more
        console.print(_counts(load, found))
        if any(timed.values()):
            console.print()
            console.print(_times(timed))
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def _counts(load: Load, found: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    rows: list[tuple[str, str, str]] = []
    what = "messages" if load.target.is_websocket else "requests"
    if not load.options.idle:
        rows.append((what, f"{found['answers']:,} in {span(found['seconds'])}", ""))
        rows.append(("per second", f"{found['per_second']:,.1f}{_wanted(load)}", ""))
    failed = f"{found['failed']:,}"
    if found["failed"]:
        failed += f" ({_listed(found['failed_by_kind'])})"
    rows.append(("failed", failed, "bold red" if found["failed"] else ""))
    if found["unfinished"]:
        rows.append(("under way at the end", f"{found['unfinished']:,}", "yellow"))
    if found.get("statuses"):
        rows.append(("statuses", _listed(found["statuses"]), ""))
    connections = f"{found['connects']:,} opened, {found['most_open']:,} at a time"
    rows.append(("connections", connections, ""))
    if found.get("closes"):
        rows.append(("closed by the server", f"with {_listed(found['closes'])}", ""))
    elif found["closed_while_idle"]:
        rows.append(("closed while idle", f"{found['closed_while_idle']:,}", ""))
    if found.get("unasked_messages"):
        rows.append(("other messages", f"{found['unasked_messages']:,}", ""))
    rows.append(("received", size(found["bytes_received"]), ""))
    for title, text, style in rows:
        table.add_row(Text(title), Text(text, style))
    return table


def _wanted(load: Load) -> str:
    return f" ({load.options.rate:,.10g} wanted)" if load.options.rate else ""


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items())


def _times(timed: dict[str, dict[str, float] | None]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    columns = ("p50", "p90", "p99", "p99.9", "max")
    for column in columns:
        table.add_column(column, justify="right")
    for what, found in timed.items():
        if found is not None:
            table.add_row(what, *(span(found[column]) for column in columns))
    return table


def heading(load: Load) -> str:
    """Return the heading of a measurement, without control characters."""
    options = load.options
    if options.requests is not None:
        until = f"{options.requests:,} {'messages' if load.target.is_websocket else 'requests'}"
        if options.seconds is not None:
            until += f" or {options.seconds:g} s"
    else:
        until = f"{options.seconds:g} s"
    rate = f", {options.rate:,.10g} per second" if options.rate else ""
    number = f"{options.connections:,} connection{'s' if options.connections != 1 else ''}"
    return f"{clean(load.target.url)}: {number}{rate}, {until}"


def has_terminal() -> bool:
    """Say whether a bar can be drawn."""
    return sys.stderr.isatty()
