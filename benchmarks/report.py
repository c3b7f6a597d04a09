"""What a script prints: a table for people, Markdown for RESULTS.md, JSON for programs."""

import argparse
import asyncio
import contextlib
import ctypes
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks import machine

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)

Row = dict[str, object]  # column title to cell


@dataclass(frozen=True)
class Claim:
    """Something the project promises, and what came out."""

    text: str
    measured: str
    holds: bool


@dataclass
class Report:
    """The outcome of one script."""

    title: str
    rows: list[Row] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)  # only in the JSON

    def compare(self, what: str, ours: float, theirs: float) -> None:
        """Add a figure of chansup's beside a peer's, with their ratio."""
        ratio = f"{ours / theirs:.3g}" if theirs else None
        self.rows.append({"beside": what, "chansup": ours, "peer": theirs, "ratio": ratio})

    def claim(self, text: str, measured: str, holds: bool) -> None:
        """Add one claim."""
        self.claims.append(Claim(text, measured, holds))

    def as_text(self, circumstances: machine.Machine) -> str:
        """Return the report for a terminal."""
        lines = [self.title, "", *circumstances.lines(), ""]
        for columns, rows in self._tables():
            cells = [columns, *([_cell(row[column]) for column in columns] for row in rows)]
            widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
            lines += [
                "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
                for line in (cells[0], ["-" * width for width in widths], *cells[1:])
            ]
            lines.append("")
        lines += [f"{_verdict(claim)}: {claim.text}: {claim.measured}" for claim in self.claims]
        lines += [f"Note: {note}" for note in self.notes]
        return "\n".join(line.rstrip() for line in lines) + "\n"

    def as_markdown(self, circumstances: machine.Machine) -> str:
        """Return the report as a section of RESULTS.md."""
        lines = [f"## {self.title}", "", *(f"- {line}" for line in circumstances.lines()), ""]
        for columns, rows in self._tables():
            lines += [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
            lines += [f"| {' | '.join(_cell(row[key]) for key in columns)} |" for row in rows]
            lines.append("")
        if self.claims:
            lines += ["| claim | measured | holds |", "|---|---|---|"]
            lines += [
                f"| {claim.text} | {claim.measured} | {'yes' if claim.holds else '**no**'} |"
                for claim in self.claims
            ]
            lines.append("")
        lines += [f"- {note}" for note in self.notes]
        return "\n".join(lines).rstrip() + "\n"

    def as_json(self, circumstances: machine.Machine) -> str:
        """Return everything that was measured."""
        document = {
            "circumstances": circumstances.as_dict(),
            **vars(self),
            "claims": [asdict(claim) for claim in self.claims],
        }
        return json.dumps(document, indent=2, default=str) + "\n"

    def _tables(self) -> list[tuple[list[str], list[Row]]]:
        """Return the rows as tables: rows with the same columns stand in one."""
        tables: dict[tuple[str, ...], list[Row]] = {}
        for row in self.rows:
            tables.setdefault(tuple(row), []).append(row)
        return [(list(columns), rows) for columns, rows in tables.items()]


def parser(module: str, description: str) -> argparse.ArgumentParser:
    """Return the options that every script has."""
    options = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog="Everything runs on loopback and is stopped at the end, also after Ctrl-C. "
        "Exits 0 when every claim holds, 1 when one does not.",
    )
    options.add_argument(
        "--quick", action="store_true", help="fewer and shorter rounds: a try-out, no figures"
    )
    options.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write JSON to FILE, or to stdout"
    )
    options.add_argument(
        "--markdown", nargs="?", const="-", metavar="FILE", help="append Markdown to FILE, or print"
    )
    return options


def run(
    module: str,
    arguments: argparse.Namespace,
    measure: Callable[[], Coroutine[Any, Any, Report]],
) -> int:
    """Measure, report, and leave no process behind; return the exit status."""
    circumstances = machine.describe(module)
    # Whatever a server leaves behind when it dies becomes a child of this process.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        report = _event_loop_run(_until_terminated(measure))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    finally:
        _kill_what_is_left()
    _write(report, circumstances, arguments)
    return 0 if all(claim.holds for claim in report.claims) else 1


def progress(text: str) -> None:
    """Say on stderr what is going on."""
    print(text, file=sys.stderr, flush=True)


async def _until_terminated(measure: Callable[[], Awaitable[Report]]) -> Report:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await measure()


def _event_loop_run(main: Coroutine[Any, Any, Report]) -> Report:
    try:
        import uvloop  # the clients then take about half the processor time
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


def _kill_what_is_left() -> None:
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                progress(f"killing what was left behind: {process.pid} {process.cmdline()}")
                process.kill()


def _write(report: Report, circumstances: machine.Machine, arguments: argparse.Namespace) -> None:
    text = report.as_text(circumstances)
    outputs = [
        (arguments.json, report.as_json(circumstances), "w"),
        (arguments.markdown, report.as_markdown(circumstances), "a"),
    ]
    on_stdout = False
    for destination, document, file_mode in outputs:
        if destination == "-":
            sys.stdout.write(document)
            on_stdout = True
        elif destination:
            with Path(destination).open(file_mode) as file:
                file.write(("\n" if file_mode == "a" else "") + document)
    (sys.stderr if on_stdout else sys.stdout).write(text)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return str(value)


def _verdict(claim: Claim) -> str:
    return "holds" if claim.holds else "DOES NOT HOLD"
