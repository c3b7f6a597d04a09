"""Rules of what every process has: its command, number, user, limits and environment."""

import os
import re
from collections.abc import Iterator, Mapping

from chansup.config import (
    accounts,
    commands,
    cores,
    foreground,
    limits,
    modes,
    readiness,
    runworker,
    shell_words,
    signals,
)
from chansup.config.keys import Finding, Key, quoted
from chansup.config.pools import Entry
from chansup.config.rules.context import Context, attempt
from chansup.config.schema import Task, Workers

_VARIABLE = re.compile(r"[^\s=]+\Z")


def commands_and_readiness(context: Context) -> Iterator[Finding]:
    """What to run, and how to tell that it is ready, can be understood."""
    for entry in context.entries:
        if entry.table.command is not None:
            yield from attempt((*entry.key, "command"), commands.parse, entry.table.command)
        if isinstance(entry.table, Task) or entry.table.ready is None:
            continue
        key = (*entry.key, "ready")
        if entry.table.ready == "accepts" and entry.table is not context.config.interface:
            message = 'is for [interface], which alone inherits a socket: write "tcp:…" or "notify"'
            yield key, message
        elif entry.table.command is not None:
            yield from attempt(key, readiness.parse, entry.table.ready)
        elif not isinstance(entry.table, Workers) or entry.table.serves:
            yield from attempt(key, readiness.parse_of_app, entry.table.ready)


def daemons(context: Context) -> Iterator[Finding]:
    """Commands that go into the background, where nobody could keep them up."""
    for entry in context.entries:
        command = entry.table.command
        if isinstance(entry.table, Task) or command is None:
            continue
        try:
            words = commands.parse(command)
        except ValueError:  # an error of its own
            continue
        if said := foreground.daemon(words):
            yield (*entry.key, "command"), f"{said}. Processes of chansup stay in the foreground"


def words_of_a_shell(context: Context) -> Iterator[Finding]:
    """What only a shell would act on, in commands that no shell runs."""
    for entry in context.entries:
        written = context.as_written(*map(str, entry.key), "command")
        if isinstance(written, str) or (
            isinstance(written, list) and all(isinstance(word, str) for word in written)
        ):
            for message in shell_words.doubtful(written):
                yield (*entry.key, "command"), message


def channels_own_worker(context: Context) -> Iterator[Finding]:
    """Channels' ``runworker``, whose work chansup does itself."""
    for entry in context.entries:
        command = entry.table.command
        found = runworker.find(command) if command is not None else None
        if found is not None and entry.key[0] in ("workers", "programs"):
            message = (
                f"is Channels' runworker: {found.table(entry.name)} replaces it, runs the same "
                "consumers, and loses no message at a deploy"
            )
            yield (*entry.key, "command"), message


def counts(context: Context) -> Iterator[Finding]:
    """`processes` is a number, and somebody counts the crashes that are too many."""
    for entry in context.entries:
        table = entry.table
        if isinstance(table, Task):
            continue
        yield from attempt((*entry.key, "processes"), cores.processes, table.processes, 1)
        if table.min_ready is not None and isinstance(table.processes, int):
            yield from _min_ready(entry.key, table.min_ready, table.processes)
        if table.on_max_restarts == "exit" and table.max_restarts is None:
            message = "has no effect without max_restarts: set how many crashes are too many"
            yield (*entry.key, "on_max_restarts"), message


def _min_ready(key: Key, wanted: int, processes: int) -> Iterator[Finding]:
    if wanted > processes:
        message = f"({wanted}) is above processes ({processes}): the pool would never be ready"
        yield (*key, "min_ready"), message


def attributes(context: Context) -> Iterator[Finding]:
    """Signal, umask, limits, user and group exist, and may be set."""
    for entry in context.entries:
        table = entry.table
        if not isinstance(table, Task):
            yield from attempt((*entry.key, "stop_signal"), signals.parse, table.stop_signal)
        if table.umask is not None:
            yield from attempt((*entry.key, "umask"), modes.parse, table.umask)
        for name, value in table.limits.items():
            yield from _limit((*entry.key, "limits", name), name, value)
        yield from _account(entry)


def _limit(key: Key, name: str, value: int | str) -> Iterator[Finding]:
    try:
        limit = limits.parse(name, value)
    except ValueError as error:
        yield key, str(error)
        return
    if os.geteuid() != 0 and limits.exceeds_own(limit):
        message = (
            "is above the hard limit of chansup itself, and only root may raise that: lower it, "
            f"or raise chansup's own (in a systemd unit, Limit{name.upper()}=)"
        )
        yield key, message


def _account(entry: Entry) -> Iterator[Finding]:
    user, group = entry.table.user, entry.table.group
    key = (*entry.key, "group" if user is None else "user")
    try:
        account = accounts.find(user, group)
    except ValueError as error:
        yield key, str(error)
        return
    if account is not None and not accounts.is_permitted(account):
        yield key, "can only be set by root: remove it, or start chansup as root"


def environments(context: Context) -> Iterator[Finding]:
    """Names of environment variables can be such."""
    tables: list[tuple[Key, Mapping[str, str]]] = [
        (("app",), context.config.app.environment),
        *((entry.key, entry.table.environment) for entry in context.entries),
    ]
    for key, environment in tables:
        for name in environment:
            if not _VARIABLE.match(name):
                message = f"{quoted(name)} is not a name of an environment variable"
                yield (*key, "environment", name), message
