"""Which client's connection the app works on, told by the relay to the channel layer.

The relay sets `connection` in the context in which it runs the app of a WebSocket, before the app
is called; what the app starts inherits it. The channel layer of the worker that the WebSocket
leaves, and that of the worker it goes to, know by the `id` that it is the same one, so that
messages which come in between wait for it.

`leaving` becomes true when the app is told to end because of a handover: at the moment when it is
given websocket.disconnect, or when a send of its fails for that reason, and not sooner: until then
it may leave a group because it wants to. It never becomes true when the client is gone. An app that
is cancelled because of a handover finds it true, too. If it is cancelled while it may be in the
midst of a message that it took from the channel layer, `unfinished` is true: that one is not for
the next worker, for a part of it may have been done.

When the app has accepted and asks for what comes next the relay calls `welcomes`: by then it has
joined the groups that it joins again after a handover. When it has returned the relay calls
`farewells`, before another worker begins: an app need not end everything that it has begun.

The goodbye waits until the app has nothing of the channel layer in hand. So the layer tells what
the app `asks` for and what it `took`, the relay that it asks for the client's next message, and the
connection decides with what the app `is_busy`.
"""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any


class Take:
    """One message that the app took from the channel layer, and is not known to be done with."""

    __slots__ = ("channel", "is_answer", "task")

    def __init__(self, channel: str, task: "asyncio.Task[Any] | None", is_answer: bool) -> None:
        self.channel = channel
        self.task = task  # that took it
        self.is_answer = is_answer  # perhaps: the first message of a channel that a handler made


class Connection:
    """A WebSocket that may move between workers."""

    __slots__ = (
        "_inner", "_opened", "channels", "farewells", "id", "is_answering", "leaving",
        "on_ask", "takes", "unfinished", "welcomes",
    )  # fmt: skip

    def __init__(self, id: str) -> None:
        self.id = id  # the same in each worker, of no other connection; ASCII, at most 200
        self.leaving = False  # the app was told to end, for another worker continues
        self.unfinished = False  # what it took from the channel layer is not for the next worker
        self.welcomes: list[Callable[[], None]] = []  # of the channel layer
        self.farewells: list[Callable[[], None]] = []
        self.channels = 0  # that the channel layer made for it; the layer counts
        self.is_answering = False  # the app deals with an event of the client; the relay tells
        self.on_ask: Callable[[], None] | None = None  # of the relay: the layer is asked for more
        self._opened: set[str] = set()  # channels that were made for it
        self._inner: dict[str, bool] = {}  # those of a handler; whether nothing was taken yet
        self.takes: dict[str, Take] = {}  # by channel

    def opens(self, channel: str) -> None:
        """Take notice of a channel that the layer made while the app of this connection runs."""
        if self.leaving:
            return  # it is for the goodbye itself, and stays here
        self._opened.add(channel)
        if self.is_answering or self.takes:
            self._inner[channel] = True

    def asks(self, channel: str) -> None:
        """Take notice that the app asks the channel layer for the next message of a channel."""
        if self.takes:
            self.takes.pop(channel, None)
            self._goes_on(ends_answers=channel not in self._inner)
        if self.on_ask is not None:
            self.on_ask()

    def took(self, channel: str) -> None:
        """Take notice that the app is given a message of a channel."""
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None
        is_answer = self._inner.get(channel, False)
        if is_answer:
            self._inner[channel] = False
        take = self.takes[channel] = Take(channel, task, is_answer)
        _latest.set(take)

    def asks_client(self) -> None:
        """Take notice that the app asks for the client's next message."""
        self.is_answering = False
        if self.takes:
            self._goes_on(ends_answers=True)

    def _goes_on(self, ends_answers: bool) -> None:
        """Forget finished channels.

        Whoever took something, and asks for something else, is done with it. So is a handler with
        an answer that it waited for in a task of its own, when the app asks for what comes next.
        """
        latest = _latest.get()
        if latest is not None and self.takes.get(latest.channel) is latest:
            del self.takes[latest.channel]
        if ends_answers:
            for take in list(self.takes.values()):
                if take.is_answer and (take.task is None or take.task.done()):
                    self.takes.pop(take.channel, None)

    @property
    def is_busy(self) -> bool:
        """Whether the app has a message in hand that it took from the channel layer."""
        return bool(self.takes)

    def holds_back(self, channel: str) -> bool:
        """Whether the messages of a channel are for the next worker by now."""
        return self.leaving and channel in self._opened


connection: ContextVar[Connection | None] = ContextVar("chansup_connection", default=None)
_latest: ContextVar[Take | None] = ContextVar("chansup_latest_take", default=None)
