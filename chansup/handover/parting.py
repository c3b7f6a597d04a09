"""How an app is brought to leave a WebSocket: it is told when it has nothing in hand."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from chansup.handover.standing import Standing

SERVICE_RESTART = 1012  # RFC 6455, section 7.4, as registered with IANA
_DEAF_AFTER = 1.0  # seconds after LEAVE that an app which does not receive may still send
_SLOW_CONNECT = 5.0  # the same, for one that has not received since websocket.connect
_PATIENCE = 10.0  # seconds that an app has to return after it was told to leave


class Receivers(Protocol):
    """The tasks of the app that wait for an event."""

    def __len__(self) -> int:
        """Return how many there are."""

    def wake_all(self) -> None:
        """Have each of them look whether it is to leave."""


class Parting:
    """The way of one WebSocket out of this process."""

    __slots__ = (
        "_deaf", "_hurries", "_loop", "_on_goodbye", "_receivers", "_standing", "task",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        standing: Standing,
        receivers: Receivers,
        hurries: Callable[[], bool],
        on_goodbye: Callable[[], None],
    ) -> None:
        """`hurries`: whether time is nearly up. `on_goodbye` is called where only a send can tell.

        It is to wake whoever waits in one.
        """
        self._loop = loop
        self._standing = standing
        self._hurries = hurries
        self._on_goodbye = on_goodbye
        self._receivers = receivers
        self._deaf = False  # the app is to leave, and does not receive
        self.task: asyncio.Task[None] | None = None  # that runs the app

    def begin(self, for_good: bool) -> None:
        """Have the app leave as soon as it has nothing in hand; `for_good`: nobody continues."""
        standing = self._standing
        standing.leaving = True
        standing.for_good = for_good
        self._receivers.wake_all()
        if not standing.in_hand:
            # Perhaps it never receives, or was just cancelled: then its next send tells it.
            is_connecting = standing.connection.is_answering
            patience = _SLOW_CONNECT if is_connecting else _DEAF_AFTER
            self._loop.call_later(patience, self._refuse)

    def _refuse(self) -> None:
        standing = self._standing
        if not standing.in_hand and not self._receivers and not standing.returned:
            self._deaf = True
            self._try_to_part()

    def layer_is_asked(self) -> None:
        """Take notice that the app asks the channel layer for more."""
        if self._standing.leaving and not self._standing.goodbye:
            if asyncio.get_running_loop() is self._loop:
                self._try_to_part()
            else:
                self._loop.call_soon_threadsafe(self._try_to_part)

    def hurry(self) -> None:
        """Take notice that time is nearly up: it leaves, whatever its app is busy with."""
        if self._standing.leaving:
            self._try_to_part()

    def _try_to_part(self) -> None:
        """Tell the app to leave, at once, if it is idle."""
        if self._standing.in_hand or self._standing.returned:
            return
        if self._receivers:
            if self.is_due():
                self._receivers.wake_all()
        elif self._deaf and not self._is_kept():
            self._say_goodbye()
            self._on_goodbye()

    def _is_kept(self) -> bool:
        """Whether the app may finish what it has in hand of the channel layer before it leaves."""
        connection = self._standing.connection
        if not connection.is_busy:
            return False
        if not self._hurries():
            return True
        connection.unfinished = True
        return False

    def is_due(self) -> bool:
        """Say whether the app is to be told that it leaves; from now on nothing is given to it."""
        if not self._standing.goodbye and self._is_kept():
            return False
        self._say_goodbye()
        self._standing.depart()
        return True

    def _say_goodbye(self) -> None:
        standing = self._standing
        if not standing.goodbye:
            standing.goodbye = True
            standing.code = standing.code or SERVICE_RESTART
            self._loop.call_later(_PATIENCE, self._cancel)

    def _cancel(self) -> None:
        if self.task is not None and not self._standing.returned:
            self.cut()
            self.task.cancel("told to leave, it did not return")

    def cut(self) -> None:
        """Take notice that the app is about to be cancelled: time is up."""
        standing = self._standing
        if not standing.in_hand:  # perhaps it is in the midst of what it had from the channel layer
            standing.connection.unfinished = True
        standing.depart()
