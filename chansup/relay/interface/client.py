"""The client of a WebSocket, as the server has it: what it says, and what goes to it, in order."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from chansup.relay.frames import MAX_PAYLOAD, TEXT
from chansup.relay.interface.attachment import Attachment
from chansup.relay.interface.standing import Standing
from chansup.waiters import Waiter, wake

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

NO_STATUS, ABNORMAL = 1005, 1006  # RFC 6455, section 7.4

_log = logging.getLogger("chansup.relay")


class Listener(Protocol):
    """Who takes what the client says."""

    @property
    def has_pending(self) -> bool:
        """Whether its newest message is not dealt with yet: the next one has to wait."""

    def client_says(self, flags: int, payload: bytes) -> None:
        """Take its next message."""

    def client_left(self, code: int, reason: bytes) -> None:
        """Take notice that the client is gone."""


class Client:
    """The client of one WebSocket. It may be slow."""

    __slots__ = (
        "_listener", "_loop", "_out", "_receive", "_room", "_send", "_standing", "_task", "_waiter",
        "is_writing",
    )  # fmt: skip

    def __init__(
        self,
        listener: Listener,
        standing: Standing,
        receive: Receive,
        send: Send,
    ) -> None:
        self._listener = listener
        self._standing = standing
        self._receive = receive
        self._send = send
        self._loop = standing.pool.loop
        self._out: list[tuple[Attachment | None, Message, int]] = []  # and the sizes
        self._task: asyncio.Task[None] | None = None
        self._waiter: Waiter = None  # of what goes out
        self._room: Waiter = None  # for the next message that comes
        self.is_writing = False

    # What it says

    def begin_to_read(self) -> None:
        """Take its messages from now on, one at a time."""
        self._task = self._loop.create_task(self._read())

    def end_reading(self) -> None:
        """Take nothing more."""
        if self._task is not None:
            self._task.cancel()

    def make_room(self) -> None:
        """Take the next message: the one before is dealt with."""
        wake(self._room)

    async def _read(self) -> None:
        try:
            await self._read_on()
        except Exception as error:
            path = self._standing.host_and_path()[1]
            _log.error("WebSocket %s: the server broke: %r", path, error)
            self._listener.client_left(ABNORMAL, b"")

    async def _read_on(self) -> None:
        receive, listener = self._receive, self._listener
        while True:
            message = await receive()
            if message["type"] != "websocket.receive":
                reason = (message.get("reason") or "").encode()[:MAX_PAYLOAD]
                listener.client_left(message.get("code") or NO_STATUS, reason)
                return
            while listener.has_pending:
                self._room = self._loop.create_future()
                await self._room
            text = message.get("text")
            if text is not None:
                listener.client_says(TEXT, text.encode())
            else:
                listener.client_says(0, message["bytes"])

    # What goes to it

    def put(self, message: Message, size: int = 0, attachment: Attachment | None = None) -> None:
        """Send an event, in its turn. `attachment` is told when `size` bytes are gone."""
        self._out.append((attachment, message, size))
        self.is_writing = True
        wake(self._waiter)

    def wake(self) -> None:
        """Have it looked whether it is over."""
        wake(self._waiter)

    async def write(self) -> None:
        """Pass on the items put here, until it is over."""
        standing = self._standing
        while True:
            while self._out:
                out, self._out = self._out, []
                for attachment, message, size in out:
                    gone = await self._write_one(message)
                    if gone and attachment is not None and attachment is standing.attachment:
                        attachment.consumed(size)
            self.is_writing = False
            if standing.attachment is not None:
                standing.attachment.catch_up()
            if standing.is_over:
                return
            self._waiter = self._loop.create_future()
            await self._waiter

    async def _write_one(self, message: Message) -> bool:
        """Say whether the server has taken it."""
        if message["type"] == "websocket.close":
            await self._stop_reading()
        try:
            await self._send(message)
            return True
        except OSError:
            return False  # the client is gone: it will be read from it
        except Exception as error:  # the server has closed it, or refuses the event
            if not self._standing.accepted:
                raise
            path = self._standing.host_and_path()[1]
            _log.warning("WebSocket %s: the server refused: %s", path, error)
            self._listener.client_left(ABNORMAL, b"")
            return False

    async def _stop_reading(self) -> None:
        """Let go of the connection: some servers cannot close it while somebody receives."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.sleep(0)
