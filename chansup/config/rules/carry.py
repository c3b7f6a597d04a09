"""Rules of the keys of ``[interface]`` that say what becomes of WebSockets of direct mode."""

from collections.abc import Iterator

from chansup.config import carry, relay, routes
from chansup.config.keys import Finding, Key, quoted
from chansup.config.rules.context import Context

_KEYS = ("handover", "redeliver", "websockets", "handover_rate", "websocket_timeout")


def rule(context: Context) -> Iterator[Finding]:
    """The keys stand where they have an effect, and each route can be understood."""
    interface = context.config.interface
    if interface is None:
        return
    for name in _KEYS:
        if interface.command is not None and context.stands("interface", name):
            yield ("interface", name), f"has no effect beside a command: remove {name}"
    taken: dict[routes.Route, str] = {}
    for place, entry in enumerate(interface.websockets):
        key: Key = ("interface", "websockets", place, "route")
        try:
            route = routes.parse(entry.route)
        except ValueError as error:
            yield key, str(error)
            continue
        if route.type != "websocket":
            written = "websocket" + entry.route[len(route.type) :]
            yield key, f"{quoted(entry.route)} is not of WebSockets: write {quoted(written)}"
        elif route in taken:
            yield key, f"{quoted(entry.route)} fits the same as {quoted(taken[route])}: remove one"
        taken.setdefault(route, entry.route)


def doubtful(context: Context) -> Iterator[Finding]:
    """WebSockets are to outlive their process, and cannot."""
    config = context.config
    interface = config.interface
    if interface is None:
        return
    if relay.is_relay(config):
        table = next(iter(relay.app_workers(config)), "web")
        for name in _KEYS:
            if context.stands("interface", name):
                instead = "an entry of serves" if name == "websockets" else name
                message = f"is of direct mode: in relay mode write {instead} in [workers.{table}]"
                yield ("interface", name), message
        return
    if not carry.has_websockets(config):
        return
    says_so = context.stands("interface", "handover") or context.stands("interface", "websockets")
    if says_so and carry.is_wanted(interface) and (why := carry.obstacle(config)):
        name = "handover" if context.stands("interface", "handover") else "websockets"
        yield ("interface", name), f"a deploy closes WebSockets with 1012 all the same: {why}"
