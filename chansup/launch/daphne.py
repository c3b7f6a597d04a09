"""Runs daphne in this process."""

# First, as it installs Twisted's asyncio reactor.
import daphne.server

import asyncio  # isort: skip
import importlib.metadata
import logging
import re
import socket
import sys
from collections.abc import Mapping
from typing import Any

import daphne.http_protocol
import daphne.ws_protocol
import twisted.internet.endpoints
import twisted.internet.tcp
from daphne.access import AccessLogGenerator
from daphne.server import Server
from twisted.internet import defer, unix
from twisted.protocols.tls import TLSMemoryBIOFactory

from chansup.launch import application, heartbeat, options, reserved_options, retirement
from chansup.launch.child import Child
from chansup.launch.instrument import instrument
from chansup.launch.options import OptionProblem
from chansup.launch.retirement import Retirement

PACKAGE = "daphne"
RESERVED_OPTIONS = {
    "application": reserved_options.APPLICATION,
    "endpoints": reserved_options.BIND,
    "endpoint": reserved_options.BIND,
    "bind": reserved_options.BIND,
    "host": reserved_options.BIND,
    "port": reserved_options.BIND,
    "unix_socket": reserved_options.BIND,
    "fd": reserved_options.BIND,
    "ready_callable": reserved_options.HEARTBEAT,
    "signal_handlers": reserved_options.DRAIN,
    "action_logger": 'set access_log = "-" instead',
}
# Those of the command line and of daphne.server.Server, and Twisted's names for TLS.
KNOWN: dict[str, object] = {
    "access_log": str,
    "application_close_timeout": int,
    "certKey": str,
    "extraCertChain": str,
    "http_timeout": int,
    "log_fmt": str,
    "no_server_name": bool,
    "ping_interval": int,
    "ping_timeout": int,
    "privateKey": str,
    "proxy_forwarded_address_header": str,
    "proxy_forwarded_port_header": str,
    "proxy_forwarded_proto_header": str,
    "proxy_headers": bool,
    "proxy_headers_host": str,
    "proxy_headers_port": str,
    "request_buffer_size": int,
    "root_path": str,
    "server_name": str,
    "verbosity": int,
    "websocket_connect_timeout": int,
    "websocket_handshake_timeout": int,
    "websocket_max_frame_size": int,
    "websocket_max_message_size": int,
    "websocket_timeout": int,
}
_OURS = (
    "access_log", "certKey", "extraCertChain", "log_fmt", "no_server_name", "privateKey",
    "proxy_headers", "proxy_headers_host", "proxy_headers_port",
)  # fmt: skip
_ENDS_HEADER = re.compile(rb"[\r\n\0]")
_LOG_LEVELS = {0: logging.WARNING, 1: logging.INFO}


def version() -> str:
    """Return the name and version of the server."""
    return f"daphne {importlib.metadata.version('daphne')}"


def check(given: Mapping[str, object], gateway: str) -> list[OptionProblem]:
    """Return the options that daphne does not take."""
    problems = options.check(given, KNOWN, RESERVED_OPTIONS, "daphne")
    if "certKey" in given and "privateKey" not in given:
        problems.append(OptionProblem("certKey", "TLS needs privateKey, too"))
    for name in ("proxy_headers_host", "proxy_headers_port"):
        if name in given and not given.get("proxy_headers"):
            problems.append(OptionProblem(name, "needs proxy_headers = true"))
    return problems


reactor: Any = daphne.server.reactor


_lose_port: Any = twisted.internet.tcp.Port.connectionLost


_TwistedUnixPort: Any = unix.Port  # Twisted is typed in parts


class _UnixPort(_TwistedUnixPort):  # type: ignore[misc]
    """A Unix listener that leaves socket and file alone, as others keep listening there."""

    _shouldShutdown = False  # noqa: N815 - Twisted's name
    _preexistingSocket: Any  # noqa: N815

    def startListening(self) -> None:  # noqa: N802
        # Twisted's own would bind, and give the file a mode that anybody can connect with.
        self.factory.doStart()
        self.socket, self._preexistingSocket = self._preexistingSocket, None
        self.fileno = self.socket.fileno
        self.connected = True
        self.numberAccepts = 100  # at a time, then others get their turn
        self.startReading()

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        _lose_port(self, reason)


_adopt_unix: Any = _UnixPort._fromListeningDescriptor


class _Endpoint:
    """A Twisted endpoint for a listener that was inherited."""

    def __init__(self, listener: socket.socket, tls: Any) -> None:
        self._listener = listener
        self._tls = tls

    def listen(self, factory: Any) -> Any:
        if self._tls is not None:
            factory = TLSMemoryBIOFactory(self._tls, False, factory)
        descriptor, family = self._listener.fileno(), self._listener.family
        if family == socket.AF_UNIX:
            port: Any = _adopt_unix(reactor, descriptor, factory)
            port.startListening()
        else:
            port = reactor.adoptStreamPort(descriptor, family, factory)
        return defer.succeed(port)


