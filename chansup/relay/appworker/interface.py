"""One interface process, as the worker sees it: its connection, its permits, its streams."""

import asyncio
import logging
import socket
from collections.abc import MutableMapping
from typing import Any, Protocol

import msgspec

from chansup.log_lines import LINES, traceback_of
from chansup.relay import greeting, scopes
from chansup.relay.appworker.context import WorkerContext
from chansup.relay.appworker.counters import Counters
from chansup.relay.appworker.exchange import Exchange
from chansup.relay.appworker.permits import Order, Permits
from chansup.relay.appworker.websocket import WebSocket
from chansup.relay.credits import Budget
from chansup.relay.frames import FAILED, MORE, PROTOCOL, Frame, FrameError, Kind, pack
from chansup.relay.greeting import Hello
from chansup.relay.link import Link

_log = logging.getLogger("chansup.relay")


class InterfaceContext(WorkerContext, Protocol):
    """The worker, as it is seen by what it has of an interface process."""

    application: Any
    counters: Counters
    hello: Hello
    loop: asyncio.AbstractEventLoop
    permits: Permits
    state: dict[str, Any] | None

    def give(self, orders: list[Order]) -> None:
        """Tell interfaces of permits."""

    def joined(self, interface: "Interface") -> None:
        """Take notice that an interface has said who it is."""

    def left(self, interface: "Interface", still_used: int) -> None:
        """Take notice that an interface is gone."""


