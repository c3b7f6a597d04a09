"""Every table and key that chansup.toml may hold, with its type and default.

Durations are seconds. Paths are relative to `[app] directory`. That itself, Unix sockets to listen
on and the runtime directory are relative to the directory of the config file: they outlive a
release. The structs hold what the file says, after interpolation; what
follows from it (addresses, numbers of processes) is derived beside it, in `config.address` and
`config.cores`.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Seconds = Annotated[float, Meta(ge=0)]
PositiveSeconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=0)]
Name = str  # of a pool: a letter, then letters, digits, "_" and "-"
Processes = int | str  # a number, "per-core", "2-per-core"

Server = Literal["uvicorn", "granian", "hypercorn", "daphne", "gunicorn"]
Handover = Literal["transparent", "close"]
OnReload = Literal["auto", "overlap", "restart", "keep"]


class Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A table of the file: unknown keys are errors."""


class App(Table, frozen=True, kw_only=True):
    """``[app]``: the application and where it lives."""

    asgi: str | None = None  # "package.module:attribute"
    wsgi: str | None = None  # the same, of a WSGI application; one of both at most
    directory: str = "."  # resolved again at each reload
    python: str | None = None  # interpreter of everything that runs the app; chansup's own if unset
    env_file: str | list[str] = []  # dotenv files, later ones win; "-" before one: may be missing
    environment: dict[str, str] = {}  # wins over env_file, which wins over the inherited one
    system_checks: bool = True  # import a Django app's URLs and run its checks at each boot


class Pool(Table, frozen=True, kw_only=True):
    """What every kind of pool has."""

    processes: Processes = 1
    min_ready: Count | None = None  # that make the pool count as ready; half, rounded up, if unset
    after: list[str] = []  # pools and tasks that must be ready before this one starts
    environment: dict[str, str] = {}  # added to the app's
    user: str | None = None  # name or number; needs a supervisor that runs as root
    group: str | None = None
    umask: str | None = None  # octal, as in "027"
    limits: dict[str, int | str] = {}  # rlimits by their names: nofile = 65536, core = "unlimited"
    start_timeout: PositiveSeconds | None = None  # [rollout]'s if unset
    stop_timeout: PositiveSeconds | None = None  # [rollout]'s if unset
    stop_signal: str = "TERM"
    stop_signal_to: Literal["process", "group"] = "process"  # that was started, or its group
    liveness_timeout: Seconds | None = None  # silence that means "hangs"; 0: off
    max_restarts: Count | None = None  # crashes within restart_window; unset: no limit
    restart_window: PositiveSeconds = 60.0
    on_max_restarts: Literal["retry", "exit"] = "retry"


class Route(Table, frozen=True, kw_only=True):
    """One entry of `serves` or `websockets`, where what the table says does not fit it."""

    route: str  # as the plain entries: "http", "websocket:/ws/*", "http:example.org/*"
    handover: Handover | None = None  # the table's if unset
    redeliver: bool | None = None  # the table's if unset


class Interface(Pool, frozen=True, kw_only=True):
    """``[interface]``: the processes that hold client connections."""

    bind: str | list[str] = "127.0.0.1:8000"
    server: Server = "uvicorn"
    command: str | list[str] | None = None  # a program of your own instead of a server
    ready: str | None = None  # with command: "notify", "tcp:…", "http:…", "unix:…", "after:2s"
    mode: Literal["direct", "relay"] | None = None
    options: dict[str, object] = {}  # the server's own names
    health_path: str | None = None
    handover: Handover = "transparent"  # what a deploy or a crash does to WebSockets of direct mode
    redeliver: bool = False  # the message that a dead process had in hand goes to another one
    websockets: list[Route] = []  # those for which the two above are others
    handover_rate: PositiveSeconds = 500.0  # WebSockets per second that begin to move, per process
    websocket_timeout: PositiveSeconds = 15.0  # that an open WebSocket may be without a process
    backlog: Annotated[int, Meta(ge=1)] = 2048
    error_pages: dict[str, str] = {}  # in relay mode, by status code: 503 = "pages/503.html"
    unix_mode: str = "660"  # octal mode of a Unix socket's file
    unix_owner: str | None = None  # of that file, a name or number; user if unset
    unix_group: str | None = None  # group if unset, else the main one of the owner
    steering: Literal["auto", "off"] = "auto"


