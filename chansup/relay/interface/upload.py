"""The body of one request on its way to the worker: read no faster than the app takes it.

What came so far is retained, up to a limit, so that another worker can be given all of it when
one dies.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from chansup.protocol import relay_board as board
from chansup.relay.credits import WINDOW, Window
from chansup.relay.frames import END, FrameError, Kind, pack, pieces
from chansup.relay.interface.pool_counters import PoolCounters
from chansup.relay.interface.worker import Worker
from chansup.relay.link import Link
from chansup.waiters import Waiter, wake

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_RETAINED = 2 * WINDOW  # bytes: what may be under way, and what a server reads at once


class Upload:
    """A request's body. `is_complete`: the client has sent all of it."""

    def __init__(
        self,
        receive: Receive,
        counters: PoolCounters,
        loop: asyncio.AbstractEventLoop,
        expects: bool,
    ) -> None:
        """`expects`: the client waits for leave to send it, so the app must ask for it first."""
        self.is_complete = False
        self.is_repeatable = True  # all that came is retained
        self.expects = expects
        self._receive = receive
        self._counters = counters
        self._loop = loop
        self._link: Link | None = None  # of the worker that gets it
        self._window: Window | None = None
        self._stream = 0
        self._number = 0  # of parts that were sent
        self._attempt = 0
        self._retained: list[bytes] = []
        self._retained_size = 0
        self._credited: Waiter = None

    # Workers

    def begin(self, worker: Worker, stream: int) -> None:
        """Send it to a worker, with what came of it before."""
        self._link = worker.link
        self._window = Window(worker.budget, 0 if self.expects else WINDOW)
        self._stream = stream
        self._number = 0
        self._attempt += 1
        if self._retained or self.is_complete:
            for piece, is_last in pieces(b"".join(self._retained)):
                self._send(piece, END if self.is_complete and is_last else 0)
        if self._retained_size > _RETAINED:
            self.do_not_repeat()
        wake(self._credited)

    def end(self) -> None:
        """Take notice that the worker does not take it any more."""
        self._link = None
        if self._window is not None:
            self._window.close()

    def credit(self, size: int) -> None:
        """Take notice that the app had `size` bytes, or asks for the first. Raises FrameError."""
        if self._window is None or not self._window.consumed(size):
            raise FrameError("credit for what was never sent")
        self._window.size = WINDOW
        self.expects = False
        wake(self._credited)

    def do_not_repeat(self) -> None:
        """Keep nothing for another attempt: there may be none."""
        self.is_repeatable = False
        self._retained.clear()

    # The client

    async def run(self) -> None:
        """Pass on what the client sends, until it has sent all, or is gone.

        Before a worker has it, no more is read than is retained anyway.
        """
        while not self.is_complete:
            while self.expects or self._is_ahead:
                await self._credit()
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return
            body = message.get("body", b"")
            self.is_complete = not message.get("more_body", False)
            if self.is_repeatable:
                self._retain(body)
            if self._link is not None:
                await self._pass_on(body)

    @property
    def _is_ahead(self) -> bool:
        """Whether enough has come for as long as no worker takes it."""
        return not self._attempt and self._retained_size >= _RETAINED

    def _retain(self, body: bytes) -> None:
        self._retained_size += len(body)
        if self._retained_size > _RETAINED and self._attempt:
            self.do_not_repeat()
        elif body:
            self._retained.append(body)

    async def _pass_on(self, body: bytes) -> None:
        attempt = self._attempt
        for piece, is_last in pieces(body):
            while self._window is not None and self._link is not None:
                if not self._window.is_open:
                    self._counters.add(board.EXHAUSTED)
                    await self._credit()
                elif self._link.crowded:
                    await self._link.room()
                else:
                    break
            if attempt != self._attempt or self._link is None:
                return  # another worker gets all of it
            self._send(piece, END if self.is_complete and is_last else 0)

    def _send(self, piece: bytes, flags: int) -> None:
        assert self._window is not None
        assert self._link is not None
        if piece or flags:
            self._window.sent(len(piece))
            self._number += 1
            self._link.send(pack(Kind.BODY, flags, self._stream, self._number, piece))

    async def _credit(self) -> None:
        self._credited = self._loop.create_future()
        await self._credited
