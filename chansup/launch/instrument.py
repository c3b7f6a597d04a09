"""Counts what an ASGI app does, answers the health path, and hands the drain what it needs.

It stands in every request's way, so it is written for speed: one list and one `partial` per
request, no task, no extra coroutine per message, and `receive` untouched for HTTP.
"""

import asyncio
from asyncio import CancelledError, current_task
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import partial
from time import perf_counter
from typing import Any

from chansup.background import BackgroundTasks
from chansup.launch.in_flight import InFlight
from chansup.protocol.scoreboard import (
    DURATION_BOUNDS,
    DURATION_SUM,
    DURATIONS,
    METHODS,
    request_cell,
    websocket_ended,
    websocket_opened,
)
from chansup.protocol.sessions import word_of

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

Exchange = list[Any]  # one request and its response; nothing is made faster than a list
STATUS, ENDED, START, SCOPE = range(4)  # code, perf_counter(), http.response.start, scope

SERVICE_RESTART = 1012  # RFC 6455, section 7.4, as registered with IANA
_CLOSE_PATIENCE = 1.0  # seconds that a client has to answer a close frame
_CLOSE_HEADER = (b"connection", b"close")
_closing = BackgroundTasks()  # tell clients of WebSockets that their server ends
_FILE_BODIES = ("http.response.pathsend", "http.response.zerocopysend")


