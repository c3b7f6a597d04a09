"""Rules of ``[workers.NAME]``: which of the three kinds a table describes, and with what."""

import re
from collections.abc import Iterator

from chansup.config import channels
from chansup.config.keys import Finding, quoted
from chansup.config.rules.context import Context
from chansup.config.schema import Workers

_TOKEN = re.compile(r"[A-Za-z0-9_.$*+^|~!#%-]{1,128}\Z")  # RFC 9110, section 5.6.2
_TOKEN_WITHIN = re.compile(r"(?<![\w:])[A-Za-z][\w-]*(?=\s*(?:=|$))")
_KINDS = ("command", "serves", *channels.KEYS)
_NAMES = {"command": "a command", "serves": "serves"}
_OF_APP_WORKERS = (
    "wsgi",
    "threads",
    "queue_limit",
    "queue_timeout",
    "worker_timeout",
    "websocket_timeout",
    "disconnect_timeout",
    "handover",
    "handover_rate",
    "sticky",
)
_OF_CHANNEL_WORKERS = ("max_deliveries", "dead_letters", "layer")
_OF_BOTH = ("asgi", "python", "concurrency", "redeliver")


def kind(context: Context, name: str) -> str | None:
    """Return the first key of a table that says what its workers do; None without any."""
    return next((key for key in _KINDS if context.stands("workers", name, key)), None)


def rule(context: Context) -> Iterator[Finding]:
    """A worker has routes, channels or a command, and only one of them."""
    for name, worker in context.config.workers.items():
        key = ("workers", name)
        standing = [one for one in _KINDS if context.stands(*key, one)]
        if not standing:
            message = (
                'expected serves (["http", "websocket"]), channels (["thumbnails"]) or a command '
                '("python manage.py run_clock"), found none of them'
            )
            yield key, message
            continue
        first = standing[0]
        for other in standing[1:]:
            if first in channels.KEYS:
                continue  # the rules of channel workers look at these
            message = (
                f"stands beside {_NAMES[first]}: a worker has one of them, "
                "make another table, [workers.NAME], for the other"
            )
            yield (*key, other), message
        if first in channels.KEYS and len(standing) == 1 and worker.ready is not None:
            message = (
                "is for a command and for app workers; channel workers say themselves when they "
                "are ready: remove it"
            )
            yield (*key, "ready"), message


def keys_of_the_kind(context: Context) -> Iterator[Finding]:
    """What describes app workers or channel workers stands in tables of such."""
    for name, table in context.config.workers.items():
        first = kind(context, name)
        if first is None:
            continue
        add = 'add serves = ["http", "websocket"]'
        if first != "serves":
            whose = "is for app workers"
            yield from _misplaced(context, name, _OF_APP_WORKERS, whose, _or_add(first, add), table)
        if first not in channels.KEYS:
            add = 'add channels = ["thumbnails"]'
            whose = "is for channel workers"
            yield from _misplaced(
                context, name, _OF_CHANNEL_WORKERS, whose, _or_add(first, add), table
            )
        if first == "command":
            whose = "is for app workers and channel workers"
            add = 'add serves = ["http", "websocket"] or channels = ["thumbnails"]'
            yield from _misplaced(context, name, _OF_BOTH, whose, f"{add}, or ", table)


def sticky(context: Context) -> Iterator[Finding]:
    """A sticky key has one name, as a parameter, a cookie or a header may have."""
    for name, table in context.config.workers.items():
        said = table.sticky
        if said is None or _TOKEN.match(said):
            continue
        inner = next(iter(_TOKEN_WITHIN.findall(said)), "sid")
        message = (
            f"invalid name {quoted(said)}: write that of one query parameter, cookie or header, "
            f"as in {quoted(inner)}"
        )
        yield ("workers", name, "sticky"), message


def _or_add(first: str, add: str) -> str:
    return f"{add}, or " if first == "command" else ""


def _misplaced(
    context: Context,
    name: str,
    fields: tuple[str, ...],
    whose: str,
    or_add: str,
    table: Workers,
) -> Iterator[Finding]:
    for field in fields:
        if context.stands("workers", name, field):
            message = f"{whose}: {or_add}remove {field}{_instead(field, table)}"
            yield ("workers", name, field), message


def _instead(field: str, table: Workers) -> str:
    if field == "python" and table.command is not None:
        return " and name the interpreter in the command"
    return ""
