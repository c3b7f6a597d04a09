"""What the supervisor tells an interface process of the app workers: who they are, what they serve.

The interface process inherits one end of a stream socket pair. Each message is the whole truth, one
JSON document and a newline; the newest one counts. The end of the stream means that the supervisor
is gone. In the other direction go lines about workers that were greeted, and about WebSockets that
the roster orders to move.
"""

from typing import Literal

import msgspec

from chansup.protocol import encoding
from chansup.protocol.sessions import Handover, Rules

WorkerState = Literal["joining", "ready", "draining"]

MAX_POOLS = 64  # rows of a relay board
LARGEST_ERROR_PAGE = 256 * 1024  # bytes


class Route(msgspec.Struct, frozen=True):
    """What a pool serves: as the config has it ("http", "websocket:/ws/*", …), and how."""

    route: str
    handover: Handover = "transparent"
    redeliver: bool = False


class Pool(msgspec.Struct, frozen=True):
    """A pool of app workers. Times are seconds."""

    name: str
    row: int  # of this pool on each relay board; never given to another pool
    routes: list[Route]
    queue_limit: int  # requests that may wait for a worker, in each interface process
    queue_timeout: float  # that a request may wait while there are workers
    worker_timeout: float  # that a request may wait while there are none
    websocket_timeout: float  # that an open WebSocket may be without a worker
    handover_rate: float  # WebSockets per second that begin to move, in each interface process
    drain_spread: float  # over which WebSockets are closed where handover is "close"
    stop_timeout: float  # from a worker's SIGTERM to its end
    sticky: str | None = None  # parameter, cookie or header whose value belongs to one worker
    rules: Rules = Rules()  # which WebSockets may move, and which not


class Worker(msgspec.Struct, frozen=True):
    """A process that runs the app. It keeps its `address` from ready to gone."""

    name: str  # of its slot: "web.0"
    pool: str
    pid: int
    generation: int
    address: str  # path of the Unix socket that it listens on
    # joining: greet it, and begin nothing yet; draining: begin nothing there, take all away
    state: WorkerState
    leaves_soon: bool = False  # a rollout or a restart is to replace it
    websockets: int = 0  # open there when this was written, of all interface processes


class Roster(msgspec.Struct, frozen=True):
    """Every pool that serves, and every worker in them that has booted."""

    pools: list[Pool]
    workers: list[Worker]
    error_pages: dict[str, str] = {}  # absolute paths by status code
    moves: list[str] = []  # marks of single WebSockets that are to go to another worker now


class Moved(msgspec.Struct, frozen=True, tag="moved"):
    """What an interface process says of a WebSocket that is to move."""

    mark: str
    step: str  # "begun", then a result of `relay_board.HANDOVERS`; or "alone", "early": not begun


class Greeted(msgspec.Struct, frozen=True, tag="greeted"):
    """What an interface process says of a worker with which it has exchanged greetings."""

    address: str
    refusal: str = ""  # why the two cannot speak to each other; empty: they can


Report = Moved | Greeted

MARK = b"chansup-mark"  # header of a handshake, by which that WebSocket can be named
LONGEST_MARK = 64  # bytes


def encode(document: Roster | Report) -> bytes:
    """Return one line."""
    return encoding.encode(document) + b"\n"


def decode(line: bytes) -> Roster:
    """Return what one line says. Raises msgspec.DecodeError."""
    return encoding.decode(line, Roster)


def decode_report(line: bytes) -> Report:
    """Return what one line of an interface process says. Raises msgspec.DecodeError."""
    report: Report = encoding.decode(line, Report)  # type: ignore[arg-type]
    return report
