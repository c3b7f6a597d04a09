"""What an app sends, checked before anything of it is counted or leaves.

Each function returns values that the other side can read, or raises an exception that is the app's:
TypeError, ValueError or UnexpectedEvent. So a frame that cannot be read is never an app's doing.
"""

from collections.abc import Iterable, MutableMapping
from typing import Any

from chansup.handover import words
from chansup.handover.words import data, text, word
from chansup.protocol.sessions import HEADER
from chansup.relay import scopes

Message = MutableMapping[str, Any]

MAX_REASON = 123  # bytes of a reason for closing: RFC 6455, sections 5.5 and 5.5.1
NORMAL = 1000  # close code


def integer(value: Any, name: str, low: int, high: int) -> int:
    """Return `value`, an int or a kind of it, as a plain int."""
    if not isinstance(value, int):
        raise TypeError(f'"{name}": expected an int, not {type(value).__name__}')
    if not low <= value <= high:
        raise ValueError(f'"{name}": expected a number from {low} to {high}, not {value}')
    return int(value)


def headers(value: Iterable[Any] | None) -> scopes.Headers:
    """Return header fields as pairs of bytes."""
    pairs = []
    for name, content in value or ():
        pairs.append((data(name, "headers"), data(content, "headers")))
    return pairs


def payload_of(message: Message) -> tuple[bytes, bool]:
    """Return what ``websocket.send`` carries, and whether it is text."""
    said = message.get("text")
    if said is not None:
        return text(said, "text").encode(), True
    content = message.get("bytes")
    if content is None:
        raise ValueError('"websocket.send" has neither "text" nor "bytes"')
    return data(content, "bytes"), False


def accept(message: Message) -> bytes:
    """Return the subprotocol and the headers of ``websocket.accept``."""
    subprotocol = message.get("subprotocol")
    if subprotocol is not None:
        subprotocol = text(subprotocol, "subprotocol")
    pairs = headers(message.get("headers"))
    for name, value in pairs:
        if name.lower() == HEADER:
            word(value.strip().lower().decode("latin-1"), HEADER.decode())
    return _fitting(scopes.encode((subprotocol, pairs)), message)


def head(message: Message, trailers: bool = False) -> tuple[int, bytes]:
    """Return the status of a response, and the payload of it and of the headers."""
    status = message["status"]
    if type(status) is not int or not 100 <= status <= 999:
        status = integer(status, "status", 100, 999)
    try:
        # What is wrong in the headers is found by the other side: it costs this response only.
        encoded = scopes.encode_head(message, trailers)
    except TypeError:  # perhaps a kind of int or bytes that has no encoding of its own
        checked = {"status": status, "headers": headers(message.get("headers"))}
        encoded = scopes.encode_head(checked, trailers)
    return status, _fitting(encoded, message)


def denial(message: Message) -> bytes:
    """Return the payload of the status and the headers of ``websocket.http.response.start``."""
    checked = {**message, "headers": headers(message.get("headers"))}
    return head(checked)[1]


def extension(message: Message) -> bytes:
    """Return the payload of an event of an extension of HTTP."""
    kind = message["type"]
    event: dict[str, Any] = {"type": kind}
    if kind == "http.response.early_hint":
        event["links"] = [data(link, "links") for link in message.get("links") or ()]
    else:
        event["headers"] = headers(message.get("headers"))
        if kind == "http.response.push":
            event["path"] = text(message["path"], "path")
        else:
            event["more_trailers"] = bool(message.get("more_trailers", False))
    return _fitting(scopes.encode(event), message)


def close(message: Message) -> tuple[int, str]:
    """Return the code and the reason of ``websocket.close``."""
    code = message.get("code")
    code = NORMAL if code is None else integer(code, "code", 0, 65535)
    reason = text(message.get("reason") or "", "reason")
    return code, reason.encode()[:MAX_REASON].decode(errors="ignore")


def checkpoint(value: Any) -> bytes:
    """Return the payload of a checkpoint. It is a little larger than the checkpoint itself."""
    return scopes.encode(words.checkpoint(value))


def _fitting(payload: bytes, message: Message) -> bytes:
    if len(payload) > scopes.MAX_EVENT:
        raise ValueError(
            f'"{message["type"]}" of {len(payload)} bytes is larger than the relay carries: '
            f"at most {scopes.MAX_EVENT} bytes"
        )
    return payload
