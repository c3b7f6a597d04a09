"""What follows from a config for relay mode: whether it is, and what its app workers run.

The rules hold a config to it, the supervisor starts by it, and `chansup check` asks by it.
"""

from pathlib import Path
from typing import Literal

import msgspec

from chansup.config.schema import Config, Fitting, Handover, Workers
from chansup.protocol.sessions import Pattern, Rules

DEFAULT_THREADS = 4
DEFAULT_CONCURRENCY = 1000  # of an ASGI app; one of WSGI can work on no more than its threads


class Application(msgspec.Struct, frozen=True):
    """An app, and where the config names it."""

    gateway: Literal["asgi", "wsgi"]
    reference: str  # "package.module:attribute"
    key: tuple[str, ...]  # ("app", "asgi"), ("workers", "web", "wsgi")


class Served(msgspec.Struct, frozen=True):
    """One entry of `serves`, with what the pool says where the entry says nothing."""

    route: str
    handover: Handover
    redeliver: bool


def is_relay(config: Config) -> bool:
    """Say whether the interface runs the relay, and app workers run the app.

    So it is where a table of workers has `serves`, and where `mode` says it. The rules refuse what
    contradicts itself, so that in a config that loads, relay mode always has app workers.
    """
    interface = config.interface
    if interface is None or interface.command is not None:
        return False
    if interface.mode is None:
        return bool(app_workers(config))
    return interface.mode == "relay"


def app_workers(config: Config) -> dict[str, Workers]:
    """Return the pools that run the app for the relay, by their names."""
    return {name: table for name, table in config.workers.items() if table.serves}


def application(config: Config, name: str) -> Application | None:
    """Return what a pool of app workers runs: its own app, else that of ``[app]``, if any."""
    places = (("workers", name), config.workers[name]), (("app",), config.app)
    for key, table in places:
        if table.asgi is not None:
            return Application("asgi", table.asgi, (*key, "asgi"))
        if table.wsgi is not None:
            return Application("wsgi", table.wsgi, (*key, "wsgi"))
    return None


def error_pages(config: Config, directory: Path) -> dict[str, str]:
    """Return the paths of the site's error pages by status code, in the config's directory."""
    if config.interface is None:
        return {}
    return {status: str(directory / name) for status, name in config.interface.error_pages.items()}


def served(table: Workers) -> list[Served]:
    """Return the routes of a pool; `config.routes` reads them."""
    found = []
    for entry in table.serves:
        if isinstance(entry, str):
            found.append(Served(entry, table.handover, table.redeliver))
            continue
        handover = table.handover if entry.handover is None else entry.handover
        redeliver = table.redeliver if entry.redeliver is None else entry.redeliver
        found.append(Served(entry.route, handover, redeliver))
    return found


def handover_rules(config: Config) -> Rules:
    """Return which WebSockets may move and which not, beyond the known protocols."""
    table = config.handover
    return Rules([pattern(one) for one in table.close], [pattern(one) for one in table.move])


def pattern(entry: str | Fitting) -> Pattern:
    """Return what an entry of ``[handover]`` means: a string is a subprotocol."""
    if isinstance(entry, str):
        return Pattern(subprotocol=entry)
    return Pattern(entry.subprotocol, entry.path, entry.query)


def threads(table: Workers) -> int:
    """Return how many threads run a WSGI app in each process of a pool."""
    if table.threads is not None:
        return table.threads
    return min(DEFAULT_THREADS, table.concurrency or DEFAULT_THREADS)


def concurrency(config: Config, name: str) -> int:
    """Return how many requests each process of a pool works on at a time."""
    table = config.workers[name]
    if table.concurrency is not None:
        return table.concurrency
    app = application(config, name)
    is_wsgi = app is not None and app.gateway == "wsgi"
    return threads(table) if is_wsgi else DEFAULT_CONCURRENCY
