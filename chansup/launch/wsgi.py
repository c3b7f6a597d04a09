"""Counts what a WSGI app does, and answers the health path, for servers that speak WSGI natively.

Several threads may be at work, so they count under a lock.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any

from chansup.launch.child import Child
from chansup.protocol.scoreboard import (
    DURATION_BOUNDS,
    DURATION_SUM,
    DURATIONS,
    IN_PROGRESS,
    request_cell,
)

Environ = dict[str, Any]
WsgiApplication = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


def instrument_wsgi(application: WsgiApplication, child: Child) -> WsgiApplication:
    """Return the app, wrapped."""
    counters = _Counters(child)
    health_path = child.launch.health_path

    def instrumented(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if child.in_flight.draining and environ["SERVER_PROTOCOL"].startswith("HTTP/1"):
            start_response = _closing(start_response)
        if health_path is not None and _path(environ) == health_path:
            return _answer_health(environ, start_response, child)
        return _run(application, environ, start_response, counters)

    return instrumented


def _closing(start_response: Callable[..., Any]) -> Callable[..., Any]:
    """Have the response say that its connection closes; servers that decide alone ignore it."""

    def start(status: str, headers: list[tuple[str, str]], *arguments: Any) -> Any:
        kept = [(name, value) for name, value in headers if name.lower() != "connection"]
        return start_response(status, [*kept, ("Connection", "close")], *arguments)

    return start


def _path(environ: Environ) -> str:
    return str(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))


def _answer_health(
    environ: Environ, start_response: Callable[..., Any], child: Child
) -> Iterable[bytes]:
    draining = child.in_flight.leaving
    body = b"draining\n" if draining else b"ok\n"
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    ]
    start_response("503 Service Unavailable" if draining else "200 OK", headers)
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]


class _Counters:
    """The cells and the traffic, for several threads."""

    def __init__(self, child: Child) -> None:
        self._cells = child.cells
        self._in_flight = child.in_flight
        self._lock = threading.Lock()

    def begin(self) -> None:
        with self._lock:
            self._in_flight.requests += 1
            self._cells[IN_PROGRESS] = self._in_flight.requests

    def end(self, method: str, status: int, duration: float) -> None:
        with self._lock:
            self._in_flight.requests -= 1
            self._in_flight.released += 1
            self._cells[IN_PROGRESS] = self._in_flight.requests
            self._cells[request_cell(method, status)] += 1
            self._cells[DURATIONS + bisect_left(DURATION_BOUNDS, duration)] += 1
            self._cells[DURATION_SUM] += duration


def _run(
    application: WsgiApplication,
    environ: Environ,
    start_response: Callable[..., Any],
    counters: _Counters,
) -> Iterable[bytes]:
    began = perf_counter()
    status = 0

    def start(line: str, *arguments: Any) -> Any:
        nonlocal status
        status = int(line[:3])
        return start_response(line, *arguments)

    def end() -> None:
        counters.end(environ["REQUEST_METHOD"], status, perf_counter() - began)

    counters.begin()
    try:
        body = application(environ, start)
    except Exception:
        status = 500  # is what every server answers then
        end()
        raise
    except BaseException:
        end()
        raise
    if isinstance(body, (list, tuple, environ.get("wsgi.file_wrapper", list))):
        # Complete, or better left to the server, which may use sendfile(2).
        end()
        return body
    return _Body(body, end)


class _Body:
    """A response body that says when the server has finished with it."""

    def __init__(self, body: Iterable[bytes], end: Callable[[], None]) -> None:
        self._body = body
        self._end: Callable[[], None] | None = end

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """Close the app's body; PEP 3333 obliges servers to call this."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            end, self._end = self._end, None
            if end is not None:
                end()
