"""Runs a WSGI app where ASGI is spoken: a2wsgi, and what it leaves out about clients that leave.

a2wsgi takes the end of a connection for the end of the request's body, never notices that nobody
reads the response, and where sending fails its thread waits for ever. Here the app's thread hears
of it: reading raises, and no further part of the response is asked for.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextvars import ContextVar
from typing import Any

Environ = dict[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
WsgiApplication = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class ClientDisconnected(OSError):
    """The client left before it had sent the whole request."""

    def __init__(self) -> None:
        super().__init__("the client left before it had sent the whole request")


class _Exchange:
    """One request, as the server and the app's thread have it. `is_over`: the client is gone."""

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        self.is_over = False
        self._receive = receive
        self._send = send
        self._first: Message | None = None  # came before the app asked for it
        self._came = asyncio.Lock()  # one reads at a time
        self._complete = False  # the request
        self._watch: asyncio.Task[None] | None = None
        headers = (name.lower() for name, _ in scope["headers"])
        if b"expect" not in headers:  # such a client is to be asked for the body by the app alone
            self._watch = asyncio.create_task(self._watch_client())

    def end(self) -> None:
        """Let go of the server."""
        if self._watch is not None:
            self._watch.cancel()

    async def receive(self) -> Message:
        """Return the next part of the request. Raises ClientDisconnected."""
        async with self._came:
            message, self._first = self._first, None
            if message is None:
                message = await self._take()
        if message["type"] != "http.request":
            raise ClientDisconnected
        return message

    async def _take(self) -> Message:
        message = await self._receive()
        if message["type"] != "http.request":
            self.is_over = True
        elif not message.get("more_body", False):
            self._complete = True
            if self._watch is None or self._watch.done():
                self._watch = asyncio.create_task(self._watch_client())
        return message

    async def _watch_client(self) -> None:
        """Take the first part of the request, and wait for the client to go when all has come."""
        if not self._complete:
            async with self._came:
                self._first = await self._take()
        while self._complete and not self.is_over:
            self.is_over = (await self._receive())["type"] != "http.request"

    async def send(self, message: Message) -> None:
        """Send a part of the response, if there is somebody to send it to."""
        if self.is_over:
            return
        try:
            await self._send(message)
        except OSError:
            self.is_over = True


_current: ContextVar[_Exchange] = ContextVar("chansup_wsgi_exchange")


class Adapter:
    """An ASGI app that runs a WSGI app in threads."""

    def __init__(self, application: WsgiApplication, threads: int, middleware: Any) -> None:
        """`middleware`: a2wsgi's WSGIMiddleware."""
        self._middleware = middleware(_watched(application), workers=threads)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._middleware(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        _current.set(exchange)  # the thread runs in a copy of this context
        work = asyncio.ensure_future(self._middleware(scope, exchange.receive, exchange.send))
        try:
            await _finished(work, exchange)
        except ClientDisconnected:
            pass  # the app was told, and has no other answer
        finally:
            exchange.end()


async def _finished(work: "asyncio.Future[None]", exchange: _Exchange) -> None:
    """Wait for the app's thread, which cannot be cancelled: at first, it is asked to end."""
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        if work.done():
            raise
        exchange.is_over = True
        await asyncio.shield(work)


def _watched(application: WsgiApplication) -> WsgiApplication:
    def watched(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = application(environ, start_response)
        if isinstance(body, list | tuple):
            return body
        return _Body(body, _current.get())

    return watched


class _Body:
    """The parts of a response, as long as the client is there."""

    def __init__(self, body: Iterable[bytes], exchange: _Exchange) -> None:
        self._body = body
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        for part in self._body:
            yield part
            if self._exchange.is_over:
                return

    def close(self) -> None:
        """Close the app's body, as PEP 3333 obliges servers to."""
        close = getattr(self._body, "close", None)
        if close is not None:
            close()
