"""Runs one of gunicorn's workers in this process, without its arbiter."""

import asyncio
import functools
import importlib.metadata
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any

import gunicorn.sock
from gunicorn.config import KNOWN_SETTINGS, Config
from gunicorn.errors import ConfigError
from gunicorn.workers.gthread import ThreadWorker
from gunicorn.workers.sync import SyncWorker

from chansup import private_parts
from chansup.launch import application, heartbeat, options, reserved_options, retirement, warm_up
from chansup.launch.child import Child
from chansup.launch.instrument import instrument
from chansup.launch.options import OptionProblem
from chansup.launch.retirement import Retirement
from chansup.launch.wsgi import instrument_wsgi
from chansup.log_lines import keep_on_one_line

PACKAGE = "gunicorn"
_ASGI_WORKERS = ("asgi",)
_WSGI_WORKERS = ("gthread", "sync")
_DEFAULT_THREADS = 4  # gunicorn's one would let one slow client stop the process
RESERVED_OPTIONS = {
    "wsgi_app": reserved_options.APPLICATION,
    "bind": reserved_options.BIND,
    "backlog": reserved_options.BACKLOG,
    "reuse_port": reserved_options.BIND,
    "workers": reserved_options.PROCESSES,
    "timeout": reserved_options.LIVENESS,
    "graceful_timeout": reserved_options.DRAIN,
    "max_requests": reserved_options.RESTARTS,
    "max_requests_jitter": reserved_options.RESTARTS,
    "reload": reserved_options.RELOAD,
    "reload_engine": reserved_options.RELOAD,
    "reload_extra_files": reserved_options.RELOAD,
    "preload_app": "each process loads the app itself: remove it",
    "config": "write gunicorn's settings into [interface.options]",
    "check_config": "use `chansup check` instead",
    "print_config": "use `chansup check` instead",
    "chdir": reserved_options.DIRECTORY,
    "pythonpath": "set PYTHONPATH in [app] environment instead",
    "daemon": reserved_options.DAEMON,
    "pidfile": reserved_options.DAEMON,
    "proc_name": reserved_options.DAEMON,
    "raw_env": reserved_options.ENVIRONMENT,
    "user": reserved_options.USER,
    "group": reserved_options.USER,
    "umask": reserved_options.USER,
    "initgroups": reserved_options.USER,
}


def version() -> str:
    """Return the name and version of the server."""
    return f"gunicorn {importlib.metadata.version('gunicorn')}"


def check(given: Mapping[str, object], gateway: str) -> list[OptionProblem]:
    """Return the options that gunicorn does not take."""
    known: dict[str, object] = {
        setting.name: None for setting in KNOWN_SETTINGS if setting.name not in RESERVED_OPTIONS
    }
    problems = options.check(given, known, RESERVED_OPTIONS, "gunicorn")
    refused = {problem.name for problem in problems}
    config = Config()
    for name, value in given.items():
        if name not in refused:
            try:
                config.set(name, value)
            except (AttributeError, ConfigError, TypeError, ValueError) as error:
                problems.append(OptionProblem(name, str(error)))
    workers = _ASGI_WORKERS if gateway == "asgi" else _WSGI_WORKERS
    worker = given.get("worker_class", workers[0])
    if worker not in workers:
        names = " or ".join(f'"{name}"' for name in workers)
        message = f'expected {names} for an {gateway.upper()} app, got "{worker}"'
        problems.append(OptionProblem("worker_class", message))
    return problems


class _Application:
    """What a worker asks for its app."""

    def __init__(self, config: Config, app: Any) -> None:
        self.cfg = config
        self._app = app

    def wsgi(self) -> Any:
        """Return the app, of whatever gateway."""
        return self._app


def serve(child: Child) -> int:
    """Run the worker until it was drained. Return the exit code."""
    launch = child.launch
    keep_on_one_line("gunicorn.access")  # paths are decoded, and a client may write a newline
    config = Config()
    for name, value in launch.options.items():
        config.set(name, value)
    config.set("graceful_timeout", max(1, int(launch.drain.timeout)))
    if "loglevel" not in launch.options and not config.accesslog:
        config.set("loglevel", "warning")
    app = application.load_as_it_is(child)
    if launch.gateway == "asgi":
        app = application.warmed_up(app, child)
        app = instrument(app, child.in_flight, child.cells, launch.health_path, config_root(config))
        worker_class = _asgi_worker()
    else:
        warm_up.prove_wsgi(app, launch.ready_request)
        app = instrument_wsgi(app, child)
        worker_class = _worker_class(launch.options)
        if "threads" not in launch.options:
            config.set("threads", _DEFAULT_THREADS)
    sockets = [_adopt(listener, config) for listener in child.sockets()]
    log = config.logger_class(config)
    worker = worker_class(
        0, os.getppid(), sockets, _Application(config, app),
        min(1.0, launch.heartbeat_interval), config, log,
    )  # fmt: skip
    worker.child = child
    worker.pid = os.getpid()
    worker.init_process()
    return 0


