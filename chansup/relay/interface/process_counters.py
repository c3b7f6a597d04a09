"""The WebSockets of an interface process, as its launcher drains and its scoreboard counts them.

The relay counts them itself, and the launcher's instrument leaves them alone: one wrapper less in
the way of each message.
"""

from typing import Any, Protocol

from chansup.protocol.scoreboard import SIZE, websocket_ended, websocket_opened


class InFlight(Protocol):
    """What the launcher's drain looks at. Whatever is in `websockets` has `accepted`, `close`."""

    draining: bool
    is_cut: bool
    released: int
    websockets: set[Any]


class _NothingInFlight:
    """Of a relay that no launcher runs."""

    draining = is_cut = False
    released = 0

    def __init__(self) -> None:
        self.websockets: set[Any] = set()


class ProcessCounters:
    """The counters of one process."""

    __slots__ = ("_cells", "in_flight")

    def __init__(
        self, in_flight: InFlight | None = None, cells: "memoryview[float] | None" = None
    ) -> None:
        self.in_flight = in_flight or _NothingInFlight()
        self._cells = memoryview(bytearray(SIZE)).cast("d") if cells is None else cells

    def came(self, websocket: Any) -> None:
        """Take in a WebSocket whose handshake has begun."""
        self.in_flight.websockets.add(websocket)

    def accepted(self) -> None:
        """Count a WebSocket that is open from now on."""
        websocket_opened(self._cells)

    def went(self, websocket: Any, accepted: bool, code: int) -> None:
        """Count how a WebSocket ended."""
        self.in_flight.websockets.discard(websocket)
        websocket_ended(self._cells, accepted, code)
        if self.in_flight.draining:
            self.in_flight.released += 1
