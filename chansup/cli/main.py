"""Runs one command: whatever goes wrong is one message and an exit code."""

import io
import os
import sys
from typing import NoReturn

import click

from chansup.cli import bench  # noqa: F401 - it adds its command
from chansup.cli.commands import chansup
from chansup.cli.context import BROKEN_PIPE, INTERRUPTED, forget_stdout
from chansup.errors import ChansupError, ExitCode
from chansup.text import clean

__all__ = ["chansup", "main"]  # the group, with every command


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command and exit with its code. Whatever goes wrong is one message, no traceback."""
    _open_standard_descriptors()
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - closed by the caller: >&-
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # `chansup reload > file 2>&1` keeps the order of its lines, and `| tee` shows them at once.
        sys.stdout.reconfigure(line_buffering=True)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # as in `chansup logs | head`
        forget_stdout()
        code = BROKEN_PIPE
    except OSError as error:  # a full disk behind stdout, say
        forget_stdout()
        where = f"{error.filename}: " if error.filename else ""
        _say_error(f"{where}{error.strerror or error}")
        code = ExitCode.FAILED
    except Exception as error:
        forget_stdout()
        _say_error(f"a defect in chansup: {error!r}. Please report it; CHANSUP_DEBUG=1 shows more")
        if os.environ.get("CHANSUP_DEBUG"):
            raise
        code = ExitCode.FAILED
    sys.exit(code)


def _open_standard_descriptors() -> None:
    """Occupy 0, 1 and 2 where the caller closed them: a socket there would be taken for stdout."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one


def _run(arguments: list[str] | None) -> int:
    try:
        return chansup.main(arguments, prog_name="chansup", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except ChansupError as error:
        if error.problems:
            click.echo(str(error), err=True)
        else:
            _say_error(str(error))
        for line in error.lines:
            click.echo(f"  {clean(line)}", err=True)
        return error.exit_code


def _say_error(message: str) -> None:
    click.secho("chansup: ", fg="red", bold=True, err=True, nl=False)
    click.echo(message, err=True)
