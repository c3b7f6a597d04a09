"""Private parts of other packages that chansup uses, each with a version that is known to have it.

Nobody promises that they stay. Who uses some asks `lacking` first, so that a version without them
is refused with one line instead of a traceback in the middle of its work.
"""

import importlib
import importlib.metadata
import re
import types
from dataclasses import dataclass


@dataclass(frozen=True)
class PrivateParts:
    """What one piece of chansup takes from one package."""

    package: str  # as it is installed
    since: str  # the oldest version that works
    known: str  # the version that is tested
    purpose: str  # what does not work without them
    parts: tuple[str, ...]  # "module:name" or "module:Class.name"
    instead: str = ""  # what happens without them; empty: the process does not start


GRANIAN = PrivateParts(
    "granian",
    "2.8.6",
    "2.8.7",
    "one worker without granian's parent, on sockets that are open already",
    (
        "granian._granian:SocketHolder",
        "granian._granian:WorkerSignal",
        "granian._signals:set_loop_signals",
        "granian._signals:set_sync_signals",
        "granian.server.common:AbstractServer",
        "granian.server.common:setproctitle",
        "granian.server.mp:ASGIWorker",
        "granian.server.mp:MPServer._spawn_asgi_lifespan_worker",
        "granian.server.mp:MPServer._spawn_worker",
        "granian.server.mp:MPServer._spawn_wsgi_worker",
        "granian.server.mp:WSGIWorker",
        "granian.server.mp:WorkerProcess",
    ),
)
DAPHNE = PrivateParts(
    "daphne",
    "4.1.2",
    "4.2.3",
    "sockets that are open already, 1012 as a close code, empty messages and the drain",
    (
        "daphne.server:reactor",  # first: daphne.server installs the reactor
        "daphne.server:serverFromString",
        "daphne.server:twisted_loop",
        "daphne.server:Server.abort_start",
        "daphne.http_protocol:WebRequest._response_started",
        "daphne.http_protocol:WebRequest.handle_exception",
        "daphne.http_protocol:WebRequest.handle_reply",
        "daphne.ws_protocol:WebSocketProtocol.handle_reply",
        "daphne.ws_protocol:WebSocketProtocol.sendCloseFrame",
        "daphne.ws_protocol:WebSocketProtocol.serverClose",
        "daphne.ws_protocol:WebSocketProtocol.serverSend",
    ),
)
TWISTED = PrivateParts(
    "twisted",
    "24.7",
    "26.10.0",
    "Unix sockets and TLS under daphne",
    (
        "twisted.internet.unix:Port._fromListeningDescriptor",
        "twisted.internet.unix:Port._preexistingSocket",
        "twisted.internet.tcp:Port._shouldShutdown",
        "twisted.internet.endpoints:_parseSSL",
        "twisted.web.http:HTTPChannel.forceAbortClient",
        "twisted.web.http:HTTPChannel.persistent",
    ),
)
GUNICORN = PrivateParts(
    "gunicorn",
    "24",
    "27.0.1",
    "one worker without gunicorn's arbiter, on sockets that are open already",
    (
        "gunicorn.config:KNOWN_SETTINGS",
        "gunicorn.sock:_sock_type",
        "gunicorn.workers.gthread:ThreadWorker.max_keepalived",
        "gunicorn.workers.gthread:ThreadWorker.method_queue",
        "gunicorn.workers.gthread:ThreadWorker.set_accept_enabled",
        "gunicorn.workers.sync:SyncWorker.PIPE",
        "gunicorn.workers.sync:SyncWorker.init_process",
        "gunicorn.workers.sync:SyncWorker.init_signals",
    ),
)
GUNICORN_ASGI = PrivateParts(
    "gunicorn",
    "25",
    "27.0.1",
    "ASGI apps under gunicorn",
    ("gunicorn.workers.gasgi:ASGIWorker._serve", "gunicorn.workers.gasgi:ASGIWorker.init_signals"),
)
GUNICORN_CLOSE = PrivateParts(
    "gunicorn",
    "27",
    "27.0.1",
    "the end of kept connections in a drain, under gunicorn's ASGI worker",
    ("gunicorn.asgi.protocol:ASGIProtocol._will_close",),
    "a line in the log, and a drain that waits for idle connections as long as it may",
)
HYPERCORN = PrivateParts(
    "hypercorn",
    "0.17.3",
    "0.18.0",
    "sockets that are open already",
    (
        "hypercorn.asyncio.run:worker_serve",
        "hypercorn.config:Sockets",
        "hypercorn.utils:LifespanFailureError",
        "hypercorn.utils:wrap_app",
    ),
)
UVICORN = PrivateParts(
    "uvicorn",
    "0.34",
    "0.54.0",
    "the start, the drain, the measurements and carried WebSockets of uvicorn",
    (
        "uvicorn:Server.capture_signals",
        "uvicorn:Server.on_tick",
        "uvicorn:Server.should_exit",
        "uvicorn:Server.startup",
        "uvicorn.config:Config.loaded_app",
        "uvicorn.config:WS_PROTOCOLS",
        "uvicorn.importer:import_from_string",
        "uvicorn.middleware.proxy_headers:ProxyHeadersMiddleware.trusted_hosts",
    ),
)
REDIS = PrivateParts(
    "channels_redis",
    "4.2",
    "4.3.0",
    "channel workers that lose no message when they end",
    (
        "channels_redis.core:RedisChannelLayer.connection",
        "channels_redis.core:RedisChannelLayer.deserialize",
        "channels_redis.core:RedisChannelLayer.expiry",
        "channels_redis.core:RedisChannelLayer.prefix",
        "channels_redis.core:RedisChannelLayer.receive_single",
        "channels_redis.core:RedisChannelLayer.ring_size",
    ),
    "a line in the log, and the layer's own receive(), which may lose a message at the end",
)
REDIS_SERIALIZERS = PrivateParts(
    "channels_redis",
    "4.2",
    "4.3.0",
    "serializers that an app registered with channels_redis",
    ("channels_redis.serializers:SerializersRegistry._registry",),
    "a serializer that is registered with chansup.layer.serializers",
)
ALL = (
    GRANIAN, DAPHNE, TWISTED, GUNICORN, GUNICORN_ASGI, GUNICORN_CLOSE, HYPERCORN, UVICORN, REDIS,
    REDIS_SERIALIZERS,
)  # fmt: skip
OF_SERVERS = {
    "granian": (GRANIAN,),
    "daphne": (DAPHNE, TWISTED),
    "gunicorn": (GUNICORN,),
    "hypercorn": (HYPERCORN,),
    "uvicorn": (UVICORN,),
}


