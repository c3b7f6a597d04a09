"""Runs one command as the processes of a site run: `chansup exec`."""

import os
import resource
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from chansup.config import accounts, limits
from chansup.config.keys import quoted
from chansup.config.load import load
from chansup.errors import ChansupError
from chansup.supervisor.plan import building
from chansup.supervisor.plan.command import Command


class OneOffError(ChansupError):
    """The command cannot be run as the site's processes are."""


def execute(
    config: Path, environ: Mapping[str, str], words: list[str], pool: str | None
) -> NoReturn:
    """Become the command `words`, with the environment, directory and user of the site or `pool`.

    Terminal, standard streams and exit code are the command's own. Raises ChansupError.
    """
    loaded = load(config, environ)
    try:
        command = building.one_off(loaded, environ, words, pool)
    except KeyError:
        pools = ", ".join(building.build(0, loaded, environ).pools) or "none"
        raise OneOffError(
            f"pool {quoted(str(pool))} does not exist in {config}: it has {pools}"
        ) from None
    environment = {**command.environment, "PWD": command.directory}
    program = _program(command, environment)
    try:
        _become(command)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by Python, for itself
            signal.signal(number, signal.SIG_DFL)
        os.execve(program, command.argv, environment)  # noqa: S606 - what the user asked for
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        raise OneOffError(f"cannot run {command.argv[0]}{where}: {error.strerror}") from None


def _program(command: Command, environment: Mapping[str, str]) -> str:
    name = command.argv[0]
    if "/" in name:
        return os.path.join(command.directory, name)
    found = shutil.which(name, path=environment.get("PATH", os.defpath))
    if found is None:
        raise OneOffError(
            f"no program {quoted(name)} on the PATH of the site's processes: give its path"
        )
    return os.path.abspath(found)


def _become(command: Command) -> None:
    """Take on the limits, umask, directory and user of the command. Raises OSError."""
    for name, value in command.limits.items():
        one = limits.parse(name, value)
        resource.setrlimit(one.resource, (one.soft, one.hard))
    if command.umask is not None:
        os.umask(int(command.umask, 8))
    try:
        account = accounts.find(command.user, command.group)
    except ValueError as error:
        raise OneOffError(str(error)) from None
    os.chdir(command.directory)
    if account is None or account.user == os.geteuid() != 0:
        return
    if not accounts.is_permitted(account):
        wanted = command.user or command.group
        raise OneOffError(f"only root can run a command as {wanted}: call chansup exec with sudo")
    os.setgroups(account.groups)
    os.setgid(account.group)
    os.setuid(account.user)
