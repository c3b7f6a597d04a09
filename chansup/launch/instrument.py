"""Counts what an ASGI app does, answers the health path, and hands the drain what it needs.

It stands in every request's way, so it is written for speed: one object per request, no task, no
extra coroutine per message, and `receive` untouched for HTTP.
"""

import asyncio
from asyncio import CancelledError, current_task
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from time import perf_counter
from typing import Any

from chansup.launch.traffic import Traffic
from chansup.protocol import scoreboard
from chansup.protocol.scoreboard import (
    DURATION_BOUNDS,
    DURATION_SUM,
    DURATIONS,
    IN_PROGRESS,
    METHODS,
    REJECTED_CELL,
    WEBSOCKETS_OPEN,
    WEBSOCKETS_OPENED,
    close_cell,
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

SERVICE_RESTART = 1012  # RFC 6455, section 7.4, as registered with IANA
_CLOSE_HEADER = (b"connection", b"close")
_FILE_BODIES = ("http.response.pathsend", "http.response.zerocopysend")


def instrument(
    application: Application,
    traffic: Traffic,
    cells: "memoryview[float]",
    health_path: str | None = None,
    root_path: str = "",
) -> Application:
    """Return the app, wrapped. Lifespan and unknown scopes pass straight through.

    `root_path` is for servers that put it before the path they were asked for.
    """
    health_paths = {health_path, root_path + health_path} if health_path else set()
    known_cells = {
        (method, status): scoreboard.request_cell(method, status)
        for method in METHODS
        for status in (0, 200, 201, 204, 206, 301, 302, 303, 304, 400, 401, 403, 404, 500)
    }
    held_requests = traffic.requests
    exchange_class = Exchange
    task_of_now = current_task
    clock = perf_counter

    async def instrumented(scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind != "http":
            if kind == "websocket":
                await _run_websocket(application, scope, receive, send, traffic, cells)
            else:
                await application(scope, receive, send)
            return
        if scope["path"] in health_paths and scope["method"] in ("GET", "HEAD"):
            await _answer_health(scope, send, traffic)
            return
        exchange = exchange_class(send, traffic, task_of_now(), scope)
        held_requests.add(exchange)
        cells[IN_PROGRESS] = len(held_requests)
        started = clock()
        try:
            await application(scope, receive, exchange.send)
        except CancelledError:
            if not exchange.is_cut:
                raise
            await exchange.finish()
        except Exception:
            if not exchange.status:
                exchange.status = 500  # is what every server answers then
            raise
        finally:
            held_requests.discard(exchange)
            duration = (exchange.ended or clock()) - started
            method, status = scope["method"], exchange.status
            cell = known_cells.get((method, status))
            cells[cell or scoreboard.request_cell(method, status)] += 1
            cells[DURATIONS + bisect_left(DURATION_BOUNDS, duration)] += 1
            cells[DURATION_SUM] += duration
            cells[IN_PROGRESS] = len(held_requests)
            if traffic.draining:
                traffic.released += 1

    return instrumented


class Exchange:
    """One HTTP request and its response."""

    __slots__ = ("_scope", "_send", "_start", "_task", "_traffic", "ended", "is_cut", "status")

    def __init__(
        self, send: Send, traffic: Traffic, task: "asyncio.Task[Any] | None", scope: Scope
    ) -> None:
        self._send = send
        self._traffic = traffic
        self._task = task
        self._scope = scope
        self._start: Message | None = None
        self.status = 0
        self.ended = 0.0  # perf_counter() when the response was complete
        self.is_cut = False

    def send(self, message: Message) -> Awaitable[None]:
        """Take one message from the app to the server."""
        kind = message["type"]
        if kind == "http.response.body":
            if not message.get("more_body"):
                self.ended = perf_counter()
        elif kind == "http.response.start":
            self.status = message["status"]
            if self._traffic.draining and self._scope["http_version"][0] == "1":
                message = {**message, "headers": closing_headers(message.get("headers", ()))}
            self._start = message
        elif kind in _FILE_BODIES:
            self.ended = perf_counter()
        return self._send(message)

    def cut(self) -> None:
        """Cancel the app's task; the response is then ended as honestly as can be."""
        if self._task is not None and not self.is_cut:
            self.is_cut = True
            self._task.cancel("the process ends")

    async def finish(self) -> None:
        """End the response after the app was cancelled.

        An event stream may end anywhere, and its client comes back. A response that has not begun
        becomes a 503. Whatever else is incomplete must look incomplete to the client, so the
        server is left to break it off.
        """
        if self.ended:
            return
        if self._start is None:
            await answer(self._scope, self.send, 503, b"restarting\n", [(b"retry-after", b"1")])
        elif _is_event_stream(self._start):
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            raise CancelledError("the process ends")


async def _answer_health(scope: Scope, send: Send, traffic: Traffic) -> None:
    if traffic.draining:
        await answer(scope, send, 503, b"draining\n", [_CLOSE_HEADER])
    else:
        await answer(scope, send, 200, b"ok\n", [])


async def answer(scope: Scope, send: Send, status: int, body: bytes, headers: Headers) -> None:
    """Send a whole response of plain text."""
    if scope["http_version"][0] != "1":
        headers = [header for header in headers if header != _CLOSE_HEADER]
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def closing_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the headers with "connection: close" instead of any other word on the connection."""
    kept = [(name, value) for name, value in headers if name.lower() != b"connection"]
    return [*kept, _CLOSE_HEADER]


def _is_event_stream(start: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream")
        for name, value in start.get("headers", ())
    )


async def _run_websocket(
    application: Application,
    scope: Scope,
    receive: Receive,
    send: Send,
    traffic: Traffic,
    cells: "memoryview[float]",
) -> None:
    websocket = WebSocket(receive, send, traffic, cells, current_task())
    traffic.websockets.add(websocket)
    try:
        await application(scope, websocket.receive, websocket.send)
    except CancelledError:
        if not websocket.is_cut:
            raise
    except Exception:
        websocket.code = websocket.code or 1011
        raise
    finally:
        traffic.websockets.discard(websocket)
        websocket.count_end()
        if traffic.draining:
            traffic.released += 1


class WebSocket:
    """One WebSocket between the app and the server."""

    __slots__ = (
        "_cells", "_closer", "_receive", "_send", "_task", "_traffic",
        "accepted", "code", "ended", "is_closing", "is_cut", "rejected",
    )  # fmt: skip

    def __init__(
        self,
        receive: Receive,
        send: Send,
        traffic: Traffic,
        cells: "memoryview[float]",
        task: "asyncio.Task[Any] | None",
    ) -> None:
        self._receive = receive
        self._send = send
        self._traffic = traffic
        self._cells = cells
        self._task = task
        self._closer: asyncio.Task[None] | None = None
        self.accepted = False
        self.rejected = False
        self.code = 0  # the close code, as soon as it is known
        self.ended = False  # the server has said websocket.disconnect
        self.is_closing = False  # the drain has closed it: what the app still sends goes nowhere
        self.is_cut = False

    async def receive(self) -> Message:
        """Take one message from the server to the app."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.ended = True
            self.code = self.code or message.get("code") or 1005
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Take one message from the app to the server."""
        if self.is_closing:
            return _nothing()
        kind = message["type"]
        if kind != "websocket.send":
            if kind == "websocket.accept":
                self._count_accept()
            elif kind == "websocket.close":
                if self.accepted:
                    self.code = self.code or message.get("code") or 1000
                else:
                    self.rejected = True
            elif kind == "websocket.http.response.start":
                self.rejected = True
        return self._send(message)

    def close(self) -> None:
        """Close it with 1012. The server then lets the app see websocket.disconnect."""
        if not self.is_closing and not self.ended and not self.code:
            self.is_closing = True
            self.code = SERVICE_RESTART
            self._closer = asyncio.get_running_loop().create_task(self._close())

    async def _close(self) -> None:
        try:
            await self._send(
                {"type": "websocket.close", "code": SERVICE_RESTART, "reason": "service restart"}
            )
        except Exception:  # noqa: S110 - the client was quicker
            pass

    def cut(self) -> None:
        """Cancel the app's task."""
        if self._task is not None and not self.is_cut:
            self.is_cut = True
            self._task.cancel("the process ends")

    def _count_accept(self) -> None:
        if not self.accepted:
            self.accepted = True
            self._cells[WEBSOCKETS_OPENED] += 1
            self._cells[WEBSOCKETS_OPEN] += 1

    def count_end(self) -> None:
        """Count how it ended, once the app has left it."""
        if self.accepted:
            self._cells[WEBSOCKETS_OPEN] -= 1
            self._cells[close_cell(self.code or 1006)] += 1
        else:
            self._cells[REJECTED_CELL] += 1


async def _nothing() -> None:
    return None
