"""What a worker has in hand and has done, in the cells of its scoreboard."""

from bisect import bisect_left
from typing import Protocol

from chansup.protocol.scoreboard import (
    DURATION_BOUNDS,
    DURATION_SUM,
    DURATIONS,
    request_cell,
    websocket_ended,
    websocket_opened,
)


class InHand(Protocol):
    """Who wants to know how many requests the app works on now."""

    requests: int


class CountedRequest(Protocol):
    """A request that ended."""

    method: str
    status: int

    def duration(self) -> float:
        """Return the seconds from the arrival to the end of the response."""


class CountedWebSocket(Protocol):
    """A WebSocket that ended."""

    @property
    def code(self) -> int:
        """The close code; 0 where none is known."""

    @property
    def accepted(self) -> bool:
        """Whether the app had accepted it."""


class Counters:
    """The counts of one worker."""

    __slots__ = ("_cells", "_in_hand")

    def __init__(self, cells: "memoryview[float]", in_hand: InHand) -> None:
        self._cells = cells
        self._in_hand = in_hand

    def count_arrival(self) -> None:
        """Count a request that the app begins to work on."""
        self._in_hand.requests += 1

    def count_request(self, exchange: CountedRequest) -> None:
        """Count a request that ended."""
        self._in_hand.requests -= 1
        cells = self._cells
        duration = exchange.duration()
        cells[DURATION_SUM] += duration
        cells[DURATIONS + bisect_left(DURATION_BOUNDS, duration)] += 1
        cells[request_cell(exchange.method, exchange.status)] += 1

    def count_accept(self) -> None:
        """Count a WebSocket that the app accepted."""
        websocket_opened(self._cells)

    def count_websocket(self, websocket: CountedWebSocket) -> None:
        """Count how a WebSocket ended."""
        websocket_ended(self._cells, websocket.accepted, websocket.code)
