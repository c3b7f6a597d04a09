"""Orders to move one WebSocket, for who wants to try whether an app survives it.

The client marks its handshake with a header, and the supervisor names that mark in the roster. Who
cannot speak to the supervisor can mark a handshake, and order nothing.
"""

from collections.abc import Iterable
from functools import partial

from chansup.protocol import roster
from chansup.relay.interface.reports import Reports
from chansup.relay.interface.websocket import WebSocket

_MOST = 64  # marked WebSockets that are remembered; the oldest are forgotten


class Orders:
    """The marked WebSockets of one interface process, and what was ordered of them."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._marked: dict[str, WebSocket] = {}
        self._followed: set[str] = set()  # marks whose order stands, and was followed

    def notice(self, websocket: WebSocket, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Remember a WebSocket if its handshake is marked."""
        for name, value in headers:
            if name == roster.MARK and len(value) <= roster.LONGEST_MARK:
                mark = value.decode("latin-1")
                if len(self._marked) >= _MOST:
                    del self._marked[next(iter(self._marked))]
                self._marked[mark] = websocket

    def forget(self, websocket: WebSocket) -> None:
        """Forget a WebSocket that has ended."""
        for mark in [mark for mark, one in self._marked.items() if one is websocket]:
            del self._marked[mark]

    def follow(self, marks: Iterable[str]) -> None:
        """Move what the newest roster names, once."""
        ordered = set(marks)
        self._followed &= ordered
        for mark in ordered - self._followed:
            websocket = self._marked.get(mark)
            if websocket is not None:  # else another process holds it
                self._followed.add(mark)
                self._move(mark, websocket)

    def _move(self, mark: str, websocket: WebSocket) -> None:
        step = websocket.move(partial(self._tell, mark))
        self._tell(mark, step)

    def _tell(self, mark: str, step: str) -> None:
        self._reports.tell(roster.Moved(mark, step))
