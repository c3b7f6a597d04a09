"""Rules of what a server believes a proxy: addresses of clients, the scheme of a request."""

from collections.abc import Iterator

from chansup.config import address, relay, server_variables
from chansup.config.keys import Finding, Key, quoted
from chansup.config.rules.context import Context
from chansup.config.schema import Interface

UNIX_PEERS = "unix:"  # who connects to a Unix socket, for uvicorn's forwarded_allow_ips
_VARIABLE = "FORWARDED_ALLOW_IPS"
_OPTION = "forwarded_allow_ips"


def trusted(context: Context) -> Iterator[Finding]:
    """The client's address comes from somebody who may be believed."""
    interface = context.config.interface
    if interface is None or interface.command is not None:
        return
    if interface.server == "uvicorn" and interface.options.get("proxy_headers", True):
        yield from _of_uvicorn(interface, context)
    elif interface.server == "daphne" and interface.options.get("proxy_headers"):
        if (public := _public(interface)) is not None:
            message = (
                f"takes the client's address from whoever writes X-Forwarded-For, and {public} is "
                "open to other machines: bind to 127.0.0.1 or to a Unix socket, or remove it"
            )
            yield ("interface", "options", "proxy_headers"), message
    elif interface.server == "gunicorn":
        key, names = _trusted(interface, context)
        public = _public(interface)
        if names == ["*"] and public is not None:
            message = (
                f'"*" lets every client of {public} say that its request came by https: name the '
                "addresses of the proxy"
            )
            yield key, message


def _of_uvicorn(interface: Interface, context: Context) -> Iterator[Finding]:
    key, names = _trusted(interface, context)
    public = _public(interface)
    is_unix = any(isinstance(place, address.Unix) for place in _places(interface))
    if names == ["*"]:
        instead = f"write {quoted(UNIX_PEERS)}" if is_unix else "write 127.0.0.1"
        if public is not None:
            who, instead = f"and {public} is open to other machines", "name the proxy's addresses"
        else:
            who = "which the client itself writes where the proxy only adds to the header"
        message = (
            f'"*" takes the leftmost address of X-Forwarded-For, {who}: {instead}, then the last '
            "address that is not trusted counts"
        )
        yield key, message
    elif is_unix and UNIX_PEERS not in names:
        message = (
            "a proxy on the Unix socket is not believed, as its connections have no address: the "
            "app sees http and no client. Write forwarded_allow_ips = "
            f"{quoted(UNIX_PEERS)} (or proxy_headers = false) into [interface.options]"
        )
        yield key, message


def _trusted(interface: Interface, context: Context) -> tuple[Key, list[str]]:
    """Return whom the server believes, and the key that says it or could say it."""
    key: Key = ("interface", "options", _OPTION)
    value = interface.options.get(_OPTION)
    if value is None:
        value = interface.environment.get(_VARIABLE) or context.environment.get(_VARIABLE)
        app = context.config.app
        if _VARIABLE in interface.environment:
            key = ("interface", "environment", _VARIABLE)
        elif _VARIABLE in app.environment:
            key = ("app", "environment", _VARIABLE)
        elif value is not None and context.stands("app", "env_file"):
            key = ("app", "env_file")
        else:
            key = ("interface", "bind")
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list):
        return key, ["127.0.0.1"]
    return key, [str(name).strip() for name in value]


def _places(interface: Interface) -> list[address.Address]:
    binds = [interface.bind] if isinstance(interface.bind, str) else interface.bind
    return [address.parse(bind) for bind in binds]


def _public(interface: Interface) -> address.Tcp | None:
    """Return an address that other machines reach."""
    for place in _places(interface):
        if isinstance(place, address.Tcp) and not place.is_loopback:
            return place
    return None


def variables(context: Context) -> Iterator[Finding]:
    """Variables that a server reads when its own command line starts it, and not here."""
    interface = context.config.interface
    if interface is None or interface.command is not None:
        return
    app = context.config.app
    files = {
        name: value
        for name, value in context.of_env_files.items()
        if name not in app.environment and name not in interface.environment
    }
    places: list[tuple[Key, dict[str, str], bool]] = [
        (("interface", "environment"), interface.environment, True),
        (("app", "environment"), app.environment, True),
        (("app", "env_file"), files, False),
    ]
    for key, names, is_table in places:
        for name, remedy in server_variables.unread(interface.server, names):
            if name in server_variables.OF_PLATFORMS and context.mentions(name):
                continue  # the config reads it by itself
            whose = quoted(name) if not is_table else ""
            message = f"{whose} has no effect on {interface.server} here: {remedy}".lstrip()
            yield ((*key, name) if is_table else key), message


def threads(context: Context) -> Iterator[Finding]:
    """A variable of daphne's that is about the app, which app workers run in relay mode."""
    interface = context.config.interface
    if interface is None or not relay.is_relay(context.config) or interface.server != "daphne":
        return
    if "ASGI_THREADS" in {**context.of_env_files, **context.config.app.environment}:
        message = (
            "ASGI_THREADS counts threads of daphne, and app workers run the app: a WSGI app has "
            "threads in its table of workers"
        )
        yield ("interface", "server"), message