class Workers(Pool, frozen=True, kw_only=True):
    """``[workers.NAME]``: app workers (`serves`), channel workers (`channels`), or a command."""

    command: str | list[str] | None = None
    ready: str | None = None
    on_reload: OnReload = "overlap"

    # Of app workers and channel workers
    asgi: str | None = None  # [app]'s if neither this nor wsgi is set
    python: str | None = None  # [app]'s if unset
    concurrency: Annotated[int, Meta(ge=1)] | None = None  # requests, or messages, at a time in
    # each process: 1,000 or the threads of an app worker, 1 of a channel worker if unset
    redeliver: bool = False  # what a dead worker had in hand goes to another one

    # Of channel workers
    channels: list[str] = []  # names of channels that the project's consumers handle
    only_channels: list[str] = []  # or globs: those of the project's ChannelNameRouter that fit one
    exclude_channels: list[str] = []  # and none of these
    max_deliveries: Annotated[int, Meta(ge=1)] = 3  # of one message, with redeliver
    dead_letters: str | None = None  # file for messages that were given up; the log if unset
    layer: str = "default"  # alias in CHANNEL_LAYERS

    # Of app workers
    serves: list[str | Route] = []  # routes
    wsgi: str | None = None
    threads: Annotated[int, Meta(ge=1)] | None = None  # of a WSGI app; 4 if unset
    queue_limit: Count = 1000  # requests that may wait, in each interface process
    queue_timeout: PositiveSeconds = 30.0  # that a request may wait for a worker that is busy
    worker_timeout: PositiveSeconds = 30.0  # that a request may wait while there is no worker
    websocket_timeout: PositiveSeconds = 15.0  # that an open WebSocket may be without a worker
    disconnect_timeout: PositiveSeconds = 10.0  # that the app may continue when its client has left
    handover: Handover = "transparent"  # what a deploy does to WebSockets
    handover_rate: PositiveSeconds = 500.0  # WebSockets per second, from each interface process
    sticky: str | None = None  # parameter, cookie or header: its value goes to one process


class Program(Pool, frozen=True, kw_only=True):
    """``[programs.NAME]``: whatever else the site needs."""

    command: str | list[str]
    directory: str | None = None  # [app] directory if unset
    ready: str | None = None
    on_reload: OnReload = "auto"


class Task(Table, frozen=True, kw_only=True):
    """``[tasks.NAME]``: a command that must succeed before other pools start."""

    command: str | list[str]
    before: list[str] = []  # "interface", "workers", "programs", or names of pools
    after: list[str] = []
    directory: str | None = None
    environment: dict[str, str] = {}
    user: str | None = None
    group: str | None = None
    umask: str | None = None
    limits: dict[str, int | str] = {}
    timeout: PositiveSeconds = 600.0


class ChannelLayer(Table, frozen=True, kw_only=True):
    """``[channel_layer]``: what ``chansup.layer.ChannelLayer`` is in the site's processes."""

    backend: str | list[object] = "local"  # chansup's own hub, or URLs of Redis or RabbitMQ
    options: dict[str, object] = {}  # of the layer: capacity, expiry, group_expiry, …
    memory: str = "256M"  # that the hub may hold in all
    connections: Annotated[int, Meta(ge=1)] = 1024  # of clients to the hub
    user: str | None = None  # of the hub; needs a supervisor that runs as root