def serve(child: Child) -> int:
    """Run the server until it was drained. Return the exit code."""
    given = dict(child.launch.options)
    loop = daphne.server.twisted_loop
    asyncio.set_event_loop(loop)
    logging.basicConfig(
        level=_LOG_LEVELS.get(given.get("verbosity", 0), logging.DEBUG),  # type: ignore[call-overload]
        format=str(given.get("log_fmt", "%(asctime)-15s %(levelname)-8s %(message)s")),
    )
    app = application.load_asgi(child)
    if child.warm_up is not None:  # daphne runs no lifespan, in which it would ask
        loop.run_until_complete(child.warm_up.ask({}))
    app = instrument(app, child.in_flight, child.cells, child.launch.health_path)
    tls = _tls(given)
    endpoints = {f"inherited:{listener.fileno()}": listener for listener in child.sockets()}
    daphne.server.serverFromString = lambda _reactor, name: _Endpoint(endpoints[name], tls)
    _allow_every_close_code()
    _send_empty_messages()
    _send_headers_of_accept()
    _break_off_what_has_begun()
    _close_when_draining(child)
    server = Server(
        app, list(endpoints), signal_handlers=False, action_logger=_access_log(given),
        **_server_arguments(given),
    )  # fmt: skip
    loop.call_soon(heartbeat.start, child, loop)
    retirement.when_accepting(Retirement(child, server.stop), loop)
    server.run()
    return 1 if server.abort_start else 0


def _server_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Translate what only the command line knows, as daphne.cli does."""
    arguments = {name: value for name, value in given.items() if name not in _OURS}
    arguments.setdefault("verbosity", 0)
    if "websocket_connect_timeout" in given:
        arguments.setdefault("websocket_handshake_timeout", given["websocket_connect_timeout"])
    if given.get("no_server_name"):
        arguments["server_name"] = ""
    if given.get("proxy_headers"):
        host = given.get("proxy_headers_host", "X-Forwarded-For")
        port = given.get("proxy_headers_port", "X-Forwarded-Port")
        arguments.setdefault("proxy_forwarded_address_header", host)
        arguments.setdefault("proxy_forwarded_port_header", port)
        arguments.setdefault("proxy_forwarded_proto_header", "X-Forwarded-Proto")
    return arguments


def _access_log(given: Mapping[str, Any]) -> Any:
    target = given.get("access_log")
    if not target:
        return None
    stream = sys.stdout if target == "-" else open(target, "a", 1)  # noqa: SIM115 - for good
    return AccessLogGenerator(stream)


def _tls(given: Mapping[str, Any]) -> Any:
    if "privateKey" not in given:
        return None
    # As twisted.internet.endpoints does for "ssl:privateKey=…:certKey=…:extraCertChain=…".
    parse: Any = twisted.internet.endpoints._parseSSL
    names = ("privateKey", "certKey", "extraCertChain")
    tls = {name: given[name] for name in names if name in given}
    (_port, _factory, context), _others = parse(None, "0", **tls)
    return context


def _allow_every_close_code() -> None:
    """Let a WebSocket close with 1012.

    Autobahn refuses codes below 3000 other than 1000, though RFC 6455 leaves them to endpoints.
    """

    def server_close(self: Any, code: int | None = None) -> None:
        code = 1000 if code is None else code
        if code == 1000 or code >= 3000:
            self.sendClose(code=code)
        elif self.state == self.STATE_OPEN:
            self.sendCloseFrame(code=code, isReply=False)

    daphne.ws_protocol.WebSocketProtocol.serverClose = server_close


def _send_empty_messages() -> None:
    """Have an empty text or empty bytes reach the client: daphne takes them for nothing."""
    original = daphne.ws_protocol.WebSocketProtocol.handle_reply

    def handle_reply(self: Any, message: Any) -> None:
        text, data = message.get("text"), message.get("bytes")
        is_empty = not text and not data and (text is not None or data is not None)
        if message.get("type") == "websocket.send" and is_empty:
            if self.state == self.STATE_CONNECTING:
                raise ValueError("Socket has not been accepted, so cannot send over it")
            self.serverSend("" if text is not None else b"", text is None)
        else:
            original(self, message)

    daphne.ws_protocol.WebSocketProtocol.handle_reply = handle_reply


def _send_headers_of_accept() -> None:
    """Have the headers of websocket.accept reach the client: daphne drops them."""
    original = daphne.ws_protocol.WebSocketProtocol.handle_reply

    def handle_reply(self: Any, message: Any) -> None:
        headers = message.get("headers")
        if message.get("type") != "websocket.accept" or not headers:
            original(self, message)
            return
        by_name: dict[str, list[str]] = {}
        for name, value in headers:
            if _ENDS_HEADER.search(name + value):
                raise ValueError(f"invalid header of websocket.accept: {name!r}: {value!r}")
            by_name.setdefault(name.decode("latin-1"), []).append(_as_autobahn_writes(value))
        self.serverAccept((message.get("subprotocol"), by_name))  # as autobahn's onConnect has it

    daphne.ws_protocol.WebSocketProtocol.handle_reply = handle_reply


def _as_autobahn_writes(value: bytes) -> str:
    """Return the text that is `value` in UTF-8, the encoding that autobahn writes."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _break_off_what_has_begun() -> None:
    """Have a client see that a response is incomplete, when the app raises in the middle of it.

    Daphne would try to begin an error page, fail, and leave the connection hanging.
    """
    original = daphne.http_protocol.WebRequest.handle_exception

    def handle_exception(self: Any, exception: BaseException) -> None:
        if self._response_started and self.channel is not None:
            self.channel.forceAbortClient()
        else:
            original(self, exception)

    daphne.http_protocol.WebRequest.handle_exception = handle_exception


def _close_when_draining(child: Child) -> None:
    """Have daphne's own side end a connection after a response that says so.

    Twisted decides at the request whether a connection persists, whatever the response says.
    """
    original = daphne.http_protocol.WebRequest.handle_reply
    in_flight = child.in_flight

    def handle_reply(self: Any, message: Any) -> None:
        if in_flight.draining and self.channel is not None:
            self.channel.persistent = False
        original(self, message)

    daphne.http_protocol.WebRequest.handle_reply = handle_reply