def config_root(config: Config) -> str:
    """Return the path that gunicorn's ASGI worker serves below, or nothing."""
    return str(getattr(config, "root_path", "") or "")


def _worker_class(given: Mapping[str, object]) -> Any:
    return _Sync if given.get("worker_class") == "sync" else _Threads


def _adopt(listener: socket.socket, config: Config) -> Any:
    # A duplicate, as gunicorn closes the descriptor it is given.
    address = listener.getsockname()
    kind = gunicorn.sock._sock_type(address)
    adopted = kind(address, config, None, fd=os.dup(listener.fileno()))
    adopted.sock.set_inheritable(False)
    return adopted


class _Sync(SyncWorker):  # type: ignore[misc]
    """One request at a time, each on a connection of its own.

    Nothing waits in this process, so the drain is short: finish the request in hand. It uses
    select(2), so it stops accepting by leaving its loop.
    """

    child: Child

    def init_signals(self) -> None:
        """Leave the signals to the drain."""

    def notify(self) -> None:
        """Beat. A worker that is busy with one long request does not."""
        heartbeat.beat(self.child)

    def run(self) -> None:
        """Report that it is ready, and accept."""
        child, leave = self.child, self._leave
        retirement.on_thread(
            Retirement(child, leave, stop_accepting=leave, cut=child.listeners.disconnect)
        )
        child.ready()
        super().run()

    def _leave(self) -> None:
        self.alive = False
        os.write(self.PIPE[1], b"1")


class _Threads(ThreadWorker):  # type: ignore[misc]
    """A loop that accepts, and threads that run the app."""

    child: Child

    def init_signals(self) -> None:
        """Leave the signals to the drain."""

    def notify(self) -> None:
        """Beat: the loop turns, whatever the threads do."""
        heartbeat.beat(self.child)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Accept or not, but never again once the drain has begun."""
        if not (enabled and self.child.in_flight.draining):
            super().set_accept_enabled(enabled)

    def run(self) -> None:
        """Report that it is ready, and serve."""
        child = self.child
        retirement.on_thread(
            Retirement(child, self._leave, begin=self._keep_none, cut=child.listeners.disconnect)
        )
        retirement.thread_when_accepting(child)
        super().run()

    def _keep_none(self) -> None:
        self.max_keepalived = 0  # each response says "Connection: close"

    def _leave(self) -> None:
        self.alive = False
        self.method_queue.defer(lambda: None)


@functools.cache
def _asgi_worker() -> Any:
    if problem := private_parts.lacking(private_parts.GUNICORN_ASGI):
        raise application.ServerError(problem)
    from gunicorn.workers.gasgi import ASGIWorker

    class Asgi(ASGIWorker):  # type: ignore[misc]
        child: Child
        serving: asyncio.Task[None] | None = None

        def init_signals(self) -> None:
            """Leave the signals to the drain."""

        async def _serve(self) -> None:
            loop = asyncio.get_running_loop()
            self.serving = asyncio.current_task()
            heartbeat.start(self.child, loop)
            retirement.when_accepting(Retirement(self.child, self._leave), loop)
            _close_when_draining(self.child)
            if self.child.warm_up is not None and self.cfg.asgi_lifespan == "off":
                await self._warm_up(self.child.warm_up)
            await super()._serve()

        async def _warm_up(self, asked: warm_up.Asked) -> None:
            try:
                await asked.ask({})
            except warm_up.NotReadyError as error:
                self.log.error("%s", error)
                raise SystemExit(1) from None

        def _leave(self) -> None:
            self.alive = False
            if self.serving is not None:
                self.serving.cancel()  # wakes it from its sleep of a second

    return Asgi


def _close_when_draining(child: Child) -> None:
    """Have gunicorn's own side end a connection after a response that says so.

    Its answer for a request must not change between the headers and the end of the response, or a
    connection would be closed that was said to be kept.
    """
    if problem := private_parts.lacking(private_parts.GUNICORN_CLOSE):
        sys.stderr.write(f"{problem}; until then a drain waits for idle connections\n")
        return
    from gunicorn.asgi.protocol import ASGIProtocol

    protocol: Any = ASGIProtocol
    original = protocol._will_close
    in_flight = child.in_flight

    def will_close(self: Any, request: Any, response_requires_close: bool) -> bool:
        asked, answer = vars(self).get("_chansup_answer", (None, False))
        if asked is not request:
            answer = in_flight.draining
            self._chansup_answer = (request, answer)
        return bool(answer or original(self, request, response_requires_close))

    protocol._will_close = will_close
