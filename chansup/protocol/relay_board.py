"""What the relay of one interface process counts, by pool of app workers, in shared memory.

The same arrangement as the scoreboard: one sealed memfd per process, float64 cells at fixed places,
the child the only writer. One row per pool; the roster says which row is whose. Row 0 belongs to no
pool: requests that no route fits.
"""

import math

from chansup.protocol import shared_memory, versions
from chansup.protocol.roster import MAX_POOLS
from chansup.protocol.shared_memory import SharedMemory

WAIT_BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
PAUSE_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)

REJECTIONS = ("full", "late", "no_worker", "no_route")  # why a request got no worker
HANDOVERS = (
    "moved",  # the client noticed nothing
    "closed",  # by configuration: handover = "close"
    "denied",  # the new worker refused the connection
    "subprotocol",  # the new worker chose another one
    "no_worker",  # none appeared in time
    "poison",  # three workers died with it
    "left",  # the client or the app closed it meanwhile
    "session",  # closed: a new worker would not know its session
)
REASONS = ("deploy", "crash")  # why a WebSocket was handed over
DIRECTIONS = ("to_worker", "to_client")
STICKY = (  # where a request with a session went
    "kept",  # to the worker that knows it
    "broken",  # elsewhere: that worker is gone, or about to go
    "unknown",  # no worker is known to know it
)

_place = 0


def _cells(number: int) -> int:
    global _place
    first, _place = _place, _place + number
    return first


WAITING = _cells(1)  # requests and WebSocket opens in the queue now
IN_FLIGHT = _cells(1)  # requests that a worker works on now
ATTACHED = _cells(1)  # WebSockets that a worker works on now
HELD = _cells(1)  # messages of clients that wait for the end of a handover now
PAUSED = _cells(1)  # WebSockets between two workers now
GAUGES = range(_place)
WAIT_SUM = _cells(1)  # seconds
WAITS = _cells(len(WAIT_BOUNDS) + 1)
REJECTED = _cells(len(REJECTIONS))
HANDED_OVER = _cells(len(REASONS) * len(HANDOVERS))
PAUSE_SUM = _cells(1)  # seconds
PAUSES = _cells(len(PAUSE_BOUNDS) + 1)  # only of those that moved
RETRIES = _cells(1)  # requests sent to another worker after theirs died
FAILED = _cells(1)  # requests answered 502, or broken off, because their worker died
LOST = _cells(1)  # messages that were in hand when a worker died
REDELIVERED = _cells(1)  # messages that were given to another worker after theirs died
POISON = _cells(1)  # requests, messages and connections that were given up as poison
EXHAUSTED = _cells(len(DIRECTIONS))  # times that a sender had to wait for credit
BYTES = _cells(len(DIRECTIONS))  # of frames, headers included
STICKY_REQUESTS = _cells(len(STICKY))
SESSIONS_LEARNED = _cells(1)  # from responses
SESSIONS_DISPLACED = _cells(1)  # forgotten soon after they were used, because there was no room
CELLS = _place
ROOM = 128  # cells of a row, with those that are added at the end
SIZE = MAX_POOLS * ROOM * 8  # bytes


def create() -> int:
    """Return the descriptor of a new, zeroed relay board, for a child to inherit."""
    return shared_memory.create("chansup-relay-board", versions.RELAY_BOARD, SIZE)


class RelayBoard:
    """The rows behind one descriptor; `None`: private memory, where nobody looks."""

    def __init__(self, descriptor: int | None) -> None:
        """Raises VersionError."""
        self._memory = SharedMemory(descriptor, versions.RELAY_BOARD, SIZE)
        self._cells: memoryview[float] = self._memory.bytes.cast("d")

    def row(self, number: int) -> "memoryview[float]":
        """Return the writable cells of one pool."""
        return self._cells[number * ROOM : number * ROOM + CELLS]

    def read(self, number: int) -> list[float]:
        """Return one row as the supervisor may use it: what a child wrote is not trusted."""
        return [value if math.isfinite(value) and value >= 0 else 0.0 for value in self.row(number)]
