"""What commands have in common: the config file that is meant, and the supervisor of it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chansup.errors import ChansupError

if TYPE_CHECKING:
    from chansup.cli.client import Client

DEFAULT_CONFIG = "chansup.toml"
INTERRUPTED = 130  # 128 + SIGINT
BROKEN_PIPE = 141  # 128 + SIGPIPE


def forget_stdout() -> None:
    """Let nothing more be written to a stdout that does not take it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _remember_config(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value:
        context.find_root().meta["chansup.config"] = value


def config_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Take -c before the command as well as after it; the later one wins."""
    return click.option(
        "-c",
        "--config",
        metavar="FILE",
        type=click.Path(),
        expose_value=False,
        callback=_remember_config,
        help=f"Config file.  [default: $CHANSUP_CONFIG, else {DEFAULT_CONFIG} here or above]",
    )(function)


def config_path() -> Path:
    """Return the absolute path of the config file; symlinks stay."""
    from chansup.config import location

    context = click.get_current_context().find_root()
    given = context.meta.get("chansup.config")
    name = given or os.environ.get("CHANSUP_CONFIG")
    try:
        if name:
            return location.absolute(name)
        return location.find() or location.absolute(DEFAULT_CONFIG)
    except FileNotFoundError:
        raise ChansupError(
            "the working directory does not exist any more: change to another one, or give -c with"
            " an absolute path"
        ) from None


def find_client() -> "Client":
    """Return the client of the supervisor; say so if that is another user's."""
    client = quiet_client()
    if whose := client.whose():
        click.echo(f"chansup: {whose}", err=True)
    return client


def quiet_client() -> "Client":
    """Return the client of the supervisor, whosever that is."""
    from chansup.cli.client import find

    return find(config_path(), os.environ)


def held_addresses() -> list[str]:
    """Return the addresses that are in use because the supervisor of this config runs."""
    try:
        status = quiet_client().status()
    except ChansupError:
        return []
    return [*status.addresses, *([status.admin] if status.admin else [])]


def complete_target(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Return the pools and slots that `incomplete` may become, for the shell."""
    try:
        with context:
            pools = quiet_client().status().pools
    except Exception:  # completion never gets in the way
        return []
    names = [pool.name for pool in pools] + [slot.name for pool in pools for slot in pool.slots]
    return [name for name in names if name.startswith(incomplete)]


def complete_channel(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Return the channels that `incomplete` may become, for the shell."""
    try:
        with context:
            pools = quiet_client().consumption().pools
    except Exception:  # completion never gets in the way
        return []
    names = {name for pool in pools for name in pool.channels}
    return sorted(name for name in names if name.startswith(incomplete))


wait_option = click.option(
    "--no-wait", is_flag=True, help="Return as soon as the command was taken."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
