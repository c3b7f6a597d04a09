"""What a launcher counts, in memory that the supervisor reads whenever it likes.

One anonymous file (memfd_create(2)) per process, mapped on both sides: an array of float64 cells
at fixed places. The child is the only writer; an aligned 8-byte store is atomic on every platform
that chansup runs on, so the reader needs no lock, never waits for a busy child, and still has the
last values when the child was killed. One cell goes the other way: `LAME_DUCK`.
"""

import math

from chansup.protocol import shared_memory, versions
from chansup.protocol.shared_memory import SharedMemory

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "OTHER")
STATUS_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx", "none")  # none: ended without a response
DURATION_BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # seconds; the cell after the last counts what took longer  # fmt: skip
CLOSE_CODES = (*(str(code) for code in range(1000, 1016)), "3xxx", "4xxx", "other", "rejected")
# rejected: the handshake was answered with a denial, the socket was never open

BEATS = 0  # heartbeats of the event loop so far
LOOP_LAG = 1  # seconds by which the last heartbeat was late
IN_PROGRESS = 2  # HTTP requests
WEBSOCKETS_OPEN = 3
WEBSOCKETS_OPENED = 4
DURATION_SUM = 5  # seconds
DURATIONS = 6  # DURATIONS + i counts requests that took at most DURATION_BOUNDS[i]
REQUESTS = DURATIONS + len(DURATION_BOUNDS) + 1  # one row per method, one column per status class
WEBSOCKETS_CLOSED = REQUESTS + len(METHODS) * len(STATUS_CLASSES)  # one cell per close code
OUT_OF_DESCRIPTORS = WEBSOCKETS_CLOSED + len(CLOSE_CODES)  # heartbeats that could open no file
PHASE = OUT_OF_DESCRIPTORS + 1  # what was told by notify; no queue can lose it
LAME_DUCK = PHASE + 1  # written by the supervisor: serve on, but say 503 on the health path
OUT_OF_DESCRIPTORS_NOW = LAME_DUCK + 1  # 1 while that is so
CELLS = OUT_OF_DESCRIPTORS_NOW + 1

BOOTING, ACCEPTING, LEAVING = 0.0, 1.0, 2.0  # values of PHASE
COUNTERS = range(WEBSOCKETS_OPENED, PHASE)  # the cells that only ever grow
SIZE = 500 * 8  # bytes: one page, with room for cells that are added at the end

_METHOD_ROWS = {method: row for row, method in enumerate(METHODS)}
_CLOSE_CELLS = {code: WEBSOCKETS_CLOSED + place for place, code in enumerate(CLOSE_CODES)}


def request_cell(method: str, status: int) -> int:
    """Return the cell that counts requests of `method` answered with `status` (0: not at all)."""
    row = _METHOD_ROWS.get(method, len(METHODS) - 1)
    column = status // 100 - 1 if 100 <= status < 600 else len(STATUS_CLASSES) - 1
    return REQUESTS + row * len(STATUS_CLASSES) + column


def close_cell(code: int) -> int:
    """Return the cell that counts WebSockets closed with `code` (RFC 6455, section 7.4)."""
    name = f"{code // 1000}xxx" if 3000 <= code < 5000 else str(code)
    return _CLOSE_CELLS.get(name, _CLOSE_CELLS["other"])


REJECTED_CELL = _CLOSE_CELLS["rejected"]


def create() -> int:
    """Return the descriptor of a new, zeroed scoreboard, for a child to inherit."""
    return shared_memory.create("chansup-scoreboard", versions.SCOREBOARD, SIZE)


class Scoreboard:
    """The cells behind one descriptor. `cells` is a writable view of float64."""

    def __init__(self, descriptor: int) -> None:
        """Raises VersionError."""
        self._memory = SharedMemory(descriptor, versions.SCOREBOARD, SIZE)
        self.cells: memoryview[float] = self._memory.bytes.cast("d")

    def read(self, cell: int) -> float:
        """Return one cell as the supervisor may use it: what a child wrote is not trusted."""
        value = self.cells[cell]
        return value if math.isfinite(value) and value >= 0 else 0.0

    def close(self) -> None:
        """Unmap the memory; the cells cannot be used afterwards."""
        self.cells.release()
        self._memory.close()