class Interface:
    """What one interface process has in this worker."""

    def __init__(self, worker: InterfaceContext, sock: socket.socket) -> None:
        self.worker = worker
        self.loop = worker.loop
        self.counters = worker.counters
        self.budget = Budget()
        self.name = "an interface process"
        self.greeted = False
        self.protocol = PROTOCOL  # that both sides speak
        self._is_gone = False  # its permits were taken back
        self._streams: dict[int, Exchange | WebSocket] = {}
        self._scopes: dict[int, list[bytes]] = {}  # that are not complete yet
        self._last = 0  # the newest stream
        self.link = Link(sock, self.loop, self.take, self.lost)
        self.link.send_control(pack(Kind.HELLO, 0, 0, 0, greeting.encode(worker.hello)))

    # What comes

    def take(self, frames: list[Frame]) -> None:
        """Take what was read. Raises FrameError."""
        streams = self._streams
        for kind, flags, place, number, payload in frames:
            if self.link.closed:
                return
            if kind == Kind.REQUEST:
                self._begin_exchange(flags, place, payload)
            elif kind == Kind.OPEN:
                self._begin_websocket(flags, place, number, payload)
            elif place:
                stream = streams.get(place)
                if stream is not None:
                    stream.take(kind, flags, number, payload)
                elif self._is_new(place) or place in self._scopes:
                    raise FrameError(f"a frame of stream {place}, which was never begun")
            else:
                self._take_own(kind, number, payload)

    def _take_own(self, kind: int, number: int, payload: bytes) -> None:
        if kind == Kind.HELLO and not self.greeted:
            self._greet(payload)
        elif not self.greeted:
            raise FrameError("no greeting: the other side is not a relay")
        elif kind == Kind.NEED:
            self.worker.give(self.worker.permits.need(self, number))
        elif kind == Kind.RETURN:
            try:
                self.worker.give(self.worker.permits.returned(self, number))
            except ValueError as error:
                raise FrameError(str(error)) from None
        else:
            raise FrameError(f"a frame of kind {kind}")

    def _greet(self, payload: bytes) -> None:
        agreed = greeting.answer_to(payload, self.worker.hello)
        self.name, self.protocol = agreed.name, agreed.protocol
        self.greeted = True
        self.worker.joined(self)

    def _is_new(self, place: int) -> bool:
        """Whether a stream of this number was not begun yet: numbers come round (RFC 1982)."""
        return 0 < (place - self._last) % 2**32 < 2**31 and place not in self._streams

    def _scope(self, flags: int, place: int, payload: bytes) -> bytes | None:
        """Return the scope that a frame completes, or None."""
        if not self.greeted:
            raise FrameError("no greeting: the other side is not a relay")
        parts = self._scopes.get(place) if self._scopes else None
        if parts is None:
            if not self._is_new(place):
                raise FrameError(f"stream {place} after stream {self._last}")
            self._last = place
            if not flags & MORE:
                return payload
            self._scopes[place] = [payload]
            return None
        parts.append(payload)
        if sum(map(len, parts)) > scopes.MAX_OPENING:
            raise FrameError("a scope that is too large")
        if flags & MORE:
            return None
        del self._scopes[place]
        return b"".join(parts)

    def _begin_exchange(self, flags: int, place: int, payload: bytes) -> None:
        scope = self._scope(flags, place, payload)
        if scope is None:
            return
        try:
            fields = scopes.decode_http(scope)
        except msgspec.DecodeError as error:
            self._refuse(place, error)
            return
        exchange = Exchange(self, place, flags, fields, self.worker.state)
        self._streams[place] = exchange
        self.counters.count_arrival()
        if fields.method in scopes.SAFE_METHODS:
            self._start(exchange)
            return
        # Before the app is called, so that nobody else tries it again.
        self.link.send(pack(Kind.RECEIVED, 0, place, 0))
        if self.link.flush():
            self._start(exchange)
        else:
            exchange.task = self.loop.create_task(self._start_later(exchange))

    async def _start_later(self, exchange: Exchange) -> None:
        await self.link.flushed()
        if self.link.closed:
            exchange.abandon()  # nobody knows that it came here: another worker gets it
        else:
            await exchange.run(self.worker.application)

    def _begin_websocket(self, flags: int, place: int, number: int, payload: bytes) -> None:
        opening = self._scope(flags, place, payload)
        if opening is None:
            return
        try:
            resumption, fields = scopes.decode_websocket(opening)
        except msgspec.DecodeError as error:
            self._refuse(place, error)
            return
        websocket = WebSocket(self, place, number, resumption, fields, self.worker.state)
        self._streams[place] = websocket
        self._start(websocket)

    def _refuse(self, place: int, error: Exception) -> None:
        """Answer a scope that is none: that costs its stream."""
        _log.error("%s: a scope cannot be used: %s", self.name, error)
        self.link.send(pack(Kind.DONE, FAILED, place, 0))

    def _start(self, stream: Exchange | WebSocket) -> None:
        stream.task = self.loop.create_task(stream.run(self.worker.application))

    # What ends

    def ended(self, stream: int) -> None:
        """Forget a stream whose app has returned."""
        one = self._streams.pop(stream, None)
        if self.link.closed and isinstance(one, Exchange) and not one.is_let_go:
            self.worker.give(self.worker.permits.end())

    def let_go(self, stream: int) -> None:
        """Have the interface forget a stream whose client is gone; the app may continue."""
        if not self.link.closed:
            self.link.send(pack(Kind.DONE, 0, stream, 0))
        elif self._is_gone and isinstance(self._streams.get(stream), Exchange):
            self.worker.give(self.worker.permits.end())

    def lost(self, reason: str, is_error: bool) -> None:
        """Take notice that the interface process is gone."""
        if is_error:
            _log.error("%s: the connection from it was given up: %s", self.name, reason)
        for stream in list(self._streams.values()):
            stream.lose()
        exchanges = [one for one in self._streams.values() if isinstance(one, Exchange)]
        requests = sum(not exchange.is_let_go for exchange in exchanges)
        self._is_gone = True
        self.worker.left(self, requests)

    def hurry(self) -> None:
        """Let WebSockets that are to leave do so, whatever their app is busy with."""
        for stream in list(self._streams.values()):
            if isinstance(stream, WebSocket):
                stream.hurry()

    def cut(self) -> list[asyncio.Task[None]]:
        """Cancel what the app still does. Return the tasks that do it."""
        tasks = [stream.task for stream in self._streams.values() if stream.task is not None]
        for stream in self._streams.values():
            if isinstance(stream, WebSocket):
                stream.cut()
        for task in tasks:
            task.cancel("the process ends")
        return tasks

    @property
    def streams(self) -> int:
        """How many streams it has here."""
        return len(self._streams)

    def report(self, scope: MutableMapping[str, Any], error: BaseException) -> None:
        """Write the traceback of an app that raised."""
        kind = "WebSocket" if scope.get("type") == "websocket" else scope.get("method")
        own_frame = error.__traceback__
        if own_frame is not None:
            error = error.with_traceback(own_frame.tb_next)
        lines = {LINES: traceback_of(error)}
        _log.error("%s %s: the app raised:", kind, scope.get("path"), extra=lines)
