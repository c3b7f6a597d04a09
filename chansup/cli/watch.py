"""Asks for a reload whenever the project's files change: `chansup run --watch`, for development.

Runs as a process of its own beside the supervisor, and asks as a person would: by SIGHUP.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from chansup.config.load import load
from chansup.errors import ChansupError

SUFFIXES = frozenset({".py", ".toml", ".html", ".jinja", ".jinja2", ".j2", ".po", ".mo"})
QUIET = 300  # milliseconds without a change after which files count as saved

_PR_SET_PDEATHSIG = 1  # prctl(2)


class WatchError(ChansupError):
    """Files cannot be watched here."""


def start(config: Path) -> None:
    """Start the process that watches; it ends with this one. Raises WatchError."""
    try:
        import watchfiles  # noqa: F401 - only to say at once that it is missing
    except ImportError:
        raise WatchError(
            "`chansup run --watch` needs watchfiles: pip install 'chansup[watch]'"
        ) from None
    words = [sys.executable, "-m", "chansup.cli.watch", str(config), str(os.getpid())]
    subprocess.Popen(words, stdin=subprocess.DEVNULL, process_group=0)


def watch(config: Path, supervisor: int) -> None:
    """Send the supervisor SIGHUP after each change; return when it is gone."""
    from watchfiles import DefaultFilter
    from watchfiles import watch as changes

    loaded = load(config, os.environ)
    named = {config, *map(Path, _env_files(loaded.config.app.env_file, loaded.directory))}
    usual = DefaultFilter()

    def wanted(change: object, path: str) -> bool:
        one = Path(path)
        is_project = one.suffix in SUFFIXES and usual(change, path)  # type: ignore[arg-type]
        return is_project or one in named

    directories = {loaded.directory, *(path.parent for path in named if path.parent.is_dir())}
    click.echo(f"watch | watching {loaded.directory}")
    for found in changes(
        *directories, watch_filter=wanted, debounce=1600, step=QUIET, raise_interrupt=False
    ):
        if os.getppid() != supervisor:
            return
        click.echo(f"watch | {_in_words(path for _, path in found)}: reloading")
        os.kill(supervisor, signal.SIGHUP)


def _env_files(names: str | list[str] | None, directory: Path) -> list[str]:
    given = [names] if isinstance(names, str) else names or []
    return [os.path.join(directory, name.removeprefix("-")) for name in given]


def _in_words(paths: Iterable[str]) -> str:
    names = sorted({Path(path).name for path in paths})
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{rest} changed"


def _main() -> None:
    supervisor = int(sys.argv[2])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the supervisor reads them, this does not
    if os.getppid() != supervisor:  # it ended in between
        return
    try:
        watch(Path(sys.argv[1]), supervisor)
    except ChansupError:
        return  # the supervisor says what is wrong with the file


if __name__ == "__main__":
    _main()
