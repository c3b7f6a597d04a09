"""How a scope, and the events that are not bare bytes, are written into payloads: MessagePack.

The encoding is that of msgspec; the decoder checks types, so that what a broken peer sends raises
DecodeError and nothing else.
"""

from collections.abc import Callable, MutableMapping
from typing import Annotated, Any, TypeVar

import msgspec

from chansup.errors import ChansupError
from chansup.handover.extension import EXTENSION
from chansup.relay.frames import MAX_PAYLOAD

Scope = MutableMapping[str, Any]
Headers = list[tuple[bytes, bytes]]
T = TypeVar("T")

# Of ASGI HTTP: when the client is gone, receive() says so and send() does nothing. As of 2.4
# frameworks rely on send() to raise, and an event stream that has no news never sends.
HTTP_SPECIFICATION = "2.3"
WEBSOCKET_SPECIFICATION = "2.4"  # send() raises OSError when the client is gone
MAX_SCOPE = 256 * 1024  # bytes
MAX_OPENING = MAX_SCOPE + 2 * MAX_PAYLOAD  # with a checkpoint, and what else a handover says
MAX_EVENT = 256 * 1024

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, section 9.2.1

# Extensions that the relay carries, and what an app sends when it uses them.
EXTENSIONS = {
    "http": frozenset(
        {"tls", "http.response.trailers", "http.response.early_hint", "http.response.push"}
    ),
    "websocket": frozenset({"tls", "websocket.http.response"}),
}


class HttpScope(msgspec.Struct, array_like=True):
    """The scope of a request, and when it arrived: CLOCK_MONOTONIC, in seconds."""

    arrived: float
    http_version: str
    method: str
    scheme: str
    path: str
    raw_path: bytes | None
    query_string: bytes
    root_path: str
    headers: Headers
    client: Any  # servers disagree about the types of addresses
    server: Any
    extensions: dict[str, Any] | None


class Resumption(msgspec.Struct, array_like=True):
    """Which WebSocket it is, and what the app is told of a handover.

    The latter is ``scope["extensions"]["chansup.handover"]``.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z.]{1,100}\Z")]  # at every worker
    count: int = 0  # handovers of this connection so far; 0: it is new
    reason: str | None = None  # "deploy" or "crash"
    checkpoint: Any = None  # what the app stored last: bytes or str


class WebSocketScope(msgspec.Struct, array_like=True):
    """The scope of a WebSocket, and when it arrived: CLOCK_MONOTONIC, in seconds."""

    arrived: float
    http_version: str
    scheme: str
    path: str
    raw_path: bytes | None
    query_string: bytes
    root_path: str
    headers: Headers
    client: Any  # servers disagree about the types of addresses
    server: Any
    subprotocols: list[str]
    extensions: dict[str, Any] | None


class ScopeError(ChansupError):
    """A scope that cannot be relayed."""


class Head(msgspec.Struct, array_like=True):
    """``http.response.start``."""

    status: int
    headers: Headers
    trailers: bool = False


# No type of MessagePack, lone surrogates, integers of more than 64 bits, what contains itself.
_UNFIT = (TypeError, UnicodeEncodeError, OverflowError, RecursionError)

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode


def _decoder(of: type[T]) -> Callable[[bytes], T]:
    decode = msgspec.msgpack.Decoder(of).decode

    def checked(payload: bytes) -> T:
        try:
            return decode(payload)
        except (UnicodeDecodeError, RecursionError) as error:
            raise msgspec.DecodeError(str(error)) from None

    return checked


decode_http = _decoder(HttpScope)
decode_websocket = _decoder(tuple[Resumption, WebSocketScope])
decode_head = _decoder(Head)
decode_accept: Callable[[bytes], tuple[str | None, Headers]]
decode_accept = _decoder(tuple[str | None, Headers])
decode_event = _decoder(dict[str, Any])
decode_checkpoint: Callable[[bytes], Any] = _decoder(object)
decode_websocket_scope = _decoder(WebSocketScope)


def encode_http(scope: Scope, arrived: float) -> bytes:
    """Return the scope of a request as a payload. Raises ScopeError."""
    get = scope.get
    extensions = get("extensions")
    try:
        return encode(
            (
                arrived,
                scope["http_version"],
                scope["method"],
                get("scheme", "http"),
                scope["path"],
                get("raw_path"),
                get("query_string", b""),
                get("root_path", ""),
                scope["headers"],
                get("client"),
                get("server"),
                carried("http", extensions) if extensions else None,
            )
        )
    except _UNFIT as error:
        raise ScopeError(str(error)) from None


def encode_websocket(scope: Scope, arrived: float) -> bytes:
    """Return the scope of a WebSocket as a part of a payload. Raises ScopeError."""
    get = scope.get
    extensions = get("extensions")
    try:
        return encode(
            (
                arrived,
                get("http_version", "1.1"),
                get("scheme", "ws"),
                scope["path"],
                get("raw_path"),
                get("query_string", b""),
                get("root_path", ""),
                scope["headers"],
                get("client"),
                get("server"),
                get("subprotocols") or [],
                carried("websocket", extensions) if extensions else None,
            )
        )
    except _UNFIT as error:
        raise ScopeError(str(error)) from None


def encode_head(event: MutableMapping[str, Any], trailers: bool) -> bytes:
    """Return the status and headers of ``http.response.start``. Raises TypeError."""
    headers = event.get("headers", ())
    if type(headers) is not list:
        headers = list(headers)
    return encode((event["status"], headers, trailers))


def opening(resumption: Resumption, scope: bytes) -> bytes:
    """Return the payload of OPEN: an array of two, so that the scope need not be encoded again."""
    return b"\x92" + encode(resumption) + scope


def carried(kind: str, extensions: MutableMapping[str, Any]) -> dict[str, Any]:
    """Return those of the server's extensions that the relay carries."""
    known = EXTENSIONS[kind]
    return {name: value for name, value in extensions.items() if name in known}


def _address(value: Any) -> Any:
    return tuple(value) if type(value) is list else value


def http_scope(fields: HttpScope, state: dict[str, Any] | None) -> dict[str, Any]:
    """Return the scope that the app gets."""
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": HTTP_SPECIFICATION},
        "http_version": fields.http_version,
        "server": _address(fields.server),
        "client": _address(fields.client),
        "scheme": fields.scheme,
        "method": fields.method,
        "root_path": fields.root_path,
        "path": fields.path,
        "query_string": fields.query_string,
        "headers": fields.headers,
    }
    if fields.raw_path is not None:
        scope["raw_path"] = fields.raw_path
    if fields.extensions is not None:
        scope["extensions"] = fields.extensions
    if state is not None:
        scope["state"] = state.copy()
    return scope


def websocket_scope(
    fields: WebSocketScope, resumption: Resumption, state: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the scope that the app gets."""
    handover = {
        "count": resumption.count,
        "reason": resumption.reason,
        "checkpoint": resumption.checkpoint,
    }
    scope: dict[str, Any] = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": WEBSOCKET_SPECIFICATION},
        "http_version": fields.http_version,
        "scheme": fields.scheme,
        "server": _address(fields.server),
        "client": _address(fields.client),
        "root_path": fields.root_path,
        "path": fields.path,
        "query_string": fields.query_string,
        "headers": fields.headers,
        "subprotocols": fields.subprotocols,
        "extensions": {**(fields.extensions or {}), EXTENSION: handover},
    }
    if fields.raw_path is not None:
        scope["raw_path"] = fields.raw_path
    if state is not None:
        scope["state"] = state.copy()
    return scope
