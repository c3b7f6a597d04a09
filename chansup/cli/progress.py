"""Shows the progress of a command."""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from chansup.cli.console import open_console
from chansup.protocol.status import Event
from chansup.text import clean

if TYPE_CHECKING:
    from rich.progress import Progress


class ProgressDisplay:
    """Shows the events of a command: a bar on a terminal, plain lines in a pipe.

    Failures, and what the process that failed printed, go to stderr.
    """

    def __init__(self) -> None:
        self.finished = False  # the result was shown
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        if sys.stdout.isatty():
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
            )

            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=open_console(),
                transient=True,
            )
            self._task = self._progress.add_task("", total=None)
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end_bar()

    def show(self, event: Event) -> None:
        """Show one event."""
        message = clean(event.message)
        if event.type == "result":
            self._end_bar()
            self.finished = True
            if event.exit_code == 0:
                click.secho(message, fg="green")
            else:
                click.secho(message, fg="red", bold=True, err=True)
        elif event.type == "output":
            self._print_error(message, event.lines)
        elif self._progress is not None:
            total = event.total or None
            self._progress.update(
                self._task, description=message, completed=event.done, total=total
            )
        else:
            done = f"[{event.done}/{event.total}] " if event.total else ""
            click.echo(f"{done}{message}")

    def _print_error(self, message: str, lines: Sequence[str]) -> None:
        if self._progress is not None:
            self._progress.stop()
        click.secho(message, fg="red", err=True)
        for line in lines:
            click.echo(f"  {clean(line)}", err=True)
        if self._progress is not None:
            self._progress.start()

    def _end_bar(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
