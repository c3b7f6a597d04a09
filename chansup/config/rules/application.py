"""Rules of ``[app]``."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from chansup.config import relay
from chansup.config.keys import Finding, Key, quoted
from chansup.config.rules.context import Context
from chansup.config.schema import Program, Task

_APPLICATION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*\Z")


def something_to_run(context: Context) -> Iterator[Finding]:
    """A config without any pool would run nothing."""
    config = context.config
    if config.interface is None and not config.workers and not config.programs:
        yield (), "there is nothing to run: add [interface], [workers.NAME] or [programs.NAME]"


def form(context: Context) -> Iterator[Finding]:
    """An app is ASGI or WSGI, and written ``module:attribute``."""
    app = context.config.app
    yield from application(("app",), app.asgi, app.wsgi)


def application(key: Key, asgi: str | None, wsgi: str | None) -> Iterator[Finding]:
    """Yield what is wrong with the app that a table names."""
    if asgi is not None and wsgi is not None:
        yield (*key, "wsgi"), "stands beside asgi: an app is one or the other, keep one"
    for kind, text in (("asgi", asgi), ("wsgi", wsgi)):
        if text is not None and not _APPLICATION.match(text):
            yield (*key, kind), _meant(text, kind)


def _meant(text: str, kind: str) -> str:
    """Return what to say of a name that is none, with the one that was probably meant."""
    module, _, attribute = text.partition(":")
    module = module.removesuffix(".py").removeprefix("./").replace("/", ".")
    attribute = attribute.removesuffix("()") or ("application" if kind in module else "app")
    meant = f"{module}:{attribute}"
    if not _APPLICATION.match(meant):
        meant = f"mysite.{kind}:application"
    return (
        f"expected the module and the name of the app in it, found {quoted(text)}: "
        f"write {quoted(meant)}"
    )


def directories(context: Context) -> Iterator[Finding]:
    """Every directory that something is to run in exists."""
    yield from _existing(("app", "directory"), context.config.app.directory, context.directory)
    for entry in context.entries:
        own = entry.table.directory if isinstance(entry.table, Program | Task) else None
        if own is not None:
            yield from _existing((*entry.key, "directory"), own, context.directory / own)


def _existing(key: Key, given: str, place: Path) -> Iterator[Finding]:
    if given.startswith("~"):
        yield key, '"~" is not expanded: write "${HOME}/…"'
    elif not os.path.isdir(place):
        what = "is not a directory" if os.path.lexists(place) else "does not exist: create it"
        yield key, f"{quoted(str(place), limit=300)} {what}, or name another"


def unused(context: Context) -> Iterator[Finding]:
    """An app that no pool runs."""
    config = context.config
    remedy = "add [interface]"
    if relay.is_relay(config):
        used = {relay.application(config, name) for name in relay.app_workers(config)}
        if any(app is not None and app.key[0] == "app" for app in used):
            return
        remedy = "each table with serves names its own, so remove it"
    elif any(
        pool is not None and pool.command is None
        for pool in (config.interface, *config.workers.values())
    ):
        return
    for kind, text in (("asgi", config.app.asgi), ("wsgi", config.app.wsgi)):
        if text is not None:
            yield ("app", kind), f"nothing runs the app: {remedy}"
