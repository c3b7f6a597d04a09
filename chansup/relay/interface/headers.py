"""What the relay reads in the header fields of a request or a handshake."""

from collections.abc import MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]


def has_body(scope: Scope) -> bool:
    """Whether a body comes, or may come: RFC 9112, section 6.3; HTTP/2 need not announce it."""
    if scope["http_version"][0] != "1":
        return True
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return True
    return False


def expects_continue(scope: Scope) -> bool:
    """Whether the client waits for leave to send the body: RFC 9110, section 10.1.1."""
    return any(
        name == b"expect" and value.lower() == b"100-continue" for name, value in scope["headers"]
    )


def host_of(headers: Any) -> bytes | None:
    """Return the Host header."""
    for name, value in headers:
        if name == b"host":
            host: bytes = value
            return host
    return None
