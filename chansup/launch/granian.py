"""Runs granian in this process: its worker, without the parent that spawns workers.

Granian has no public way to do so: `private_parts.GRANIAN` has the parts used of its inside.
"""

import asyncio
import importlib.metadata
import socket
from collections.abc import Callable, Mapping
from typing import Any

import granian._signals
import granian.server.common
import granian.server.mp
from granian._granian import SocketHolder, WorkerSignal
from granian.constants import Interfaces
from granian.errors import ConfigurationError
from granian.server.common import AbstractServer
from granian.server.mp import MPServer

from chansup.launch import application, heartbeat, options, reserved_options, retirement, warm_up
from chansup.launch.child import Child
from chansup.launch.instrument import instrument
from chansup.launch.options import OptionProblem
from chansup.launch.retirement import Retirement
from chansup.launch.wsgi import instrument_wsgi
from chansup.log_lines import keep_on_one_line

# What it is given and gives is typed for granian's own use of it.
_processes: Any = granian.server.mp
_common: Any = granian.server.common
_signals: Any = granian._signals
_holder: Any = SocketHolder

PACKAGE = "granian"
RESERVED_OPTIONS = {
    "target": reserved_options.APPLICATION,
    "factory": reserved_options.APPLICATION,
    "interface": reserved_options.GATEWAY,
    "address": reserved_options.BIND,
    "port": reserved_options.BIND,
    "uds": reserved_options.BIND,
    "uds_permissions": reserved_options.UNIX_MODE,
    "backlog": reserved_options.BACKLOG,
    "workers": reserved_options.PROCESSES,
    "respawn_failed_workers": reserved_options.RESTARTS,
    "respawn_interval": reserved_options.RESTARTS,
    "rss_sample_interval": reserved_options.RESTARTS,
    "rss_samples": reserved_options.RESTARTS,
    "workers_lifetime": reserved_options.RESTARTS,
    "workers_max_rss": reserved_options.RESTARTS,
    "workers_kill_timeout": reserved_options.DRAIN,
    "working_dir": reserved_options.DIRECTORY,
    "env_files": reserved_options.ENVIRONMENT,
    "metrics_enabled": reserved_options.METRICS,
    "metrics_scrape_interval": reserved_options.METRICS,
    "metrics_address": reserved_options.METRICS,
    "metrics_port": reserved_options.METRICS,
    "reload": reserved_options.RELOAD,
    "reload_paths": reserved_options.RELOAD,
    "reload_ignore_dirs": reserved_options.RELOAD,
    "reload_ignore_patterns": reserved_options.RELOAD,
    "reload_ignore_paths": reserved_options.RELOAD,
    "reload_filter": reserved_options.RELOAD,
    "reload_tick": reserved_options.RELOAD,
    "reload_ignore_worker_failure": reserved_options.RELOAD,
    "process_name": reserved_options.DAEMON,
    "pid_file": reserved_options.DAEMON,
}


def version() -> str:
    """Return the name and version of the server."""
    return f"granian {importlib.metadata.version('granian')}"


def check(given: Mapping[str, object], gateway: str) -> list[OptionProblem]:
    """Return the options that granian does not take."""
    return options.check(given, _known_options(), RESERVED_OPTIONS, "granian")


def _known_options() -> dict[str, object]:
    return options.parameters(AbstractServer.__init__, without=RESERVED_OPTIONS)


class _Stop:
    """Stands where granian expects its one shutdown signal, and has one for each listener."""

    def __init__(self) -> None:
        self.signals: list[Any] = []
        self._pending = 0
        self._when_stopped: Callable[[], None] = lambda: None

    def add_cb(self, when_stopped: Callable[[], None]) -> None:
        """Take what granian does once its runtime has stopped."""
        self._when_stopped = when_stopped

    def another(self) -> Any:
        """Return a signal for one more runtime."""
        signal = WorkerSignal()
        signal.add_cb(self._stopped)
        self.signals.append(signal)
        self._pending += 1
        return signal

    def set(self) -> None:
        """Stop every runtime."""
        for signal in self.signals:
            signal.set()

    def _stopped(self) -> None:
        self._pending -= 1
        if not self._pending:
            self._when_stopped()


