"""Rules of ``[channel_layer]``."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from chansup.config import accounts, size
from chansup.config.keys import Finding, Key, listed, quoted
from chansup.config.rules.context import Context

_KEY = ("channel_layer",)
_REDIS = ("redis://", "rediss://", "unix://", "redis+sentinel://")
_RABBITMQ = ("amqp://", "amqps://")
_FORMS = listed(["local", *(f"{scheme}…" for scheme in (*_REDIS, *_RABBITMQ))])
_SCHEME = re.compile(r"[A-Za-z0-9+.-]{1,30}://")
_OF_THE_BACKEND = ("host", "hosts")  # what the classes of other layers call it
_OF_THE_HUB = ("memory", "connections", "user")
_LEAST_MEMORY = 2**20


def backend(context: Context) -> Iterator[Finding]:
    """The layer is chansup's own, or on servers that it can be on. No URL is shown: passwords."""
    given = context.config.channel_layer.backend
    if isinstance(given, str):
        yield from _one((*_KEY, "backend"), given)
    elif not given:
        yield (*_KEY, "backend"), "the list is empty: name one server, or more"
    else:
        for place, server in enumerate(given):
            yield from _one_of_several((*_KEY, "backend", place), server)


def _one(key: Key, given: str) -> Iterator[Finding]:
    if given != "local" and not given.startswith((*_REDIS, *_RABBITMQ)):
        yield key, f"expected {_FORMS}, found {_shown(given)}"
    elif not given.removeprefix(_scheme(given)):
        yield key, f"no server in {quoted(given)}: write {given}HOST"
    elif not _has_ports(given):
        message = (
            "a port in it is not a number from 1 to 65535. In a password, write / ? # @ and : with "
            "percent signs, as in p%2Fq"
        )
        yield key, message


def _one_of_several(key: Key, given: object) -> Iterator[Finding]:
    if isinstance(given, dict):
        return
    if not isinstance(given, str):
        yield key, "expected the URL of a Redis server, or a table of what redis-py takes"
    elif not given.startswith(_REDIS):
        few = listed([f"{scheme}…" for scheme in _REDIS])
        yield key, f"expected {few}, found {_shown(given)}: only Redis takes several servers"
    else:
        yield from _one(key, given)


def _has_ports(given: str) -> bool:
    """Say whether the ports in a URL, if any, can be such; a Sentinel's has several servers."""
    if given in ("local", *_REDIS, *_RABBITMQ) or given.startswith("unix://"):
        return True
    scheme = _scheme(given)
    try:
        # Not by urlsplit as a whole: it does not know several servers, and refuses some of them.
        network = re.split(r"[/?#]", given.partition("://")[2], maxsplit=1)[0]
        servers = network.rpartition("@")[2].split(",")
        return all(urlsplit(scheme + one).port != 0 for one in servers)
    except ValueError:
        return False


def _shown(given: str) -> str:
    """Return what can be said of a URL: what follows its scheme may hold a password."""
    scheme = _scheme(given)
    if scheme:
        return quoted(f"{scheme}…")
    return quoted(given) if re.fullmatch(r"[A-Za-z]{1,12}", given) else "something else"


def _scheme(given: str) -> str:
    match = _SCHEME.match(given)
    return match[0] if match else ""


def options(context: Context) -> Iterator[Finding]:
    """The options do not name the servers once more: it would go unsaid which of both counts."""
    table = context.config.channel_layer
    for field in _OF_THE_BACKEND:
        if table.backend != "local" and field in table.options:
            message = "the servers stand in [channel_layer] backend: remove it, and name them there"
            yield (*_KEY, "options", field), message


def of_the_hub(context: Context) -> Iterator[Finding]:
    """The settings of the hub are possible, and there is a hub."""
    table = context.config.channel_layer
    if table.backend != "local":
        for field in _OF_THE_HUB:
            if context.stands(*_KEY, field):
                yield (*_KEY, field), "is for chansup's own hub: remove it, or backend"
        return
    try:
        enough = size.parse(table.memory) >= _LEAST_MEMORY
    except ValueError as error:
        yield (*_KEY, "memory"), str(error)
    else:
        if not enough:
            yield (*_KEY, "memory"), f'expected at least "1M", found {quoted(table.memory)}'
    yield from _user(table.user)


def _user(user: str | None) -> Iterator[Finding]:
    try:
        account = accounts.find(user, None)
    except ValueError as error:
        yield (*_KEY, "user"), str(error)
        return
    if account is not None and not accounts.is_permitted(account):
        yield (*_KEY, "user"), "can only be set by root: remove it, or start chansup as root"
