"""What follows from a config for WebSockets of direct mode: whether they outlive their process.

The supervisor starts by it, the rules and `chansup check` speak by it.
"""

from chansup.config.relay import handover_rules, is_relay
from chansup.config.schema import Config, Interface
from chansup.protocol import roster
from chansup.protocol.sessions import Rules

_OF_TLS = ("ssl_certfile", "ssl_keyfile")  # options of uvicorn
_SERVERS = {
    "granian": "granian keeps its connections out of reach of Python",
    "hypercorn": "chansup moves WebSockets of uvicorn only, not of hypercorn",
    "daphne": "chansup moves WebSockets of uvicorn only, not of daphne",
    "gunicorn": "chansup moves WebSockets of uvicorn only, not of gunicorn",
}


def is_wanted(interface: Interface) -> bool:
    """Say whether at least some WebSockets are to outlive the process that holds them."""
    return interface.handover == "transparent" or any(
        one.handover == "transparent" for one in interface.websockets
    )


def has_websockets(config: Config) -> bool:
    """Say whether processes of the interface run an app that may have WebSockets."""
    interface = config.interface
    if interface is None or is_relay(config):
        return False
    return interface.command is not None or config.app.asgi is not None


def obstacle(config: Config) -> str:
    """Return why no WebSocket of the interface can outlive its process; empty if they can."""
    interface = config.interface
    if interface is None:
        return "there is no interface"
    if is_relay(config):
        return "the interface runs the relay, which has means of its own"
    if interface.command is not None:
        return "the interface is a program of your own"
    if config.app.asgi is None:
        return "a WSGI app has no WebSockets"
    if interface.server in _SERVERS:
        return _SERVERS[interface.server]
    if any(interface.options.get(name) for name in _OF_TLS):
        return "the process itself ends TLS, and its keys cannot move: let a proxy end TLS"
    return ""


def is_on(config: Config) -> bool:
    """Say whether processes of the interface are started so that their WebSockets outlive them."""
    interface = config.interface
    return interface is not None and is_wanted(interface) and not obstacle(config)


def routes(interface: Interface) -> list[roster.Route]:
    """Return the entries of `websockets`, with what the table says where they say nothing."""
    return [
        roster.Route(
            one.route,
            interface.handover if one.handover is None else one.handover,
            interface.redeliver if one.redeliver is None else one.redeliver,
        )
        for one in interface.websockets
    ]


def rules(config: Config) -> Rules:
    """Return which WebSockets may move and which not, beyond the known protocols."""
    return handover_rules(config)
