"""Rules of ``[interface]``, apart from its addresses."""

import re
from collections.abc import Iterator

from chansup.config import accounts, certificates, modes, relay
from chansup.config import option_files as files
from chansup.config.keys import Finding, Key, dotted, listed, quoted
from chansup.config.rules.context import Context, attempt
from chansup.config.schema import Interface
from chansup.config.text import UnreadableFileError, open_file
from chansup.protocol.roster import LARGEST_ERROR_PAGE

_HEALTH_PATH = re.compile(r"/[^\s?#]*\Z")
_OF_THE_RELAY = ("uvicorn", "granian", "hypercorn", "daphne")  # servers that can carry it
_STATUS_CODES = ("400", "404", "431", "500", "502", "503")
_OF_SERVERS = ("server", "options", "health_path", "mode")  # nothing that a command could use


def rule(context: Context) -> Iterator[Finding]:
    """An interface has an app or a command, and what belongs to it."""
    interface = context.config.interface
    if interface is None:
        return
    if interface.command is None:
        yield from _server(interface, context)
    else:
        for name in _OF_SERVERS:
            if context.stands("interface", name):
                yield ("interface", name), f"has no effect beside a command: remove {name}"
    path = interface.health_path
    if path is not None and not _HEALTH_PATH.match(path):
        message = f'expected a path like "/-/health", without a query, found {quoted(path)}'
        yield ("interface", "health_path"), message
    yield from attempt(("interface", "unix_mode"), modes.parse, interface.unix_mode)
    yield from _socket_owner(interface)
    yield from _error_pages(interface, context)


def _error_pages(interface: Interface, context: Context) -> Iterator[Finding]:
    for status, name in interface.error_pages.items():
        key = ("interface", "error_pages", status)
        if status not in _STATUS_CODES:
            yield key, f"is not answered by the relay: use {listed(_STATUS_CODES)}"
            continue
        path = context.config_directory / name
        try:
            size = path.stat().st_size
            open_file(path).close()
        except OSError as error:
            yield key, f"cannot read {quoted(str(path))}: {error.strerror}"
            continue
        except UnreadableFileError as error:
            yield key, f"{quoted(str(path))} {error}"
            continue
        if size > LARGEST_ERROR_PAGE:
            limit = LARGEST_ERROR_PAGE // 1024
            yield key, f"is too large: {quoted(str(path))} may have {limit} KiB"
    if interface.error_pages and not relay.is_relay(context.config):
        message = (
            "has no effect without app workers: in direct mode the app answers everything. "
            "Remove it, or add [workers.web] with serves"
        )
        yield ("interface", "error_pages"), message


def option_files(context: Context) -> Iterator[Finding]:
    """The files that a server needs are there, and can be read."""
    directories = (context.directory, context.config_directory)
    sound = True
    for one in files.find(context.config, *directories):
        if one.required:
            try:
                files.digest(one.path)
            except files.OptionFileError as error:
                message = f"{quoted(str(one.path), limit=300)} {error}: name a file that is there"
                sound = False
                yield ("interface", "options", one.option), message
    interface = context.config.interface
    if sound and interface is not None and interface.command is None:
        base = files.base(context.config, *directories)
        for option, said in certificates.faults(interface.server, interface.options, base):
            yield ("interface", "options", option), said


def _socket_owner(interface: Interface) -> Iterator[Finding]:
    owner, group = interface.unix_owner, interface.unix_group
    if owner is not None:
        key = ("interface", "unix_owner")
        yield from attempt(key, accounts.of_socket, None, None, owner, None)
    if group is not None:
        key = ("interface", "unix_group")
        yield from attempt(key, accounts.of_socket, None, None, None, group)


def socket_of_a_command(context: Context) -> Iterator[Finding]:
    """A program of the user's own is told where its socket is."""
    interface = context.config.interface
    if interface is None or interface.command is None:
        return
    written = context.as_written("interface", "command")
    words = written if isinstance(written, list) else [written]
    if not any("{fd}" in str(word) for word in words):
        message = (
            "has no {fd}: the program must take its socket from LISTEN_FDS (descriptor 3), else "
            'nobody answers. Write {fd} where it takes a descriptor, as in "server --fd {fd}"'
        )
        yield ("interface", "command"), message


def _server(interface: Interface, context: Context) -> Iterator[Finding]:
    app = context.config.app
    has_app = app.asgi is not None or app.wsgi is not None
    if not has_app and not _serving(context) and interface.mode != "relay":
        message = (
            "[interface] has nothing to serve: name the app, "
            '[app] asgi = "mysite.asgi:application" (or wsgi), or a command in [interface]'
        )
        yield ("app",), message
    if interface.ready is not None and relay.is_relay(context.config):
        table = next(iter(relay.app_workers(context.config)), "web")
        message = f"is asked of the app, which app workers run: write it in [workers.{table}]"
        yield ("interface", "ready"), message


def _serving(context: Context) -> list[Key]:
    """Return the tables that have `serves`, whatever stands there."""
    tables: list[Key] = [("workers", name) for name in context.config.workers]
    return [key for key in tables if context.stands(*map(str, key), "serves")]


def mode(context: Context) -> Iterator[Finding]:
    """The interface can be what its mode and `serves` in tables of workers make of it."""
    interface = context.config.interface
    serving = _serving(context)
    if not serving:
        if interface is not None and interface.mode == "relay":
            message = (
                'needs app workers: add [workers.web] with serves = ["http", "websocket"], '
                'or write "direct"'
            )
            yield ("interface", "mode"), message
        return
    if interface is None:
        message = "leads nowhere without [interface], which holds the connections: add that table"
        yield (*serving[0], "serves"), message
        return
    table = f"[{dotted(serving[0])}]"
    beside = f"stands beside serves in {table}"
    if interface.command is not None:
        message = f"{beside}, and the relay runs on a server: remove one of both"
        yield ("interface", "command"), message
    elif interface.mode == "direct":
        yield ("interface", "mode"), f'{beside}: write "relay", or remove mode or serves'
    elif interface.server == "gunicorn":
        message = (
            f"{quoted(interface.server)} cannot hold connections for app workers: write "
            f"{listed(_OF_THE_RELAY)}. A WSGI app runs in the workers: wsgi in {table}"
        )
        yield ("interface", "server"), message
    elif interface.server == "hypercorn" and interface.options.get("worker_class") == "trio":
        message = 'the relay runs on asyncio: write "asyncio" or "uvloop"'
        yield ("interface", "options", "worker_class"), message
