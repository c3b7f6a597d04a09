"""One interface process, as the worker sees it: its connection, its permits, its streams."""

import logging
import socket
import traceback
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

import msgspec

from chansup.relay import scopes
from chansup.relay.appworker.exchange import SAFE_METHODS, Exchange
from chansup.relay.appworker.websocket import WebSocket
from chansup.relay.credits import Budget
from chansup.relay.frames import MORE, PROTOCOL, Frame, FrameError, Kind, pack
from chansup.relay.link import Link

if TYPE_CHECKING:
    from chansup.relay.appworker.server import AppWorker

_log = logging.getLogger("chansup.relay")


class Interface:
    """What one interface process has in this worker."""

    def __init__(self, worker: "AppWorker", sock: socket.socket) -> None:
        self.worker = worker
        self.loop = worker.loop
        self.books = worker.books
        self.budget = Budget()
        self.name = "an interface process"
        self.greeted = False
        self._streams: dict[int, Exchange | WebSocket] = {}
        self._scopes: dict[int, list[bytes]] = {}  # that are not complete yet
        self._last = 0  # the newest stream
        self.link = Link(sock, self.loop, self.take, self.lost)
        self.link.send(pack(Kind.HELLO, 0, 0, 0, scopes.encode(worker.hello)))

    # What comes

    def take(self, frames: list[Frame]) -> None:
        """Take what was read. Raises FrameError."""
        streams = self._streams
        for frame in frames:
            kind = frame.kind
            if kind == Kind.REQUEST:
                self._begin_exchange(frame)
            elif kind == Kind.OPEN:
                self._begin_websocket(frame)
            elif frame.stream:
                stream = streams.get(frame.stream)
                if stream is not None:
                    stream.take(frame)
                elif frame.stream > self._last or frame.stream in self._scopes:
                    raise FrameError(f"a frame of stream {frame.stream}, which was never begun")
            else:
                self._take_own(frame)

    def _take_own(self, frame: Frame) -> None:
        if frame.kind == Kind.HELLO and not self.greeted:
            self._greet(frame)
        elif not self.greeted:
            raise FrameError("no greeting: the other side is no relay")
        elif frame.kind == Kind.NEED:
            self.worker.give(self.worker.permits.need(self, frame.number))
        elif frame.kind == Kind.RETURN:
            try:
                self.worker.give(self.worker.permits.returned(self, frame.number))
            except ValueError as error:
                raise FrameError(str(error)) from None
        else:
            raise FrameError(f"a frame of kind {frame.kind}")

    def _greet(self, frame: Frame) -> None:
        try:
            hello = scopes.decode_hello(frame.payload)
        except msgspec.DecodeError as error:
            raise FrameError(f"no greeting: {error}") from None
        if hello.protocol != PROTOCOL:
            raise FrameError(f"it speaks version {hello.protocol} of the relay, we {PROTOCOL}")
        self.name = hello.name
        self.greeted = True
        self.worker.joined(self)

    def _scope(self, frame: Frame) -> bytes | None:
        """Return the scope that `frame` completes, or None."""
        if not self.greeted:
            raise FrameError("no greeting: the other side is no relay")
        stream = frame.stream
        parts = self._scopes.get(stream)
        if parts is None:
            if stream <= self._last:
                raise FrameError(f"stream {stream} after stream {self._last}")
            self._last = stream
            if not frame.flags & MORE:
                return frame.payload
            self._scopes[stream] = [frame.payload]
            return None
        parts.append(frame.payload)
        if len(parts) * len(parts[0]) > scopes.MAX_SCOPE:
            raise FrameError("a scope that is too large")
        if frame.flags & MORE:
            return None
        del self._scopes[stream]
        return b"".join(parts)

    def _begin_exchange(self, frame: Frame) -> None:
        payload = self._scope(frame)
        if payload is None:
            return
        try:
            fields = scopes.decode_http(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FrameError(f"no scope of a request: {error}") from None
        exchange = Exchange(self, frame.stream, frame.flags, fields, self.worker.state)
        self._streams[frame.stream] = exchange
        self.books.count_arrival()
        if fields.method in SAFE_METHODS:
            self._start(exchange)
        else:
            # Before the app is called, so that nobody else tries it again.
            self.link.send(pack(Kind.RECEIVED, 0, frame.stream, 0))
            if self.link.flush():
                self._start(exchange)
            else:
                exchange.task = self.loop.create_task(self._start_later(exchange))

    async def _start_later(self, exchange: Exchange) -> None:
        await self.link.flushed()
        await exchange.run(self.worker.application)

    def _begin_websocket(self, frame: Frame) -> None:
        payload = self._scope(frame)
        if payload is None:
            return
        try:
            resumption, fields = scopes.decode_websocket(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FrameError(f"no scope of a WebSocket: {error}") from None
        websocket = WebSocket(
            self, frame.stream, frame.number, resumption, fields, self.worker.state
        )
        self._streams[frame.stream] = websocket
        self._start(websocket)

    def _start(self, stream: Exchange | WebSocket) -> None:
        stream.task = self.loop.create_task(stream.run(self.worker.application))

    # What ends

    def ended(self, stream: int) -> None:
        """Forget a stream whose app has returned."""
        one = self._streams.pop(stream, None)
        if self.link.closed and isinstance(one, Exchange):
            self.worker.give(self.worker.permits.end())

    def lost(self, reason: str) -> None:
        """Take notice that the interface process is gone."""
        for stream in list(self._streams.values()):
            stream.lose()
        requests = sum(isinstance(stream, Exchange) for stream in self._streams.values())
        self.worker.left(self, requests, reason)

    def cut(self) -> None:
        """Cancel what the app still does."""
        for stream in list(self._streams.values()):
            if stream.task is not None:
                stream.task.cancel("the process ends")

    @property
    def streams(self) -> int:
        """How many streams it has here."""
        return len(self._streams)

    def report(self, scope: MutableMapping[str, Any], error: Exception) -> None:
        """Write the traceback of an app that raised."""
        kind = "WebSocket" if scope["type"] == "websocket" else scope["method"]
        lines = "".join(traceback.format_exception(error)).rstrip()
        _log.error("%s %s: the app raised:\n%s", kind, scope["path"], lines)