class _WorkerForEachListener:
    """Stands where granian makes its worker, and makes one for each listener."""

    def __init__(self, real: Any, holders: list[Any]) -> None:
        self._real = real
        self._holders = holders

    def __call__(self, worker_id: int, _sock: Any, *arguments: Any) -> "_Workers":
        return _Workers(
            [(self._real(worker_id, (None, holder), *arguments), holder.is_uds())
             for holder in self._holders]
        )  # fmt: skip


class _Workers:
    def __init__(self, workers: list[tuple[Any, bool]]) -> None:
        self._workers = workers

    def __getattr__(self, method: str) -> Callable[[Any, Any, _Stop], None]:
        # serve_mtr, serve_str, serve_mtr_uds, serve_str_uds: of the first listener's kind
        base = method.removesuffix("_uds")

        def serve(scheduler: Any, loop: Any, stop: _Stop) -> None:
            for worker, is_unix in self._workers:
                run = getattr(worker, f"{base}_uds" if is_unix else base)
                run(scheduler, loop, stop.another())

        return serve


def serve(child: Child) -> int:
    """Run the server until it was drained. Return the exit code."""
    keep_on_one_line("granian.access")  # paths are decoded, and a client may write a newline
    is_wsgi = child.launch.gateway == "wsgi"
    app = application.load_as_it_is(child)
    if is_wsgi:
        warm_up.prove_wsgi(app, child.launch.ready_request)
        app = instrument_wsgi(app, child)
    else:
        child.in_flight.receive_blocks_close = True
        app = application.warmed_up(app, child)
        app = instrument(app, child.in_flight, child.cells, child.launch.health_path,
                         str(child.launch.options.get("url_path_prefix") or ""))  # fmt: skip
    _common.setproctitle = None  # `ps` shows the slot
    try:
        _Server(child, is_wsgi, **_settings(child)).serve(
            target_loader=lambda: app, wrap_loader=False
        )
    except ConfigurationError as error:
        raise application.GatewayError(f"granian refuses its option {error}") from error
    return 0


class _Server(MPServer):
    """A parent that becomes its only worker, after granian has validated and derived everything."""

    def __init__(self, child: Child, is_wsgi: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self._child = child
        self._is_wsgi = is_wsgi

    def _serve(self, spawn_target: Any, target_loader: Any) -> None:
        child = self._child
        holders = [
            _holder(listener.fileno(), listener.family == socket.AF_UNIX, child.backlog)
            for listener in child.sockets()
        ]
        vars(self).update(_ssp=None, _shd=holders[0], _sso=None)
        name = "WSGIWorker" if self._is_wsgi else "ASGIWorker"
        workers = _WorkerForEachListener(getattr(_processes, name), holders)
        setattr(_processes, name, workers)
        stop = _Stop()
        _signals.set_sync_signals = lambda: _on_thread(child, stop)
        _signals.set_loop_signals = lambda loop: _on_loop(child, loop, stop)
        run, arguments = self._in_worker(spawn_target, target_loader)
        run(*arguments)

    def _in_worker(self, spawn_target: Any, target_loader: Any) -> tuple[Any, tuple[Any, ...]]:
        """Return what granian would run in the process that it would spawn now."""
        captured: list[tuple[Any, tuple[Any, ...]]] = []

        def capture(parent: Any, idx: int, target: Any, args: tuple[Any, ...]) -> None:
            captured.append((target, args))

        original = _processes.WorkerProcess
        _processes.WorkerProcess = capture
        try:
            self._spawn_worker(0, spawn_target, target_loader)
        finally:
            _processes.WorkerProcess = original
        return captured[0]


def _on_loop(child: Child, loop: asyncio.AbstractEventLoop, stop: _Stop) -> _Stop:
    loop.call_soon(heartbeat.start, child, loop)
    retirement.when_accepting(Retirement(child, stop.set), loop)
    return stop


def _on_thread(child: Child, stop: _Stop) -> _Stop:
    heartbeat.start_thread(child)
    retirement.on_thread(Retirement(child, stop.set, cut=child.listeners.disconnect))
    retirement.thread_when_accepting(child)
    return stop


def _settings(child: Child) -> dict[str, Any]:
    known = _known_options()
    given = child.launch.options
    chosen = {name: options.convert(known[name], value) for name, value in given.items()}
    if "log_level" not in given and not given.get("log_access"):
        chosen["log_level"] = options.convert(known["log_level"], "warning")
    return {
        **chosen,
        "target": child.launch.application,
        "interface": Interfaces.WSGI if child.launch.gateway == "wsgi" else Interfaces.ASGI,
        "backlog": child.backlog,
    }
