"""What a launcher is told when it starts: one JSON document in its environment."""

import os
import signal

import msgspec

from chansup.protocol import encoding, versions
from chansup.protocol.roster import Route
from chansup.protocol.sessions import Handover, Rules

VARIABLE = "CHANSUP_LAUNCH"
STACK_DUMP_SIGNAL = signal.SIGRTMIN + 3  # a launcher answers with every thread's stack on stderr


class Listener(msgspec.Struct, frozen=True):
    """A listening socket that the launcher inherits."""

    fd: int
    address: str  # as in the config: "0.0.0.0:8000", "unix:run/web.sock"
    steered: bool  # True: this slot's own listener, new connections can be kept away from it
    backlog: int = 2048  # servers listen() again, some with less


class Drain(msgspec.Struct, frozen=True):
    """How a launcher retires its server after SIGTERM. All in seconds."""

    settle: float  # between "accepts no more" and the first thing that closes
    spread: float  # over which WebSockets are closed with 1012
    keep_alive: float  # that an idle keep-alive connection may still bring a request
    timeout: float  # after which the supervisor kills; the launcher ends a moment before


class Relay(msgspec.Struct, frozen=True):
    """What makes an interface process one of relay mode."""

    roster_fd: int  # where the supervisor tells of the app workers: `protocol.roster`
    board_fd: int | None = None  # where the relay counts: `protocol.relay_board`
    sessions_fd: int | None = None  # which worker knows which: `protocol.session_table`


class Carry(msgspec.Struct, frozen=True):
    """What makes a process one whose WebSockets outlive it: `protocol.carry`."""

    channel_fd: int  # its end of a SOCK_SEQPACKET pair; the supervisor has the other one
    version: int = 1  # of `protocol.carry`, and of all memory of WebSockets on this site
    handover: Handover = "transparent"  # of WebSockets that no route fits
    redeliver: bool = False  # the same
    routes: list[Route] = []  # the most specific one that fits a WebSocket counts
    rules: Rules = Rules()  # which WebSockets may move, and which not
    handover_rate: float = 500.0  # WebSockets per second that begin to move at a drain
    adoption_rate: float = 2000.0  # WebSockets per second that are adopted at most


class AppWorker(msgspec.Struct, frozen=True):
    """What makes a process an app worker. Its one listener is the Unix socket of the relay."""

    concurrency: int  # requests that it works on at a time, over all interface processes
    threads: int  # of a WSGI app
    peers: list[int]  # user ids whose processes may connect
    disconnect_timeout: float = 10.0  # seconds that the app may continue when its client has left


class ChannelWorker(msgspec.Struct, frozen=True):
    """What makes a process a channel worker. It has no listener."""

    channels: list[str]  # names; empty: those of the project's ChannelNameRouter, …
    only: list[str]  # … that one of these globs fits, if there are any, …
    exclude: list[str]  # … and none of these
    concurrency: int  # messages that it works on at a time
    redeliver: bool  # forget a message when it was handled, and not when it was taken
    max_deliveries: int  # of one message, with redeliver
    dead_letters: str | None  # path of a file for messages that were given up; None: the log
    layer: str  # alias in CHANNEL_LAYERS
    bulletin_fd: int | None = None  # where it reports: `protocol.channel_report`


class ReadyRequest(msgspec.Struct, frozen=True):
    """A GET that the app must answer before its process is ready."""

    host: str  # of the Host header; empty: one that the app accepts
    target: str  # path and query: "/health"
    timeout: float  # seconds for all attempts


class Launch(msgspec.Struct, frozen=True):
    """Everything a launcher needs to run one server in one process."""

    pool: str
    slot: int
    generation: int
    server: str  # uvicorn | granian | hypercorn | daphne | gunicorn; relay, channels: workers
    application: str  # "package.module:attribute"; empty where the relay is what is served
    gateway: str  # "asgi" | "wsgi"
    directory: str  # absolute; working directory and first on sys.path
    listeners: list[Listener]
    options: dict[str, object]  # the server's own names
    drain: Drain
    system_checks: bool = True  # run those of a Django app before it serves
    ready_request: ReadyRequest | None = None
    health_path: str | None = None
    heartbeat_interval: float = 1.0  # seconds between two beats of the event loop
    scoreboard_fd: int | None = None
    relay: Relay | None = None  # of an interface process in relay mode
    carry: Carry | None = None  # None: its WebSockets end with it
    app_worker: AppWorker | None = None
    channel_worker: ChannelWorker | None = None
    version: int = versions.LAUNCH.newest
    hub_speaks: tuple[int, int] | None = None  # oldest and newest version of the channel layer


class _Head(msgspec.Struct):
    version: int = 0  # from before versions were told


def encode(launch: Launch) -> str:
    """Return the document for the child's environment."""
    return encoding.encode(launch).decode()


def receive() -> Launch:
    """Take the document out of this process's environment, so that the app does not see it.

    Raises KeyError when the process was not started by a supervisor, VersionError when that is of
    another version, msgspec.ValidationError when the document is malformed.
    """
    text = os.environ.pop(VARIABLE)
    versions.require(versions.LAUNCH, encoding.decode(text, _Head).version)
    return encoding.decode(text, Launch)