def lacking(*wanted: PrivateParts) -> str:
    """Return one line that names missing parts and the remedy, or an empty one.

    A package that is not installed lacks nothing.
    """
    return "; ".join(filter(None, map(_lacking, wanted)))


def _lacking(wanted: PrivateParts) -> str:
    try:
        version = importlib.metadata.version(wanted.package)
    except importlib.metadata.PackageNotFoundError:
        return ""
    if _numbers(version) < _numbers(wanted.since):
        return (
            f"{wanted.package} {version} is too old for {wanted.purpose}: "
            f'install "{wanted.package}>={wanted.since}"'
        )
    missing = [part for part in wanted.parts if not _is_there(part)]
    if not missing:
        return ""
    names = ", ".join(part.replace(":", ".") for part in missing)
    return (
        f"{wanted.package} {version} has no {names}. chansup needs it for {wanted.purpose}: "
        f'install "{wanted.package}=={wanted.known}", the version that it knows'
    )


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def _is_there(part: str) -> bool:
    module, _, path = part.partition(":")
    try:
        owner = importlib.import_module(module)
    except ImportError:
        return False
    outer, _, name = path.rpartition(".")
    found = getattr(owner, outer, None) if outer else owner
    return found is not None and (hasattr(found, name) or _assigns(found, name))


def _assigns(kind: object, name: str) -> bool:
    """Say whether a method of a class, or of one above it, sets an attribute of that name."""
    return any(
        isinstance(function, types.FunctionType) and name in function.__code__.co_names
        for one in getattr(kind, "__mro__", ())
        for function in vars(one).values()
    )
