"""What ``chansup check`` looks at: the config, and whether this machine can run it.

The supervisor does not import this: it is slow, asks the network, and runs the app's code.
"""

import asyncio
import os
import resource
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from chansup.check import probe, rehearsal
from chansup.config import (
    accounts,
    address,
    carry,
    cores,
    pools,
    relay,
    routes,
    runtime_places,
    runworker,
    sessions,
)
from chansup.config import commands as command_lines
from chansup.config.errors import ConfigError, Problem
from chansup.config.keys import Finding, Key, dotted, listed, quoted
from chansup.config.lines import Lines
from chansup.config.load import Loaded, load
from chansup.config.rules import addresses
from chansup.config.schema import Config, Program, Task
from chansup.config.text import read
from chansup.protocol.probe import Answer
from chansup.supervisor.errors import AddressError
from chansup.supervisor.sockets.opening import try_to_open

_FEW_DESCRIPTORS = 4096  # a hard limit below it is probably not meant for a site of WebSockets
_EVERY_INTERFACE = {"0.0.0.0", "::"}
_RUN = Path("/run")  # where systemd makes what RuntimeDirectory= names


class Report(msgspec.Struct, frozen=True):
    """Everything that a check found; the config is usable if there are no problems."""

    problems: list[Problem] = []
    warnings: list[Problem] = []
    notes: list[str] = []


def check(
    path: str | os.PathLike[str],
    environ: Mapping[str, str],
    held: Collection[str] = (),
    runtime_directory: Path | None = None,
) -> Report:
    """Check a config file, its addresses, its commands, and that its app can be imported.

    `environ` is what children inherit. `held` are the addresses, as written in the config, that a
    running supervisor of this very config holds; they are in use rightly. `runtime_directory` is
    where the control socket will be. Raises nothing for a bad config: the report says it.
    """
    try:
        loaded = load(path, environ)
    except ConfigError as error:
        return Report(error.problems)
    lines = Lines(read(loaded.path))
    notes = list(_notes(loaded, environ))
    if runtime_directory is not None and _made_by_systemd(runtime_directory):
        notes.append(
            f"{runtime_directory} does not exist yet: a unit with "
            f"RuntimeDirectory={runtime_directory.name} makes it; without systemd, root makes it"
        )
    findings = [
        *_listening(loaded, held),
        *_commands(loaded, environ),
        *_users(loaded),
        *_dead_letters(loaded),
        *_runtime_directory(runtime_directory),
    ]
    problems = [Problem(dotted(key), message, lines.of(key)) for key, message in findings]
    answer = probe.ask(loaded, environ)
    problems.extend(
        Problem(found.key, found.message, lines.of(_key(found.key))) for found in answer.problems
    )
    problems.sort(key=lambda problem: problem.line or 0)
    warnings = [*loaded.warnings]
    warnings.extend(
        Problem(found.key, found.message, lines.of(_key(found.key))) for found in answer.warnings
    )
    if idle := _not_consumed(loaded.config, answer):
        if loaded.config.channel_layer.backend == "local":
            warnings.append(Problem("app.asgi", idle, lines.of(("app", "asgi"))))
        else:  # perhaps workers on another machine do
            notes.append(idle)
    known, doubtful = sessions.found(loaded.config, answer.session_modules)
    warnings.extend(Problem(dotted(key), message, lines.of(key)) for key, message in doubtful)
    return Report(problems, warnings, [*notes, *answer.notes, *known])


def _key(text: str) -> tuple[str, ...]:
    """Return the key of a dotted name from the probe, whose names are all bare ones."""
    return tuple(text.split("."))


def _not_consumed(config: Config, answer: Answer) -> str | None:
    """Return what to say where the app has consumers for channels that nobody consumes."""
    consumed = set(answer.consumed)
    for entry in pools.entries(config):
        command = entry.table.command
        found = runworker.find(command) if command is not None else None
        if found is not None and not found.channels:
            return None  # those that a variable names
        consumed.update(found.channels if found is not None else ())
    idle = [name for name in answer.routed if name not in consumed]
    if not idle:
        return None
    table = runworker.RunWorker(idle).table("NAME")
    return (
        f"routes {listed(idle, 'and')} to consumers, and no workers of this file take messages out "
        f"of {'these channels' if len(idle) > 1 else 'this channel'}: add {table}"
    )


def _listening(loaded: Loaded, held: Collection[str]) -> Iterator[Finding]:
    places = [(key, text, address.parse(text)) for key, text in addresses.written(loaded.config)]
    beside = [place for _, _, place in places]
    for key, text, place in places:
        if isinstance(place, address.Unix):
            place = address.Unix(str(place.within(loaded.path.parent)))
        own = {text, str(place), str(place).replace("localhost:", "127.0.0.1:")}
        if isinstance(place, address.Systemd) or not own.isdisjoint(held):
            continue
        try:
            asyncio.run(try_to_open(place, directory=loaded.path.parent, beside=beside))
        except AddressError as error:
            yield key, _of_this_site(place, held) or str(error)


def _of_this_site(place: address.Tcp | address.Unix, held: Collection[str]) -> str | None:
    """Return what to say where the running supervisor of this config itself is in the way.

    A reload would say the same: "0.0.0.0:8000" cannot be opened beside "127.0.0.1:8000".
    """
    if not isinstance(place, address.Tcp) or not place.port:
        return None
    for text in held:
        other = address.parse(text)
        if not isinstance(other, address.Tcp) or other.port != place.port:
            continue
        if _EVERY_INTERFACE & {place.host, other.host}:
            return (
                f"{place} overlaps with {other}, where this site listens now, so a reload cannot "
                "open it: `chansup stop` and `chansup run` change it, or choose another port"
            )
    return None


