"""Runs hypercorn in this process."""

import asyncio
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from hypercorn.asyncio.run import worker_serve
from hypercorn.config import Config, Sockets
from hypercorn.utils import LifespanFailureError, wrap_app

from chansup.launch import application, heartbeat, options, reserved_options, retirement
from chansup.launch.child import Child
from chansup.launch.instrument import instrument
from chansup.launch.options import OptionProblem
from chansup.launch.retirement import Retirement
from chansup.log_lines import keep_on_one_line

PACKAGE = "hypercorn"
_LOOPS = ("asyncio", "uvloop")
RESERVED_OPTIONS = {
    "application_path": reserved_options.APPLICATION,
    "bind": reserved_options.BIND,
    "insecure_bind": reserved_options.BIND,
    "quic_bind": "chansup opens no UDP sockets: HTTP/3 is not available",
    "backlog": reserved_options.BACKLOG,
    "workers": reserved_options.PROCESSES,
    "daemon": reserved_options.DAEMON,
    "pid_path": reserved_options.DAEMON,
    "debug": "set PYTHONASYNCIODEBUG in [app] environment instead",
    "graceful_timeout": reserved_options.DRAIN,
    "use_reloader": reserved_options.RELOAD,
    "user": reserved_options.USER,
    "group": reserved_options.USER,
    "umask": reserved_options.USER,
    "max_requests": reserved_options.RESTARTS,
    "max_requests_jitter": reserved_options.RESTARTS,
}
_NOT_OPTIONS = ("cert_reqs", "log", "ssl_enabled", "logger_class", "verify_flags", "verify_mode")


def version() -> str:
    """Return the name and version of the server."""
    return f"hypercorn {importlib.metadata.version('hypercorn')}"


def check(given: Mapping[str, object], gateway: str) -> list[OptionProblem]:
    """Return the options that hypercorn does not take."""
    problems = options.check(given, known_options(), RESERVED_OPTIONS, "hypercorn")
    loop = given.get("worker_class", "asyncio")
    if loop not in _LOOPS:
        message = f'expected "asyncio" or "uvloop", got {loop!r}'
        problems.append(OptionProblem("worker_class", message))
    return problems


def known_options() -> dict[str, object]:
    """Return what hypercorn.Config has, with the type of each default."""
    defaults = Config()
    names = [name for name in dir(Config) if not name.startswith("_")]
    return {
        name: _hint(getattr(defaults, name))
        for name in names
        if name not in RESERVED_OPTIONS
        and name not in _NOT_OPTIONS
        and not callable(getattr(Config, name))
        and hasattr(defaults, name)
    }


def _hint(default: object) -> object:
    if isinstance(default, bool):
        return bool
    if isinstance(default, int | float):
        return float | None  # 0 disables nothing here, None does
    return str if isinstance(default, str) else None


def serve(child: Child) -> int:
    """Run the server until it was drained. Return the exit code."""
    keep_on_one_line("hypercorn.access")  # paths are decoded, and a client may write a newline
    config = Config()
    for name, value in child.launch.options.items():
        setattr(config, name, value)
    config.backlog = child.backlog
    config.graceful_timeout = child.launch.drain.timeout
    config.bind = []
    if "loglevel" not in child.launch.options and config.accesslog is None:
        config.loglevel = "WARNING"  # "Running on …" is said once per process
    _ = config.log  # made now: a log config that is broken is known before anything is accepted
    app = application.load_asgi(child)
    app = instrument(app, child.in_flight, child.cells, child.launch.health_path)
    with asyncio.Runner(loop_factory=_loop_factory(config.worker_class)) as runner:
        try:
            runner.run(_serve(child, config, app))
        except LifespanFailureError as error:
            raise application.StartupError(str(error)) from error
    return 0


async def _serve(child: Child, config: Config, app: Any) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    heartbeat.start(child, loop)
    retirement.when_accepting(Retirement(child, ended.set), loop)
    sockets = child.sockets()
    adopted = Sockets(sockets, [], []) if config.ssl_enabled else Sockets([], sockets, [])
    wrapped = wrap_app(app, config.wsgi_max_body_size, "asgi")
    await worker_serve(wrapped, config, sockets=adopted, shutdown_trigger=ended.wait)


def _loop_factory(name: str) -> Any:
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return None
