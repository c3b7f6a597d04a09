"""Routes: which pool of app workers a request or a WebSocket goes to.

``TYPE[:[HOST]PATH]``, as in "http", "websocket:/ws/*", "http:example.org/*". Of the routes that
fit, the most specific one counts: a host before any name under a host ("*.example.org", longer
ones first) before none, then a path before a prefix (longer ones first) before none. So two
routes can only compete if they are the same.

The relay matches each request, `chansup check` reads the same routes: nothing here does any I/O.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import Generic, Literal, TypeVar

import msgspec

from chansup.config.keys import quoted

Type = Literal["http", "websocket"]
Value = TypeVar("Value")

_OTHER_NAMES = {"https": "http", "ws": "websocket", "wss": "websocket", "websockets": "websocket"}
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_MAX_HOST = 255  # characters; no name of the DNS is longer, and what is longer is not looked up


class Route(msgspec.Struct, frozen=True, order=False):
    """What a pool serves. Two routes that fit the same are equal."""

    type: Type
    host: str | None = None  # in small letters: "example.org", "*.example.org", "[::1]"; None: any
    path: str | None = None  # as the app sees it, decoded; of a prefix without the "*"; None: any
    is_prefix: bool = False

    def __str__(self) -> str:
        """Return the route as the config has it."""
        if self.host is None and self.path is None:
            return self.type
        path = "/*" if self.path is None else self.path + ("*" if self.is_prefix else "")
        return f"{self.type}:{self.host or ''}{path}"

    @property
    def specificity(self) -> tuple[int, int, int, int]:
        """Of the routes that fit a request, the one with the greatest of these counts."""
        hosts = paths = (0, 0)
        if self.host is not None:
            hosts = (1, len(self.host)) if self.host.startswith("*.") else (2, 0)
        if self.path is not None:
            paths = (1, len(self.path)) if self.is_prefix else (2, 0)
        return hosts + paths


def parse(text: str) -> Route:
    """Return the route that `text` stands for; ValueError says what is wrong and what to write."""
    name, colon, rest = text.partition(":")
    type_ = _type(name, text)
    if not colon:
        return Route(type_)
    if rest.startswith("//"):
        written = f"{type_}:{rest.lstrip('/') or 'example.org/*'}"
        raise ValueError(f"{quoted(text)} has slashes before the host: write {quoted(written)}")
    written_host, slash, written_path = rest.partition("/")
    if not slash:
        raise ValueError(_without_path(text, type_, rest))
    host = _host(written_host, text) if written_host else None
    path, is_prefix = _path("/" + written_path, text)
    return Route(type_, host, path, is_prefix)


def _type(name: str, text: str) -> Type:
    if name == "http":
        return "http"
    if name == "websocket":
        return "websocket"
    if text.startswith("/"):
        written = f"http:{text}"
        raise ValueError(f"{quoted(text)} has no type: write {quoted(written)}, or websocket:…")
    lowered = name.strip().lower()
    meant = _OTHER_NAMES.get(lowered, lowered)
    if meant in ("http", "websocket"):
        written = meant + text.removeprefix(name).rstrip()
        raise ValueError(f"{quoted(text)} is not a route: did you mean {quoted(written)}?")
    raise ValueError(
        f'{quoted(text)} is not a route: expected "http" or "websocket", and after a colon a path, '
        'as in "websocket:/ws/*", or a host and a path, as in "http:example.org/*"'
    )


def _without_path(text: str, type_: str, rest: str) -> str:
    if rest in ("", "*"):
        return f"{quoted(text)} has no path: for every path write {quoted(type_)}"
    host, path = f"{text}/*", f"{type_}:/{rest}"
    return (
        f"{quoted(text)} has no path: write {quoted(host)} if that is a host, else {quoted(path)}"
    )


def _host(host: str, text: str) -> str:
    """Return the host of a route in the form in which that of a request is compared."""
    lowered = host.lower().removesuffix(".")
    if lowered == "*":
        raise ValueError(f'in {quoted(text)}, "*" stands for every host: leave it out')
    if lowered.startswith("["):
        address = _ipv6(lowered)
        if address is None:
            raise ValueError(
                f"in {quoted(text)}, {quoted(host)} is not an IPv6 address in brackets, "
                "without a port"
            )
        return address
    if ":" in lowered:
        raise ValueError(f"in {quoted(text)}, the host has a port: leave it out, all ports count")
    if not lowered.isascii():
        raise ValueError(f"in {quoted(text)}, write the host as it is in the DNS{_punycode(host)}")
    labels = lowered.removeprefix("*.").split(".")
    if len(lowered) > _MAX_HOST or not all(_LABEL.match(label) for label in labels):
        raise ValueError(
            f"in {quoted(text)}, {quoted(host)} is not a host: expected a name as in "
            '"example.org", or "*.example.org" for every name under it'
        )
    return lowered


def _punycode(host: str) -> str:
    try:
        return f": {quoted(host.encode('idna').decode())}"
    except UnicodeError:
        return ""


def _path(path: str, text: str) -> tuple[str | None, bool]:
    """Return the path or the prefix of a route, and whether it is a prefix."""
    is_prefix = path.endswith("*")
    path = path.removesuffix("*")
    if "*" in path:
        raise ValueError(f'in {quoted(text)}, "*" can only stand at the end of the path')
    for sign, what in (("?", "a query"), ("#", "a fragment")):
        if sign in path:
            raise ValueError(f"in {quoted(text)}, the path has {what}: only paths are compared")
    if escape := _ESCAPE.search(path):
        raise ValueError(
            f"in {quoted(text)}, write the path decoded, without {quoted(escape[0])}: "
            "requests are compared as the app sees them"
        )
    if not path.isprintable():
        raise ValueError(f"in {quoted(text)}, the path holds a character that cannot be seen")
    if is_prefix and path == "/":
        return None, False
    return path, is_prefix


class Table(Generic[Value]):
    """Finds the value of the most specific route that fits a request."""

    def __init__(self, entries: Iterable[tuple[Route, Value]]) -> None:
        """Take the routes with their values, of which none is None. Of equal routes the first."""
        self._hosts: dict[str, _Hosts[Value]] = {"http": _Hosts(), "websocket": _Hosts()}
        most_specific_first = sorted(entries, key=lambda entry: entry[0].specificity, reverse=True)
        for route, value in most_specific_first:
            self._hosts[route.type].add(route, value)

    def match(self, type: str, host: bytes | str | None, path: str) -> Value | None:
        """Return the value of the route for a request, or None where no route fits.

        `type` is that of the ASGI scope, `host` the Host header as it came, `path` decoded.
        """
        hosts = self._hosts.get(type)
        if hosts is None:
            return None
        if host and (hosts.named or hosts.under):
            for paths in hosts.of(_name(host)):
                value = paths.match(path)
                if value is not None:
                    return value
        return hosts.any.match(path)


class _Hosts(Generic[Value]):
    """The routes of one type."""

    def __init__(self) -> None:
        self.any: _Paths[Value] = _Paths()
        self.named: dict[str, _Paths[Value]] = {}
        self.under: dict[str, _Paths[Value]] = {}  # by ".example.org", of "*.example.org"

    def add(self, route: Route, value: Value) -> None:
        if route.host is None:
            paths = self.any
        elif route.host.startswith("*"):
            paths = self.under.setdefault(route.host[1:], _Paths())
        else:
            paths = self.named.setdefault(route.host, _Paths())
        paths.add(route, value)

    def of(self, host: str) -> "Iterable[_Paths[Value]]":
        """Return what may fit a host, the most specific first."""
        if (paths := self.named.get(host)) is not None:
            yield paths
        if self.under:
            dot = host.find(".", 1)
            while dot > 0:
                if (paths := self.under.get(host[dot:])) is not None:
                    yield paths
                dot = host.find(".", dot + 1)


class _Paths(Generic[Value]):
    """The routes of one type and host. They are added with the longest prefixes first."""

    def __init__(self) -> None:
        self._exact: dict[str, Value] = {}
        self._prefixes: list[tuple[str, Value]] = []
        self._any: Value | None = None

    def add(self, route: Route, value: Value) -> None:
        if route.path is None:
            self._any = value if self._any is None else self._any
        elif route.is_prefix:
            self._prefixes.append((route.path, value))
        else:
            self._exact.setdefault(route.path, value)

    def match(self, path: str) -> Value | None:
        if self._exact and (value := self._exact.get(path)) is not None:
            return value
        for prefix, value in self._prefixes:
            if path.startswith(prefix):
                return value
        return self._any


def _name(host: bytes | str) -> str:
    """Return the name in a Host header: no port, small letters, no dot at the end."""
    if len(host) > _MAX_HOST + 7:  # a dot and a port
        return ""
    name = (host.decode("latin-1") if isinstance(host, bytes) else host).strip().lower()
    if name.startswith("["):
        end = name.find("]") + 1
        return (_ipv6(name[:end]) or "") if end else ""
    return name.partition(":")[0].removesuffix(".")


def _ipv6(literal: str) -> str | None:
    """Return an address in brackets in its one short form; None where it is none."""
    if not literal.endswith("]"):
        return None
    try:
        return f"[{ipaddress.IPv6Address(literal[1:-1]).compressed}]"
    except ValueError:
        return None
