"""Loads the app that is to be served."""

import importlib
import inspect
import os
import sys
from typing import Any, Literal

from chansup import tracebacks
from chansup.errors import ChansupError
from chansup.launch import django_log, frames, remedies, system_checks
from chansup.launch.adapter import Adapter
from chansup.launch.child import Child
from chansup.launch.warm_up import WarmUp
from chansup.protocol.launch import Launch
from chansup.relay.interface import application as relay
from chansup.relay.interface.process_counters import ProcessCounters

Gateway = Literal["asgi", "wsgi"]

SPEAK_WSGI = ("granian", "gunicorn")  # the others get a WSGI app adapted


class ApplicationError(ChansupError):
    """The app cannot be loaded. `details` is the traceback of its own frames, if there is one."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class ConfigurationError(ChansupError):
    """The config asks for what this app cannot give: trying again would change nothing."""


class GatewayError(ConfigurationError):
    """The app speaks a gateway that the server does not, and what would help is not installed."""


class ServerError(ConfigurationError):
    """The server is not installed, or a version of it that chansup cannot run."""


class StartupError(ChansupError):
    """The app was loaded, but its lifespan startup failed."""


def load(reference: str, gateway: str | None = None) -> Any:
    """Import ``package.module:attribute`` (the attribute may be dotted) and return what it names.

    Raises ApplicationError, whatever the app's import raised; also if the app certainly speaks the
    other gateway than the one that is named.
    """
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise ApplicationError(f'"{reference}": expected "package.module:attribute"')
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ApplicationError(
                f'no module named "{error.name}" (looked for in {sys.path[0]} and the environment)'
            ) from error
        raise _import_failed(module_name, error) from error
    except SystemExit as error:
        raise _import_failed(module_name, error) from error
    except Exception as error:
        raise _import_failed(module_name, error) from error
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            raise ApplicationError(f'module "{module_name}" has no "{attribute}"') from error
    if not callable(found):
        raise ApplicationError(f'"{reference}" is a {type(found).__name__}, not an application')
    spoken = gateway_of(found)
    if gateway is not None and spoken not in (None, gateway):
        raise ApplicationError(
            f'"{reference}" is {"an ASGI" if spoken == "asgi" else "a WSGI"} application: '
            f'write {spoken} = "{reference}" in place of {gateway}'
        )
    return found


def gateway_of(application: Any) -> Gateway | None:
    """Return what an app speaks, or None unless its signature makes that certain.

    What can only be called with two arguments and is not a coroutine function is WSGI; what can
    only be called with three is ASGI. A class says nothing: it is called to make something of it.
    """
    if inspect.isclass(application):
        return None
    fits = [count for count in range(1, 5) if _takes(application, count)]
    called = (application, getattr(type(application), "__call__", None))  # noqa: B004
    if fits == [2] and not any(map(inspect.iscoroutinefunction, called)):
        return "wsgi"
    return "asgi" if fits == [3] else None


def _takes(application: Any, count: int) -> bool:
    """Say whether an app can be called with so many arguments; False where nobody knows."""
    try:
        # What a decorator wraps may take other arguments than what it returns.
        signature = inspect.signature(application, follow_wrapped=False)
        signature.bind(*[None] * count)
    except (TypeError, ValueError):
        return False
    return True


def load_asgi(child: Child) -> Any:
    """Return the app as ASGI, adapted where it is WSGI. Raises as `load` and `wsgi_to_asgi` do."""
    application = load_as_it_is(child)
    if child.launch.gateway == "wsgi":
        application = wsgi_to_asgi(application)
    return warmed_up(application, child)


def warmed_up(application: Any, child: Child) -> Any:
    """Return an ASGI app whose lifespan startup waits for the answer that `ready` asks for."""
    if child.launch.ready_request is None:
        return application
    warm_up = child.warm_up = WarmUp(application, child.launch.ready_request)
    return warm_up


def load_as_it_is(child: Child) -> Any:
    """Return the app, ASGI or WSGI; in relay mode, the relay. Raises as `load` does."""
    launch = child.launch
    if launch.relay is None:
        return load_and_check(launch)
    child.in_flight.relays = True
    name = f"{launch.pool}.{launch.slot}"
    counters = ProcessCounters(child.in_flight, child.cells)
    application = relay.create(name, launch.relay, counters)
    child.in_flight.serves = lambda: application.can_serve
    child.on_loop = application.start  # not every server runs a lifespan
    child.warm_up = application
    return application


def load_and_check(launch: Launch) -> Any:
    """Return the app as it is. One of Django passed its system checks and shows its errors.

    Raises ApplicationError.
    """
    application = load(launch.application, launch.gateway)
    if launch.system_checks:
        check_system()
    django_log.show_errors()
    return application


def check_system() -> int:
    """Run Django's system checks. Return the number of warnings. Raises ApplicationError."""
    outcome = system_checks.run()
    if outcome.failure is not None:
        raise ApplicationError(*outcome.failure)
    return outcome.warnings


def load_for_worker(launch: Launch, threads: int) -> Any:
    """Return the app of an app worker as ASGI. Raises as `load` and `wsgi_to_asgi` do."""
    application = load_and_check(launch)
    return wsgi_to_asgi(application, threads) if launch.gateway == "wsgi" else application


def wsgi_to_asgi(application: Any, threads: int = 10) -> Any:
    """Return an ASGI app that runs the WSGI app in that many threads.

    Raises GatewayError without the optional package a2wsgi.
    """
    try:
        from a2wsgi import WSGIMiddleware
    except ModuleNotFoundError as error:
        raise GatewayError(
            'this server speaks only ASGI: install "chansup[wsgi]" to run a WSGI app on it'
        ) from error
    return Adapter(application, threads, WSGIMiddleware)


def _import_failed(module_name: str, error: BaseException) -> ApplicationError:
    place = frames.place(error, os.getcwd())
    message = f'importing "{module_name}" failed{place}: {tracebacks.last_line(error)}'
    if remedy := remedies.of_import(error):
        message = f"{message.rstrip('.')}. {remedy}"
    return ApplicationError(
        message,
        tracebacks.trimmed(error, frames.are_on_the_way),
    )
