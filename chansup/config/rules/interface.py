"""Rules of ``[interface]``, apart from its addresses."""

import re
from collections.abc import Iterator

from chansup.config import modes
from chansup.config.keys import Finding, quoted
from chansup.config.rules.context import Context, attempt
from chansup.config.schema import Interface

_HEALTH_PATH = re.compile(r"/[^\s?#]*\Z")
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
    if interface.mode == "relay":
        message = 'relay mode is not available in this version of chansup: write "direct"'
        yield ("interface", "mode"), message
    path = interface.health_path
    if path is not None and not _HEALTH_PATH.match(path):
        message = f'expected a path like "/-/health", without a query, found {quoted(path)}'
        yield ("interface", "health_path"), message
    yield from attempt(("interface", "unix_mode"), modes.parse, interface.unix_mode)


def _server(interface: Interface, context: Context) -> Iterator[Finding]:
    app = context.config.app
    if app.asgi is None and app.wsgi is None:
        message = (
            "[interface] has nothing to serve: name the app, "
            '[app] asgi = "mysite.asgi:application" (or wsgi), or a command in [interface]'
        )
        yield ("app",), message
    if interface.ready is not None:
        message = "is for a command; a server itself says when it is ready: remove it"
        yield ("interface", "ready"), message
