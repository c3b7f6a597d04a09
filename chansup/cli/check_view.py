"""Shows what a check found."""

from pathlib import Path

import click

from chansup.check.check import Report
from chansup.config.errors import describe
from chansup.text import clean


def show_report(config: Path, report: Report) -> None:
    """Print what a check found, one line each, and a verdict."""
    for problem in report.problems:
        place, separator, rest = clean(describe(problem, config)).partition(": ")
        click.echo(f"{click.style(place, fg='red', bold=True)}{separator}{rest}")
    for warning in report.warnings:
        place, separator, rest = clean(describe(warning, config)).partition(": ")
        label = click.style("warning: ", fg="yellow", bold=True)
        click.echo(f"{click.style(place, bold=True)}{separator}{label}{rest}")
    for note in report.notes:
        click.echo(f"{click.style('note: ', dim=True)}{clean(note)}")
    if report.problems:
        count = len(report.problems)
        found = f"{count} problem{'s' if count > 1 else ''} in {config}"
        click.secho(f"{found}.", fg="red", err=True)
    else:
        click.secho(f"{config} can be used.", fg="green")
