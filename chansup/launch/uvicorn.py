"""Runs uvicorn in this process."""

import asyncio
import contextlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import uvicorn
from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from chansup.carry.carrier import Carrier
from chansup.launch import (
    application,
    carried,
    drain,
    heartbeat,
    options,
    reserved_options,
    retirement,
)
from chansup.launch.child import Child
from chansup.launch.instrument import instrument
from chansup.launch.options import OptionProblem
from chansup.launch.retirement import Retirement

PACKAGE = "uvicorn"
_PROXY_HEADERS = frozenset(
    b"forwarded x-real-ip x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port "
    b"x-forwarded-prefix".split()
)
_UNIX_PEER = ("unix:", 0)  # what stands for a peer of a Unix socket, which has no address
RESERVED_OPTIONS = {
    "app": reserved_options.APPLICATION,
    "factory": reserved_options.APPLICATION,
    "interface": reserved_options.GATEWAY,
    "host": reserved_options.BIND,
    "port": reserved_options.BIND,
    "uds": reserved_options.BIND,
    "fd": reserved_options.BIND,
    "backlog": reserved_options.BACKLOG,
    "workers": reserved_options.PROCESSES,
    "timeout_worker_healthcheck": reserved_options.LIVENESS,
    "timeout_graceful_shutdown": reserved_options.DRAIN,
    "env_file": reserved_options.ENVIRONMENT,
    "reload": reserved_options.RELOAD,
    "reload_dirs": reserved_options.RELOAD,
    "reload_delay": reserved_options.RELOAD,
    "reload_includes": reserved_options.RELOAD,
    "reload_excludes": reserved_options.RELOAD,
    "callback_notify": reserved_options.HEARTBEAT,
    "timeout_notify": reserved_options.HEARTBEAT,
}


def version() -> str:
    """Return the name and version of the server."""
    return f"uvicorn {importlib.metadata.version('uvicorn')}"


def check(given: Mapping[str, object], gateway: str) -> list[OptionProblem]:
    """Return the options that uvicorn does not take."""
    known = options.parameters(Config.__init__, without=RESERVED_OPTIONS)
    return options.check(given, known, RESERVED_OPTIONS, "uvicorn")


class _Server(uvicorn.Server):
    """A server that leaves signals to chansup and says when it is ready."""

    def __init__(self, config: Config, child: Child, carrier: Carrier | None) -> None:
        super().__init__(config)
        self._child = child
        self._carrier = carrier
        self._retire: Callable[[], None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone: uvicorn would raise SIGTERM again after a clean end."""
        yield

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Start, then beat, listen to SIGTERM and report that it is ready."""
        loop = asyncio.get_running_loop()
        heartbeat.start(self._child, loop)
        if self.config.lifespan == "off" and self._child.warm_up is not None:
            await self._child.warm_up.ask({})
        await super().startup(sockets=sockets)
        carrier = self._carrier
        begin = cut = None
        if carrier is not None:
            carrier.start(self._protocol)
            begin, cut = self._begin_to_leave, self._cut
        retiring = Retirement(self._child, self._end, begin=begin, cut=cut)
        self._retire = retirement.on_loop(retiring, loop)
        self._child.ready()

    def _protocol(self) -> Any:
        """Return a protocol object for a WebSocket that another process had."""
        assert self.config.ws_protocol_class is not None
        return self.config.ws_protocol_class(  # type: ignore[call-arg]
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )

    def _begin_to_leave(self) -> None:
        assert self._carrier is not None
        self._carrier.begin_to_leave()
        patience = drain.last_words_after(self._child.launch.drain)
        asyncio.get_running_loop().call_later(patience, self._carrier.hurry)

    def _cut(self) -> None:
        """Have apps leave their WebSockets, then cancel the others."""
        assert self._carrier is not None
        self._carrier.hurry()
        asyncio.get_running_loop().call_soon(self._child.in_flight.cut)

    async def on_tick(self, counter: int) -> bool:
        """Turn the end that `limit_max_requests` wants into a drain."""
        wants_to_exit = await super().on_tick(counter)
        if wants_to_exit and not self.should_exit and self._retire is not None:
            self._retire()
            self._retire = None
        return self.should_exit

    def _end(self) -> None:
        # Whatever is still connected was told to go; do not wait for it to agree.
        if self._carrier is not None:
            self._carrier.left()
        self.config.timeout_graceful_shutdown = 1
        self.should_exit = True


def serve(child: Child) -> int:
    """Run the server until it was drained. Return the exit code."""
    launch = child.launch
    arguments = settings(child)
    carrier = carried.carrier(child, arguments)
    config = Config(**arguments)
    config.app = application.load_asgi(child)
    config.load()
    config.loaded_app = instrument(
        without_idle_middleware(config.loaded_app),
        child.in_flight,
        child.cells,
        launch.health_path,
        config.root_path,
        carrier.run if carrier is not None else None,
    )
    server = _Server(config, child, carrier)
    if hasattr(config, "get_loop_factory"):
        factory = config.get_loop_factory()
    else:  # before uvicorn 0.36
        config.setup_event_loop()
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(server.serve(sockets=child.sockets()))
    return 0


def without_idle_middleware(loaded: Any) -> Any:
    """Return uvicorn's app, going past ProxyHeadersMiddleware where it would do nothing.

    It looks at each request only for a proxy's headers. Looking first pays for what chansup's own
    measurement takes. "unix:" in `forwarded_allow_ips` trusts the peers of a Unix socket: for
    uvicorn they have no address that could be named.
    """
    if type(loaded) is not ProxyHeadersMiddleware:
        return loaded
    inner: Any = loaded.app
    trusts_unix = _UNIX_PEER[0] in loaded.trusted_hosts

    def without_peer(scope: Any, receive: Any, send: Any) -> Any:
        if scope["client"] == _UNIX_PEER:
            scope["client"] = None  # the proxy named nobody
        return inner(scope, receive, send)

    if trusts_unix:
        loaded.app = without_peer

    def application(scope: Any, receive: Any, send: Any) -> Any:
        for name, _ in scope.get("headers", ()):
            if name in _PROXY_HEADERS:
                if trusts_unix and scope["client"] is None:
                    scope["client"] = _UNIX_PEER
                return loaded(scope, receive, send)
        return inner(scope, receive, send)

    return application


def settings(child: Child) -> dict[str, Any]:
    """Return the arguments of uvicorn.Config."""
    chosen: dict[str, Any] = dict(child.launch.options)
    access_log = bool(chosen.setdefault("access_log", False))
    # At "info" uvicorn writes a line for each WebSocket, and four when it starts.
    chosen.setdefault("log_level", "info" if access_log else "warning")
    return {
        **chosen,
        "app": child.launch.application,
        "interface": "asgi3",
        "workers": 1,
        "backlog": child.backlog,
    }
