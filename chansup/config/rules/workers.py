"""Rules of ``[workers.NAME]``."""

import os
import re
from collections.abc import Iterator

from chansup.config.keys import Finding, Key, quoted
from chansup.config.rules.context import Context
from chansup.config.schema import Workers

_NAMES = {"command": "a command", "serves": "serves"}
_CHANNEL = re.compile(r"[A-Za-z0-9._-]{1,99}\Z")  # what channels.layers lets through


def rule(context: Context) -> Iterator[Finding]:
    """A worker has routes, channels or a command, and only one of them."""
    for name, worker in context.config.workers.items():
        key = ("workers", name)
        kinds = [kind for kind in ("command", "serves", "channels") if context.stands(*key, kind)]
        if not kinds:
            message = (
                'expected serves (["http", "websocket"]), channels (["thumbnails"]) or a command '
                '("python manage.py runworker thumbnails"), found none of them'
            )
            yield key, message
        for kind in kinds[1:]:
            message = (
                f"stands beside {_NAMES[kinds[0]]}: a worker has one of them, "
                "make another table, [workers.NAME], for the other"
            )
            yield (*key, kind), message
        if len(kinds) > 1:
            continue
        if kinds == ["channels"]:
            yield from _channels((*key, "channels"), worker, context)
        if worker.command is None and worker.ready is not None:
            message = (
                "is for a command; other workers themselves say when they are ready: remove it"
            )
            yield (*key, "ready"), message


def _channels(key: Key, worker: Workers, context: Context) -> Iterator[Finding]:
    if not worker.channels:
        yield key, 'expected at least one name, as in ["thumbnails"]'
        return
    for place, channel in enumerate(worker.channels):
        if not _CHANNEL.match(channel):
            message = (
                f"{quoted(channel)} is no name of a channel: expected letters, digits, "
                '".", "_" and "-", fewer than 100'
            )
            yield (*key, place), message
        elif channel in worker.channels[:place]:
            yield (*key, place), f"{quoted(channel)} is listed twice: remove one"
    yield from _project(key, worker, context)


def _project(key: Key, worker: Workers, context: Context) -> Iterator[Finding]:
    variables = {**context.environment, **worker.environment}
    if "DJANGO_SETTINGS_MODULE" in variables or os.path.isfile(context.directory / "manage.py"):
        return
    message = (
        f"need a Django project, and there is no manage.py in {context.directory}: set [app] "
        "directory, or DJANGO_SETTINGS_MODULE in [app] environment, or use a command"
    )
    yield key, message
