"""Rules of ``[workers.NAME]``."""

import os
import re
from collections.abc import Iterator

from chansup.config.keys import Finding, Key, quoted
from chansup.config.rules.context import Context
from chansup.config.schema import Workers

_CHANNEL = re.compile(r"[A-Za-z0-9._-]{1,99}\Z")  # what channels.layers lets through


def rule(context: Context) -> Iterator[Finding]:
    """A worker has a command or channels; channels need a Django project."""
    for name, worker in context.config.workers.items():
        key = ("workers", name)
        if worker.serves:
            continue
        if worker.command is None and not worker.channels:
            message = (
                'expected a command ("python manage.py runworker thumbnails") or '
                'channels (["thumbnails"]), found neither'
            )
            yield key, message
        elif worker.command is not None and context.stands(*key, "channels"):
            yield (*key, "channels"), "stands beside a command: a worker has one or the other"
        elif worker.command is None:
            yield from _channels((*key, "channels"), worker.channels)
            yield from _project((*key, "channels"), worker, context)
        if worker.command is None and worker.ready is not None:
            yield (*key, "ready"), "is for a command; a worker of channels needs none: remove it"


def _channels(key: Key, channels: list[str]) -> Iterator[Finding]:
    for place, channel in enumerate(channels):
        if not _CHANNEL.match(channel):
            message = (
                f"{quoted(channel)} is no name of a channel: expected letters, digits, "
                '".", "_" and "-", fewer than 100'
            )
            yield (*key, place), message
        elif channel in channels[:place]:
            yield (*key, place), f"{quoted(channel)} is listed twice: remove one"


def _project(key: Key, worker: Workers, context: Context) -> Iterator[Finding]:
    variables = {**context.environment, **worker.environment}
    if "DJANGO_SETTINGS_MODULE" in variables or os.path.isfile(context.directory / "manage.py"):
        return
    message = (
        f"need a Django project, and there is no manage.py in {context.directory}: set [app] "
        "directory, or DJANGO_SETTINGS_MODULE in [app] environment, or use a command"
    )
    yield key, message
