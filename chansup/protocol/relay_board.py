"""What the relay of one interface process counts, by pool of app workers, in shared memory.

The same arrangement as the scoreboard: one sealed memfd per process, float64 cells at fixed places,
the child the only writer. One row per pool; the roster says which row is whose. Row 0 belongs to no
pool: requests that no route fits.
"""

from chansup.protocol import shared_memory, versions
from chansup.protocol.counters import Label, Layout, believed
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

LAYOUT = Layout("the relay of an interface process", ("pool",))
WAITING = LAYOUT.gauge(
    "chansup_relay_queue_depth", "Requests and WebSocket opens that wait for a worker."
)
IN_FLIGHT = LAYOUT.gauge("chansup_relay_requests_in_flight", "Requests that a worker works on.")
ATTACHED = LAYOUT.gauge("chansup_relay_websockets_attached", "WebSockets that a worker works on.")
HELD = LAYOUT.gauge(
    "chansup_relay_messages_held", "Messages of clients that wait for the end of a handover."
)
PAUSED = LAYOUT.gauge("chansup_relay_websockets_paused", "WebSockets between two workers.")
WAIT_SUM = LAYOUT.histogram(
    "chansup_relay_queue_wait_seconds",
    "How long requests and WebSocket opens waited for a worker.",
    WAIT_BOUNDS,
)
WAITS = WAIT_SUM + 1
REJECTED = LAYOUT.counter(
    "chansup_relay_rejected_total",
    "Requests and WebSocket opens that got no worker.",
    Label("reason", REJECTIONS),
)
HANDED_OVER = LAYOUT.counter(
    "chansup_relay_handovers_total",
    "WebSockets whose worker went away, by why it did and what became of them.",
    Label("cause", REASONS),
    Label("result", HANDOVERS),
)
PAUSE_SUM = LAYOUT.histogram(  # only of those that moved
    "chansup_relay_handover_pause_seconds",
    "How long WebSockets that moved were without a worker.",
    PAUSE_BOUNDS,
)
PAUSES = PAUSE_SUM + 1
RETRIES = LAYOUT.counter(
    "chansup_relay_retries_total", "Requests given to another worker after theirs died."
)
FAILED = LAYOUT.counter(
    "chansup_relay_failed_total", "Requests that ended in a 502, or broken, as their worker died."
)
LOST = LAYOUT.counter(
    "chansup_relay_messages_lost_total", "Messages that were in hand when a worker died."
)
REDELIVERED = LAYOUT.counter(
    "chansup_relay_messages_redelivered_total",
    "Messages given to another worker after theirs died.",
)
POISON = LAYOUT.counter(
    "chansup_relay_poison_total", "What was given up after three workers had died of it."
)
EXHAUSTED = LAYOUT.counter(
    "chansup_relay_credits_exhausted_total",
    "Times that a sender had to wait for credit.",
    Label("direction", DIRECTIONS),
)
BYTES = LAYOUT.counter(  # of frames, headers included
    "chansup_relay_bytes_total",
    "Bytes between interface and workers.",
    Label("direction", DIRECTIONS),
)
STICKY_REQUESTS = LAYOUT.counter(
    "chansup_relay_sticky_requests_total",
    "Requests with a session, by whether they went to the worker that knows it.",
    Label("result", STICKY),
)
SESSIONS_LEARNED = LAYOUT.counter(
    "chansup_relay_sessions_learned_total", "Sessions that responses told of, with `sticky`."
)
SESSIONS_DISPLACED = LAYOUT.counter(
    "chansup_relay_sessions_displaced_total",
    "Sessions that were forgotten within a minute of their use, because there was no room.",
)
GAUGES = LAYOUT.gauges
CELLS = LAYOUT.cells
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
        return [believed(value) for value in self.row(number)]
