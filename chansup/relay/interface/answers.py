"""What the relay itself answers, where there is no app to do it."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from chansup.relay.interface import error_pages

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

EXPLANATIONS = {  # of `relay_board.REJECTIONS`
    "full": "too many requests wait already",
    "late": "no worker was free in time",
    "no_worker": "there is no worker",
    "no_route": "nothing is served here any more",
}


async def answer(
    scope: Scope, send: Send, status: int, text: str, retry_after: int | None = None
) -> None:
    """Send a whole response, a page or plain text; to a WebSocket before its accept, a denial.

    `retry_after` is in seconds. A server that cannot deny by a response closes with 403.
    """
    accept = [value for name, value in scope.get("headers", ()) if name == b"accept"]
    content_type, body = error_pages.pages.body(status, text, accept)
    headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if retry_after is not None:
        headers.append((b"retry-after", str(retry_after).encode()))
    if scope["type"] == "http":
        prefix = "http"
        if scope["method"] == "HEAD":
            body = b""
    elif "websocket.http.response" in (scope.get("extensions") or ()):
        prefix = "websocket.http"
    else:
        await send({"type": "websocket.close", "code": 1013, "reason": text})
        return
    await send({"type": f"{prefix}.response.start", "status": status, "headers": headers})
    await send({"type": f"{prefix}.response.body", "body": body, "more_body": False})
