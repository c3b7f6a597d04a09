"""What a launcher counts, in memory that the supervisor reads whenever it likes.

One anonymous file (memfd_create(2)) per process, mapped on both sides: an array of float64 cells
at fixed places. The child is the only writer; an aligned 8-byte store is atomic on every platform
that chansup runs on, so the reader needs no lock, never waits for a busy child, and still has the
last values when the child was killed. One cell goes the other way: `LAME_DUCK`.
"""

from chansup.protocol import shared_memory, versions
from chansup.protocol.counters import Label, Layout, believed
from chansup.protocol.shared_memory import SharedMemory

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "OTHER")
STATUS_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx", "none")  # none: ended without a response
DURATION_BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # seconds; the cell after the last counts what took longer  # fmt: skip
CLOSE_CODES = (*(str(code) for code in range(1000, 1016)), "3xxx", "4xxx", "other", "rejected")
# rejected: the handshake was answered with a denial, the socket was never open

LAYOUT = Layout("the launcher of an interface process or an app worker", ("pool", "slot"))
BEATS = LAYOUT.internal()  # heartbeats of the event loop so far
LOOP_LAG = LAYOUT.gauge(
    "chansup_process_event_loop_lag_seconds", "By how much the last heartbeat was late."
)
IN_PROGRESS = LAYOUT.gauge("chansup_requests_in_progress", "HTTP requests being answered.")
WEBSOCKETS_OPEN = LAYOUT.gauge("chansup_websockets_open", "Open WebSockets.")
WEBSOCKETS_OPENED = LAYOUT.counter(
    "chansup_websockets_opened_total", "WebSockets that were accepted."
)
DURATION_SUM = LAYOUT.histogram(
    "chansup_request_duration_seconds",
    "From the call of the application to the end of its response.",
    DURATION_BOUNDS,
)
DURATIONS = DURATION_SUM + 1  # DURATIONS + i counts what took at most DURATION_BOUNDS[i]
REQUESTS = LAYOUT.counter(
    "chansup_requests_total",
    "HTTP requests that ended.",
    Label("method", METHODS, usual=("GET", "POST")),
    Label("status", STATUS_CLASSES),
)
WEBSOCKETS_CLOSED = LAYOUT.counter(
    "chansup_websockets_closed_total",
    "WebSockets that ended, by close code; rejected: never accepted.",
    Label("code", CLOSE_CODES, usual=("1000", "1001", "1005", "1006", "1011", "1012")),
)
OUT_OF_DESCRIPTORS = LAYOUT.counter(
    "chansup_process_out_of_descriptors_total",
    "Heartbeats at which a process of the slot could open no file, so accept no client.",
)
PHASE = LAYOUT.internal()  # what was told by notify; no queue can lose it
LAME_DUCK = LAYOUT.internal()  # by the supervisor: serve on, but say 503 on the health path
OUT_OF_DESCRIPTORS_NOW = LAYOUT.internal()  # 1 while that is so
CELLS = LAYOUT.cells

ACCEPTING, LEAVING = 1.0, 2.0  # values of PHASE; 0: it has not begun to accept
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


def websocket_opened(cells: "memoryview[float]") -> None:
    """Count a WebSocket that was accepted."""
    cells[WEBSOCKETS_OPENED] += 1
    cells[WEBSOCKETS_OPEN] += 1


def websocket_ended(cells: "memoryview[float]", accepted: bool, code: int) -> None:
    """Count the end of a WebSocket; `code` is 0 where none is known."""
    if accepted:
        cells[WEBSOCKETS_OPEN] -= 1
        cells[close_cell(code or 1006)] += 1
    else:
        cells[REJECTED_CELL] += 1


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
        return believed(self.cells[cell])

    def close(self) -> None:
        """Unmap the memory; the cells cannot be used afterwards."""
        self.cells.release()
        self._memory.close()
