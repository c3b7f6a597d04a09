"""What `chansup check` says where one process keeps what several would have to share."""

import os
from collections.abc import Iterator, Mapping

from chansup.config import cores, relay
from chansup.config.errors import ConfigError, Problem
from chansup.config.keys import Key, dotted
from chansup.config.lines import Lines
from chansup.config.load import Loaded, load
from chansup.config.schema import Processes
from chansup.config.text import read
from chansup.project import in_process, sources

_PAGE = 'documentation, "More than one process"'
_MISSES = {
    "connections": "a message reaches the clients of one process alone",
    "socketio": "clients of the other processes are not reached",
    "memory": "what it passes on ends at the process",
}


def warnings(path: str | os.PathLike[str], environ: Mapping[str, str]) -> list[Problem]:
    """Return what a config with several processes breaks; nothing where it cannot be read."""
    try:
        loaded = load(path, environ)
    except ConfigError:
        return []
    sources.text.cache_clear()
    sources.tree.cache_clear()
    lines = Lines(read(loaded.path))
    return [
        Problem(dotted(key), message, lines.of(key))
        for key, reference, processes, sticky in _serving(loaded)
        if isinstance(processes, str) or processes > 1
        for message in _broken(loaded, reference, processes, sticky)
    ]


def _serving(loaded: Loaded) -> Iterator[tuple[Key, str, Processes, bool | None]]:
    """Yield the pools that run an app: key, app, processes, sticky (None: it cannot be)."""
    config = loaded.config
    if relay.is_relay(config):
        for name, table in relay.app_workers(config).items():
            app = relay.application(config, name)
            if app is not None:
                key = ("workers", name, "processes")
                yield key, app.reference, table.processes, table.sticky is not None
    elif config.interface is not None and config.interface.command is None:
        reference = config.app.asgi or config.app.wsgi
        if reference is not None:
            yield ("interface", "processes"), reference, config.interface.processes, None


def _broken(
    loaded: Loaded, reference: str, processes: Processes, sticky: bool | None
) -> Iterator[str]:
    if isinstance(processes, str) and cores.processes(processes) < 2:
        number = f"{processes} is one process here, and several run the app on larger machines"
    else:
        number = f"{cores.processes(processes)} processes run the app"
    findings = in_process.find(loaded.directory, reference)
    for one in findings.kept:
        yield (
            f"{number}, but {one.place} works within one alone ({one.what}): {_MISSES[one.kind]}. "
            f"Write processes = 1, or connect the processes: {_PAGE}"
        )
    if not findings.polls or sticky:
        return
    remedy = (
        'add sticky = "sid"'
        if sticky is False
        else 'write processes = 1, or run the app in [workers.NAME] with sticky = "sid"'
    )
    yield (
        f"{number}, and clients of Socket.IO that poll fail, for each of their requests goes to "
        f"any process: {remedy}, or let clients and server use WebSockets alone"
    )
