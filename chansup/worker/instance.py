"""One consumer: a call of the ASGI app with a channel's scope, which lives on over messages."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

from chansup.errors import ChansupError
from chansup.worker.sources import Delivery, Message
from chansup.worker.threads import own_thread

App = Callable[..., Awaitable[None]]


class NobodyListensError(ChansupError, RuntimeError):
    """The consumer sent an event to its client, and there is none."""

    def __init__(self) -> None:
        super().__init__(
            "a consumer of a channel has no client to send to: use self.channel_layer.send()"
        )


class ExitedError(ChansupError, RuntimeError):
    """The consumer wanted to end the whole process."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}, which ends no worker: {error}")


class NotReceivedError(ChansupError, RuntimeError):
    """The app returned before it received the message."""

    def __init__(self) -> None:
        super().__init__("the app returned without receiving the message")


class Instance:
    """Works on one message at a time: on the next one when the app calls `receive()` again.

    `on_done` is called with each message that the app is done with, `on_end` at last, with what it
    raised. It is over then, and may still hold a message: `delivery`.
    """

    def __init__(
        self,
        application: App,
        channel: str,
        on_done: Callable[["Instance", Delivery], None],
        on_end: Callable[["Instance", BaseException | None], None],
        *,
        own_thread: bool,
    ) -> None:
        self.channel = channel
        self.delivery: Delivery | None = None
        self.received = False  # the app has the message
        self.is_fresh = True  # it has not handled any yet
        self.began = 0.0  # when it was given the message
        self._application = application
        self._on_done = on_done
        self._on_end = on_end
        self._own_thread = own_thread
        self._given = asyncio.Event()
        self.task = asyncio.create_task(self._run())
        self.task.add_done_callback(self._ended)

    def give(self, delivery: Delivery) -> None:
        """Let the app work on a message; it must have none."""
        assert self.delivery is None
        self.delivery = delivery
        self.received = False
        self.began = perf_counter()
        self._given.set()

    def cancel(self) -> None:
        """End it, whatever it does."""
        self.task.cancel()

    async def _run(self) -> None:
        scope = {"type": "channel", "channel": self.channel}
        async with own_thread() if self._own_thread else contextlib.nullcontext():
            try:
                await self._application(scope, self._receive, self._send)
            except (SystemExit, KeyboardInterrupt) as error:  # would go past us out of the loop
                raise ExitedError(error) from error

    def _receive(self) -> Awaitable[Message]:
        # Not a coroutine function: Channels calls this in its own step, and may cancel the task
        # around what it returns before that ever ran. The message before is done nevertheless.
        if self.received:
            self._done()
        return self._next()

    def _done(self) -> None:
        delivery, self.delivery = self.delivery, None
        self.received = self.is_fresh = False
        assert delivery is not None
        self._on_done(self, delivery)

    async def _next(self) -> Message:
        while self.delivery is None or self.received:  # somebody else who receives may have it
            self._given.clear()
            await self._given.wait()
        self.received = True
        return self.delivery.message

    async def _send(self, event: dict[str, Any]) -> None:
        raise NobodyListensError

    def _ended(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if task.cancelled():
            error = asyncio.CancelledError()
        elif error is None and self.delivery is not None:
            if self.received:
                self._done()
            elif self.is_fresh:
                error = NotReceivedError()
        self._on_end(self, error)
