"""The command: measure, show, and say whether anything failed."""

import asyncio
import contextlib
import json

import click
import uvloop

from chansup.bench import show
from chansup.bench.load import Load
from chansup.bench.result import document
from chansup.bench.target import Options, Target
from chansup.errors import ExitCode

INTERRUPTED = 130  # 128 + SIGINT


def run(target: Target, options: Options, as_json: bool) -> int:
    """Measure and print; return the exit code."""
    load = Load(target, options)
    if not as_json:
        click.echo(show.heading(load))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_measure(load))
    if as_json:
        click.echo(json.dumps(document(load)))
    elif load.begun is None:
        click.echo("Nothing was measured.", err=True)
    else:
        show.show(load)
    if load.interrupted:
        return INTERRUPTED
    if load.unanswered and not load.counters.failures:
        click.echo("No answer came in this time.", err=True)
    return ExitCode.FAILED if load.counters.failures or load.unanswered else ExitCode.OK


async def _measure(load: Load) -> None:
    drawing = asyncio.create_task(show.bar(load)) if show.has_terminal() else None
    try:
        await load.run()
    finally:
        if drawing is not None:
            drawing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await drawing
