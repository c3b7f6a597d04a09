"""What this process has in hand: requests and WebSockets, from the app's first line to its last."""

import asyncio
from collections.abc import Callable
from types import CodeType, CoroutineType
from typing import Any, Protocol

from chansup.protocol.scoreboard import LAME_DUCK


class HeldWebSocket(Protocol):
    """A WebSocket that the app works on."""

    accepted: bool

    @property
    def moves(self) -> bool:
        """Whether another process continues with it: its client is told nothing."""

    def close(self) -> None:
        """Tell the client to come back elsewhere, and let the app see the disconnect."""


class InFlight:
    """What the instrument counts and the drain reads."""

    __slots__ = (
        "_cells", "draining", "entrances", "exempt", "handover_rate", "is_cut",
        "receive_blocks_close", "relays", "released", "requests", "serves", "websockets",
    )  # fmt: skip

    def __init__(self, cells: "memoryview[float] | None" = None) -> None:
        self._cells = cells
        self.draining = False  # answer "Connection: close", and 503 on the health path
        self.is_cut = False  # time is up: what the app still did was cancelled
        self.relays = False  # the app is the relay, which counts WebSockets itself
        self.receive_blocks_close = False  # the server cannot close while the app waits to receive
        self.serves: Callable[[], bool] = _always  # whether there is somebody to run the app
        self.handover_rate = 500.0  # WebSockets per second that begin to move
        self.requests = 0  # that the app works on
        self.websockets: set[HeldWebSocket] = set()
        self.released = 0  # requests and WebSockets that ended so far, counted only while draining
        self.entrances: set[CodeType] = set()  # the coroutines through which the app is entered
        self.exempt: set[CodeType] = set()  # those behind an entrance that must not be cut

    @property
    def leaving(self) -> bool:
        """Whether a load balancer should look elsewhere: it drains, or is about to."""
        return self.draining or (self._cells is not None and self._cells[LAME_DUCK] != 0)

    def cut(self) -> None:
        """Cancel every task of this loop that has entered the app by an entrance.

        They are found by walking what each task awaits, so that no request has to register.
        """
        self.is_cut = True
        for task in asyncio.all_tasks():
            codes = _awaited_codes(task)
            if codes & self.entrances and not codes & self.exempt:
                task.cancel("the process ends")


def _always() -> bool:
    return True


def _awaited_codes(task: "asyncio.Task[Any]") -> set[CodeType]:
    codes = set()
    coroutine: object = task.get_coro()
    while isinstance(coroutine, CoroutineType):
        codes.add(coroutine.cr_code)
        coroutine = coroutine.cr_await
    return codes
