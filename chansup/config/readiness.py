"""When a process counts as ready, as `ready` says it.

======================  ========================================================================
``notify``              the process says so: ``READY=1`` to ``$NOTIFY_SOCKET``, see sd_notify(3)
``tcp:6379``            a TCP connection is accepted; also ``tcp:HOST:6379``. Host: 127.0.0.1
``http:8080/ping``      GET is answered with a status below 400; also ``http://HOST:8080/ping``
``unix:run/app.sock``   a connection to a Unix socket is accepted; relative to the working
                        directory of the process
``after:2s``            it still runs after that time; also ``after:500ms``
``accepts``             it takes a connection from the socket that it inherits: ``[interface]`` only
======================  ========================================================================

Servers and app workers say themselves when they are ready. They may be asked through the app:

======================  ========================================================================
``http:/health``        GET is answered by the app, in the process, with a status below 400; also
                        ``http://HOST/health``, for the Host header
======================  ========================================================================

Where `ready` is not given, the supervisor chooses: a program counts as ready after a moment.
"""

import re
import urllib.parse

import msgspec

from chansup.config import address
from chansup.config.keys import quoted

_FORMS = (
    'write "notify", "tcp:6379", "http:8080/ping", "unix:run/app.sock" or "after:2s"; '
    'for [interface] also "accepts"'
)
_HOST = re.compile(r"([A-Za-z0-9._-]*|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?\Z", re.ASCII)
_TIME = re.compile(r"(?P<number>[0-9]{1,9}(\.[0-9]{1,9})?)(?P<unit>ms|s)?\Z", re.ASCII)


class Notify(msgspec.Struct, frozen=True):
    """The process says that it is ready."""


class AcceptsTcp(msgspec.Struct, frozen=True):
    """A TCP port accepts connections."""

    host: str
    port: int


class AnswersHttp(msgspec.Struct, frozen=True):
    """A GET is answered with a status below 400."""

    host: str
    port: int
    target: str  # path and query: "/ping"


class AnswersThroughApp(msgspec.Struct, frozen=True):
    """The app answers a GET with a status below 400."""

    host: str  # of the Host header; empty: one that the app accepts
    target: str  # path and query: "/health"


class AcceptsUnix(msgspec.Struct, frozen=True):
    """A Unix socket accepts connections."""

    path: str  # absolute, or relative to the working directory of the process


class Accepts(msgspec.Struct, frozen=True):
    """The process takes a connection from the listening socket that it inherited."""


class After(msgspec.Struct, frozen=True):
    """The process still runs after some time."""

    seconds: float


Readiness = Notify | Accepts | AcceptsTcp | AnswersHttp | AcceptsUnix | After


def parse(text: str) -> Readiness:
    """Return what `text` asks for; ValueError says what is wrong with it."""
    kind, _, rest = text.partition(":")
    if text == "notify":
        return Notify()
    if text == "accepts":
        return Accepts()
    if kind == "after":
        return _after(rest)
    if kind == "unix" and rest:
        path = "/" + rest.lstrip("/") if rest.startswith("//") else rest
        return AcceptsUnix(path)
    if kind == "tcp":
        host, port = _place(rest.removeprefix("//"))
        return AcceptsTcp(host, port)
    if kind == "http":
        return _http(rest.removeprefix("//"))
    if kind == "https":
        raise ValueError('https cannot be asked: use "http:…" or "tcp:…" of the same port')
    raise ValueError(f"{quoted(text)} says nothing about readiness: {_FORMS}")


def parse_of_app(text: str) -> AnswersThroughApp:
    """Return what a server or an app worker is asked; ValueError says what is wrong with it."""
    kind, _, rest = text.partition(":")
    place, slash, path = rest.removeprefix("//").partition("/")
    if kind != "http" or not slash or place.isdigit():
        raise ValueError(
            f"{quoted(text)} cannot be asked of a server, which says itself when it is ready: "
            'remove it, or have the app asked for a page, "http:/health"'
        )
    if not _HOST.match(place):
        raise ValueError(
            f"{quoted(place)} is not a host: write {quoted(f'http://example.org/{path}')}"
        )
    return AnswersThroughApp(place, _target(path))


def _after(text: str) -> After:
    match = _TIME.match(text)
    if not match:
        raise ValueError(f'{quoted(text)} is not a time: write "after:2s" or "after:500ms"')
    return After(float(match["number"]) / (1000 if match["unit"] == "ms" else 1))


def _http(text: str) -> AnswersHttp:
    place, slash, path = text.partition("/")
    if not place or (not slash and "?" in place):
        raise ValueError(f'{quoted(text)} names no place: write "http:8080/ping"')
    host, port = _place(place, default_port=80)
    return AnswersHttp(host, port, _target(path))


def _target(path: str) -> str:
    return urllib.parse.quote("/" + path, safe="/?&=%:@!$'()*+,;~-._")


def _place(text: str, default_port: int | None = None) -> tuple[str, int]:
    """Return host and port of ``[host:]port``, or of ``host`` where a port has a default."""
    if default_port is not None and not text.isdigit() and not re.search(r":[0-9]+\Z", text):
        text = f"{text}:{default_port}"
    try:
        place = address.parse(text)
    except ValueError as error:
        raise ValueError(f"{error}; {_FORMS}" if _FORMS not in str(error) else str(error)) from None
    if not isinstance(place, address.Tcp) or place.port == 0:
        raise ValueError(f"{quoted(text)} is not a port to connect to: {_FORMS}")
    wildcards = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # to listen on, not to connect to
    return wildcards.get(place.host, place.host), place.port
