"""One request and its response, as an ASGI application sees them (ASGI HTTP 2.3)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

CLOSE = (b"connection", b"close")

logger = logging.getLogger(__name__)


async def respond(
    send: Send,
    status: int,
    body: bytes,
    content_type: bytes = b"application/json",
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send one whole response."""
    head = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


class Writer(Protocol):
    """What an exchange asks of its connection."""

    async def drained(self) -> None:
        """Wait until the client has read enough of what was sent."""

    def write_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head of the response."""

    def write_body(self, data: bytes) -> None:
        """Send a part of the body; not even its length for HEAD."""

    def end_response(self) -> None:
        """Send the end of the body, and see to what comes next."""

    def give_up(self) -> None:
        """End the connection after what was written."""


class Exchange:
    """One request and its response. Its connection answers the next one when it is `complete`."""

    def __init__(self, scope: Scope, writer: Writer) -> None:
        self.scope = scope
        self.started = False  # the head of the response is written
        self.complete = False  # all of the response is
        self._writer = writer
        self._over = asyncio.Event()  # complete, or the client has left
        self._left = False
        self._asked = False  # for the request's body, which is empty

    async def run(self, app: Application) -> None:
        """Let the application answer; whatever it does, the client learns of the end."""
        try:
            await app(self.scope, self.receive, self.send)
            if not self.complete and not self._left:
                raise RuntimeError("the application returned without a whole response")
        except Exception:
            logger.exception("Exception in %s %s", self.scope["method"], self.scope["path"])
            if not self.started:
                body = b"Internal Server Error"
                await respond(self.send, 500, body, b"text/plain; charset=utf-8", [CLOSE])
        finally:
            if not self.complete:
                self._writer.give_up()

    def client_left(self) -> None:
        """Hear that nobody reads the response any more."""
        self._left = True
        self._over.set()

    def client_finished(self) -> None:
        """Hear that the client sends nothing more: it may have left, or wait for the response."""
        self._over.set()

    async def receive(self) -> dict[str, Any]:
        """Return the request's body, which is empty, and after that wait for the end."""
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        """Send a part of the response; nothing to a client that has left.

        Raises RuntimeError for a message out of turn, h11.LocalProtocolError for a response that
        HTTP does not allow.
        """
        await self._writer.drained()
        if self._left:
            return
        expected = "http.response.body" if self.started else "http.response.start"
        if self.complete or message["type"] != expected:
            raise RuntimeError(f"{message['type']} out of turn")
        if not self.started:
            self.started = True
            self._writer.write_head(message["status"], list(message.get("headers", ())))
            return
        if body := message.get("body", b""):
            self._writer.write_body(body)
        if not message.get("more_body", False):
            self.complete = True
            self._over.set()
            self._writer.end_response()
