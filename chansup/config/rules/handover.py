"""Rules of ``[handover]``: WebSockets that are closed instead of moved, and exceptions to that."""

import difflib
import re
from collections.abc import Iterator

from chansup.config import carry, relay
from chansup.config.keys import Finding, Key, quoted
from chansup.config.rules.context import Context
from chansup.config.schema import Fitting
from chansup.protocol import sessions

_NAME = re.compile(r"[^\s,;\x00-\x1f]+\Z")  # RFC 6455, section 4.1: a token; and the signs of globs
_WILD = re.compile(r"[*?\[]")
_KNOWN = [
    glob
    for one in sessions.SESSIONS
    if (glob := one.pattern.subprotocol) is not None and not _WILD.search(glob)
]


def entries(context: Context) -> Iterator[Finding]:
    """Every entry says which WebSockets it means, and none contradicts another one."""
    taken: dict[sessions.Pattern, str] = {}
    for field, place, entry in _entries(context):
        key: Key = ("handover", field, place)
        pattern = relay.pattern(entry)
        if isinstance(entry, Fitting) and pattern == sessions.Pattern():
            message = (
                "fits every WebSocket: name a subprotocol, a path or a query, as in "
                '{ path = "/game/*" }; for all of a table, write handover in [interface] or '
                "[workers.NAME]"
            )
            yield key, message
            continue
        yield from _globs(pattern, key, isinstance(entry, str))
        other = taken.setdefault(pattern, field)
        if other != field:
            yield key, f"({pattern}) stands in handover.{other} as well: remove one of them"


def _entries(context: Context) -> Iterator[tuple[str, int, str | Fitting]]:
    table = context.config.handover
    for field, listed in (("close", table.close), ("move", table.move)):
        for place, entry in enumerate(listed):
            yield field, place, entry


def _globs(pattern: sessions.Pattern, key: Key, is_plain: bool) -> Iterator[Finding]:
    name, path, query = pattern.subprotocol, pattern.path, pattern.query
    if name is not None and not _NAME.match(name):
        at = key if is_plain else (*key, "subprotocol")
        yield at, f'invalid subprotocol {quoted(name)}: write one name or glob, as in "mqtt*"'
    elif name is not None and "/" in name and is_plain:
        yield (
            key,
            f"{quoted(name)} is not a subprotocol: for a path, write {{ path = {quoted(name)} }}",
        )
    elif name is not None and "=" in name and is_plain:
        yield (
            key,
            f"{quoted(name)} is not a subprotocol: for a query, write {{ query = {quoted(name)} }}",
        )
    if path is not None and not path.startswith(("/", "*")):
        remedy = f"write {quoted('/' + path)}" if path else 'write a path, as in "/game/*"'
        yield (*key, "path"), f'a path begins with "/", not as {quoted(path)}: {remedy}'
    elif path is not None and "?" in path and "=" in path.partition("?")[2]:
        before, _, after = path.partition("?")
        apart = f"{{ path = {quoted(before)}, query = {quoted(after)} }}"
        message = f"{quoted(path)} has a query: write {apart}"
        yield (*key, "path"), message
    if query is not None and (not query.strip("?") or query.startswith("?") or "&" in query):
        message = (
            f'invalid query {quoted(query)}: write one parameter, without "?" and "&", as in '
            '"ticket=*"'
        )
        yield (*key, "query"), message


def doubtful(context: Context) -> Iterator[Finding]:
    """Entries that can be understood, and have no effect or are probably meant otherwise."""
    config = context.config
    moves = relay.is_relay(config) or carry.is_on(config)
    if context.stands("handover") and not moves and config.interface is not None:
        message = (
            "has no effect where no WebSocket moves: that needs [interface] handover = "
            '"transparent" under uvicorn, or app workers with serves'
        )
        yield ("handover",), message
    for field, place, entry in _entries(context):
        name = relay.pattern(entry).subprotocol
        if name is None or _WILD.search(name):
            continue
        handshake = sessions.Handshake("/", b"", (name,))
        close = difflib.get_close_matches(name.lower(), _KNOWN, n=1, cutoff=0.85)
        if close and sessions.recognised(handshake) is None:
            key: Key = ("handover", field, place)
            at = key if isinstance(entry, str) else (*key, "subprotocol")
            yield at, f"{quoted(name)} is not a known subprotocol: did you mean {quoted(close[0])}?"