def instrument(
    application: Application,
    in_flight: InFlight,
    cells: "memoryview[float]",
    health_path: str | None = None,
    root_path: str = "",
    run_carried: Callable[[Application, Scope, Receive, Send], Awaitable[bool]] | None = None,
) -> Application:
    """Return the app, wrapped. Lifespan and unknown scopes pass straight through.

    `root_path` is for servers that put it before the path they were asked for. `run_carried` runs
    the app for a WebSocket that outlives this process, or says that it is none.
    """
    health_paths = {health_path, root_path + health_path} if health_path else set()
    # Looked up once: a hello-world app answers in 25 µs, and this must stay a small part of it.
    request_cells = _request_cells()
    clock = perf_counter
    shortest = DURATION_BOUNDS[0]

    def transmit(exchange: Exchange, send: Send, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if kind == "http.response.body":
            if "more_body" not in message or not message["more_body"]:
                exchange[ENDED] = clock()
        elif kind == "http.response.start":
            exchange[STATUS] = message["status"]
            if in_flight.draining and exchange[SCOPE]["http_version"][0] == "1":
                message = {**message, "headers": closing_headers(message.get("headers", ()))}
            exchange[START] = message
        elif kind in _FILE_BODIES:
            exchange[ENDED] = clock()
        return send(message)

    async def instrumented(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket" and in_flight.relays:
                await application(scope, receive, send)
            elif scope["type"] == "websocket":
                if run_carried is not None and await run_carried(application, scope, receive, send):
                    return
                await _run_websocket(application, scope, receive, send, in_flight, cells)
            else:
                await _pass_through(application, scope, receive, send)
            return
        if scope["path"] in health_paths and scope["method"] in ("GET", "HEAD"):
            await _answer_health(scope, send, in_flight)
            return
        exchange: Exchange = [0, 0.0, None, scope]
        in_flight.requests += 1
        began = clock()
        try:
            await application(scope, receive, partial(transmit, exchange, send))
        except CancelledError:
            if not in_flight.is_cut:
                raise
            if not exchange[ENDED]:
                await _end_response(scope, partial(transmit, exchange, send), exchange[START])
        except Exception:
            exchange[STATUS] = exchange[STATUS] or 500  # is what every server answers then
            raise
        finally:
            in_flight.requests -= 1
            duration = (exchange[ENDED] or clock()) - began
            cells[DURATION_SUM] += duration
            if duration <= shortest:
                cells[DURATIONS] += 1
            else:
                cells[DURATIONS + bisect_left(DURATION_BOUNDS, duration)] += 1
            try:
                cells[request_cells[scope["method"]][exchange[STATUS]]] += 1
            except KeyError:
                cells[request_cell(scope["method"], exchange[STATUS])] += 1
            if in_flight.draining:
                in_flight.released += 1

    in_flight.entrances.add(instrumented.__code__)
    in_flight.exempt.add(_pass_through.__code__)
    return instrumented


async def _pass_through(
    application: Application, scope: Scope, receive: Receive, send: Send
) -> None:
    await application(scope, receive, send)


def _request_cells() -> dict[str, dict[int, int]]:
    statuses = (0, *range(100, 600))
    return {
        method: {status: request_cell(method, status) for status in statuses}
        for method in METHODS[:-1]
    }


async def _end_response(scope: Scope, send: Send, start: Message | None) -> None:
    """End a response after the app was cancelled.

    An event stream may end anywhere, and its client comes back. A response that has not begun
    becomes a 503. Whatever else is incomplete must look incomplete to the client, so the server
    is left to break it off.
    """
    if start is None:
        await answer(scope, send, 503, b"restarting\n", [(b"retry-after", b"1")])
    elif _is_event_stream(start):
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    else:
        raise CancelledError("the process ends")


async def _answer_health(scope: Scope, send: Send, in_flight: InFlight) -> None:
    if in_flight.leaving:
        headers = [_CLOSE_HEADER] if in_flight.draining else []
        await answer(scope, send, 503, b"draining\n", headers)
    elif not in_flight.serves():
        await answer(scope, send, 503, b"no app worker\n", [])
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
    in_flight: InFlight,
    cells: "memoryview[float]",
) -> None:
    websocket = WebSocket(receive, send, in_flight, cells)
    in_flight.websockets.add(websocket)
    try:
        await application(scope, websocket.receive, websocket.send)
    except CancelledError:
        if not in_flight.is_cut:
            raise
    except Exception:
        websocket.code = websocket.code or 1011
        raise
    finally:
        in_flight.websockets.discard(websocket)
        websocket.count_end()
        if in_flight.draining:
            in_flight.released += 1


class WebSocket:
    """One WebSocket between the app and the server."""

    __slots__ = (
        "_cells",
        "_close_sent",
        "_in_flight",
        "_interrupted",
        "_receive",
        "_receivers",
        "_send",
        "accepted",
        "code",
        "ended",
        "is_closing",
        "rejected",
    )  # fmt: skip

    def __init__(
        self, receive: Receive, send: Send, in_flight: InFlight, cells: "memoryview[float]"
    ) -> None:
        self._receive = receive
        self._send = send
        self._in_flight = in_flight
        self._cells = cells
        self._receivers: set[asyncio.Task[Any] | None] = set()  # that wait in receive()
        self._interrupted = False
        self._close_sent = asyncio.Event()
        self.accepted = False
        self.rejected = False
        self.code = 0  # the close code, as soon as it is known
        self.ended = False  # the app was told websocket.disconnect
        self.is_closing = False  # the drain has closed it: what the app still sends goes nowhere

    async def receive(self) -> Message:
        """Take one message from the server to the app."""
        if self._interrupted:
            return await self._goodbye()
        task = current_task()
        self._receivers.add(task)
        try:
            message = await self._receive()
        except CancelledError:
            if not self._interrupted or task is None or task.uncancel():
                raise
            return await self._goodbye()
        finally:
            self._receivers.discard(task)
        if message["type"] == "websocket.disconnect":
            if self.is_closing:
                return await self._goodbye()
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
                if message.get("headers"):  # a word for chansup is for no client
                    _, headers = word_of(list(message["headers"]))
                    message = {**message, "headers": headers}
            elif kind == "websocket.close":
                if self.accepted:
                    self.code = self.code or message.get("code") or 1000
                else:
                    self.rejected = True
            elif kind == "websocket.http.response.start":
                self.rejected = True
        return self._send(message)

    @property
    def moves(self) -> bool:
        """Say no: it ends with this process."""
        return False

    def close(self) -> None:
        """Close it with 1012, and let the app see websocket.disconnect."""
        if not self.is_closing and not self.ended and not self.code:
            self.is_closing = True
            self.code = SERVICE_RESTART
            _closing.start(self._close())

    async def _close(self) -> None:
        if self._in_flight.receive_blocks_close:
            self._interrupt()
            await asyncio.sleep(0)  # the server's receive() lets go of the connection
        # The server says disconnect when the client has answered. Some clients never do.
        loop = asyncio.get_running_loop()
        impatience = loop.call_later(_CLOSE_PATIENCE, self._give_up_waiting)
        try:
            await self._send(
                {"type": "websocket.close", "code": SERVICE_RESTART, "reason": "service restart"}
            )
        except Exception:
            impatience.cancel()  # the client was quicker
            self._interrupt()
        self._close_sent.set()

    def _give_up_waiting(self) -> None:
        self._interrupt()
        self._close_sent.set()

    def _interrupt(self) -> None:
        """Have receive() say disconnect, whether the server does or not."""
        if not self.ended and not self._interrupted:
            self._interrupted = True
            for task in self._receivers:
                if task is not None:
                    task.cancel()

    async def _goodbye(self) -> Message:
        if self._in_flight.receive_blocks_close:
            # An app that heard it now would end, and the server close without a code.
            await self._close_sent.wait()
        self.ended = True
        return {
            "type": "websocket.disconnect",
            "code": SERVICE_RESTART,
            "reason": "service restart",
        }

    def _count_accept(self) -> None:
        if not self.accepted:
            self.accepted = True
            websocket_opened(self._cells)

    def count_end(self) -> None:
        """Count how it ended, once the app has left it."""
        websocket_ended(self._cells, self.accepted, self.code)


async def _nothing() -> None:
    return None