class LocalOptions(Table, frozen=True, kw_only=True):
    """``[channel_layer.options]`` of chansup's own layer."""

    capacity: Annotated[int, Meta(ge=1)] = 100  # messages that may wait in a channel
    channel_capacity: dict[str, Annotated[int, Meta(ge=1)]] = {}  # the same, by globs of names
    expiry: PositiveSeconds = 60.0  # that a message waits at most
    group_expiry: PositiveSeconds = 86400.0  # of a membership that nobody renews
    serializer: str | None = None  # "package.module.Class"
    serializer_format: str = "msgpack"
    symmetric_encryption_keys: list[str] = []
    timeout: PositiveSeconds = 5.0  # that a request waits while no hub answers


class ServerOptions(Table, frozen=True, kw_only=True):
    """Known keys of ``[channel_layer.options]`` on Redis or RabbitMQ; there may be others."""

    capacity: Annotated[int, Meta(ge=1)] = 100
    channel_capacity: dict[str, Annotated[int, Meta(ge=1)]] = {}
    expiry: PositiveSeconds = 60.0
    group_expiry: PositiveSeconds = 86400.0
    prefix: str = "asgi"
    pubsub: bool = False
    symmetric_encryption_keys: list[str] = []


class Fitting(Table, frozen=True, kw_only=True):
    """An entry of ``[handover]``: the WebSockets that all of these globs fit."""

    subprotocol: str | None = None  # the accepted one, or those offered if the app names none
    path: str | None = None  # as the app sees it
    query: str | None = None  # "name=value" of one parameter, or a name


class HandoverRules(Table, frozen=True, kw_only=True):
    """``[handover]``: WebSockets that are closed instead of moved, and those that move after all.

    A string is a glob of the subprotocol.
    """

    close: list[str | Fitting] = []
    move: list[str | Fitting] = []  # whatever else says that they are to be closed


class Rollout(Table, frozen=True, kw_only=True):
    """``[rollout]``: how code is replaced and how everything stops."""

    start_timeout: PositiveSeconds = 60.0  # from spawned to ready
    stop_timeout: PositiveSeconds = 25.0  # from asked to stop to killed
    surge: Annotated[int, Meta(ge=1)] = 1  # replacements at a time in one pool
    settle: Seconds = 0.3  # between "no new connections" and the first close
    drain_spread: Seconds = 5.0  # over which WebSockets are closed
    keep_alive: Seconds = 5.0  # that an idle keep-alive connection may still bring a request
    shutdown_delay: Seconds = 0.0  # accept on after SIGTERM while the load balancer looks away


class Admin(Table, frozen=True, kw_only=True):
    """``[admin]``: health, metrics and the status page."""

    bind: str | None = "127.0.0.1:9180"  # "" turns it off


class Log(Table, frozen=True, kw_only=True):
    """``[log]``: what goes to stdout."""

    format: Literal["auto", "console", "prefix", "json"] = "auto"  # auto: console on a terminal
    level: Literal["debug", "info", "warning", "error"] = "info"  # of chansup's own messages
    keep_lines: Annotated[int, Meta(ge=1, le=10_000)] = 200  # recent lines held per slot


class Supervisor(Table, frozen=True, kw_only=True):
    """``[supervisor]``: the supervising process itself."""

    runtime_directory: str | None = None  # of the control socket; derived from the path if unset
    liveness_timeout: PositiveSeconds = 30.0  # of launchers, where the pool says nothing


class Config(Table, frozen=True, kw_only=True):
    """The whole file."""

    app: App = App()
    interface: Interface | None = None
    workers: dict[Name, Workers] = {}
    programs: dict[Name, Program] = {}
    tasks: dict[Name, Task] = {}
    channel_layer: ChannelLayer = ChannelLayer()
    handover: HandoverRules = HandoverRules()
    rollout: Rollout = Rollout()
    admin: Admin = Admin()
    log: Log = Log()
    supervisor: Supervisor = Supervisor()