def _commands(loaded: Loaded, environ: Mapping[str, str]) -> Iterator[Finding]:
    for entry in pools.entries(loaded.config):
        table = entry.table
        if table.command is None:
            continue
        own = table.directory if isinstance(table, Program | Task) else None
        directory = loaded.directory / (own or "")
        search_path = loaded.child_environment(environ, table.environment)["PATH"]
        words = command_lines.parse(table.command)
        found = rehearsal.obstacles(
            words, str(directory), search_path, table.user, table.group, table.limits
        )
        yield from (((*entry.key, "command"), reason) for reason in found)


def _users(loaded: Loaded) -> Iterator[Finding]:
    """Yield the users that cannot run the interpreter of their pool, as far as modes tell."""
    in_relay_mode = relay.is_relay(loaded.config)
    for entry in pools.entries(loaded.config):
        table = entry.table
        if table.command is not None or table.user is None:
            continue
        python = loaded.python_of(entry.name)
        if entry.name == "interface":
            python = sys.executable if in_relay_mode else loaded.python or sys.executable
        yield from _closed((*entry.key, "user"), table.user, python)
    hub_user = loaded.config.channel_layer.user
    if hub_user is not None:
        yield from _closed(("channel_layer", "user"), hub_user, sys.executable)


def _dead_letters(loaded: Loaded) -> Iterator[Finding]:
    """Yield the files for dead letters that the workers could not write."""
    for name, table in loaded.config.workers.items():
        if table.redeliver and table.dead_letters is not None:
            path = os.path.join(loaded.path.parent, table.dead_letters)
            for said in rehearsal.file_obstacles(path, table.user, table.group):
                yield ("workers", name, "dead_letters"), said


def _closed(key: Key, user: str, python: str) -> Iterator[Finding]:
    account = accounts.find(user, None)
    if account is None or account.user in (0, os.geteuid()):
        return
    for path in (python, os.path.realpath(python)):
        closed = accounts.obstacle(Path(path), account.user)
        if closed is not None:
            message = (
                f"{quoted(user)} may not go into {closed}, and so cannot run {path}: let that user "
                "pass (chmod o+x), or install Python and chansup elsewhere, for instance in /opt"
            )
            yield key, message
            return


def _runtime_directory(directory: Path | None) -> Iterable[Finding]:
    if directory is None:
        return
    nearest = directory
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not os.path.isdir(nearest):
        reason = "is not a directory"
    elif _made_by_systemd(directory):
        return
    elif not os.access(nearest, os.W_OK | os.X_OK):
        reason = "cannot be written to"
    else:
        if said := runtime_places.fault(directory):
            yield ("supervisor", "runtime_directory"), said
        return
    message = f"{quoted(str(nearest), limit=300)} {reason}: name another directory"
    yield ("supervisor", "runtime_directory"), message


def _made_by_systemd(directory: Path) -> bool:
    """Whether only a unit can make the runtime directory, and has not done so yet."""
    missing = not os.path.lexists(directory)
    return missing and directory.parent == _RUN and not os.access(_RUN, os.W_OK | os.X_OK)


def _notes(loaded: Loaded, environ: Mapping[str, str]) -> Iterator[str]:
    config = loaded.config
    if loaded.directory != loaded.path.parent:
        yield f"the app's directory is {loaded.directory}"
    for entry in pools.entries(config):
        table = entry.table
        if not isinstance(table, Task) and isinstance(table.processes, str):
            count = cores.processes(table.processes)
            yield f"{dotted(entry.key)}: {table.processes} means {count} processes here"
    yield from _not_served(config)
    yield from _not_carried(config)
    places = [address.parse(text) for _, text in addresses.written(config)]
    if any(isinstance(place, address.Systemd) for place in places) and "LISTEN_FDS" not in environ:
        yield "sockets from systemd can only be checked when systemd starts chansup"


def _not_carried(config: Config) -> Iterator[str]:
    """Say which WebSockets of direct mode do not outlive their process."""
    interface = config.interface
    if interface is None or not carry.has_websockets(config) or not carry.is_wanted(interface):
        return
    if why := carry.obstacle(config):
        yield f"a deploy closes WebSockets with 1012: {why}"
        return
    binds = [interface.bind] if isinstance(interface.bind, str) else interface.bind
    if any(isinstance(address.parse(bind), address.Unix) for bind in binds):
        yield "WebSockets of a Unix socket move at a deploy, and end at a crash of their process"
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < _FEW_DESCRIPTORS:
        yield (
            f"the hard limit of descriptors (ulimit -Hn) is {most}: WebSockets beyond it end with "
            "their process"
        )


def _not_served(config: Config) -> Iterator[str]:
    """Say it where a part of the requests or of the WebSockets is served, and the rest is not."""
    served = [
        routes.parse(one.route)
        for table in relay.app_workers(config).values()
        for one in relay.served(table)
    ]
    for type_, what in (("http", "requests"), ("websocket", "WebSockets")):
        of_type = [route for route in served if route.type == type_]
        if of_type and not any(route.host is None and route.path is None for route in of_type):
            yield f'{what} that no route fits are answered 404: none is "{type_}" alone'
