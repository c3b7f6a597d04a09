"""``python -m chansup.launch.probe``: says what is wrong with a server, its options and the app.

Reads one `protocol.probe.Question` from stdin and prints one `protocol.probe.Answer`, as JSON, the
last line of stdout.
It imports the app's module, which is its purpose, and serves nothing.
"""

import importlib.util
import os
import sys
from collections.abc import Iterator

from chansup.config import session_packages
from chansup.config.routes import parse as parse_route
from chansup.launch import __main__ as launcher
from chansup.launch import application, differences, routers
from chansup.protocol import channel_layer, encoding
from chansup.protocol.probe import Answer, Consumption, Finding, Question

_LAYER_ERROR = "chansup.layer.errors.LayerConfigError"


def probe(question: Question) -> Answer:
    """Import the server and the app, and return what is wrong."""
    os.chdir(question.directory)
    sys.path.insert(0, question.directory)
    problems: list[Finding] = []
    warnings: list[Finding] = []
    notes = [f"Python {sys.version.split()[0]}"]
    try:
        server = launcher.import_server(question.server)
    except application.ServerError as error:
        problems.append(Finding("interface.server", str(error)))
    else:
        notes.append(server.version())
        problems += [
            Finding(f"interface.options.{found.name}", found.message)
            for found in server.check(question.options, question.gateway)
        ]
        warnings += [
            Finding(f"interface.options.{found.name}", found.message)
            for found in differences.of(question.server, question.options, _relayed(question))
        ]
    routed: list[str] = []
    consumed: list[str] = []
    if question.application:
        of_the_app, of_the_layer = (
            list(_application(question, routed, consumed, notes, warnings)),
            list(_channel_layer()),
        )
        if of_the_layer:  # an app may make its layer while it is imported: one mistake, told once
            of_the_app = [one for one in of_the_app if _LAYER_ERROR not in one.message]
        problems += [*of_the_app, *of_the_layer]
    with_sessions: list[str] = []
    if question.server == "relay" and question.gateway == "asgi" and question.application:
        with_sessions = [one.module for one in session_packages.imported(sys.modules)]
    return Answer(problems, notes, routed, consumed, warnings, with_sessions)


def _relayed(question: Question) -> differences.Relayed | None:
    if question.relayed is None:
        return None
    found = [parse_route(text) for text in question.relayed]
    return differences.Relayed(
        has_paths=any(route.path is not None for route in found),
        has_websockets=any(route.type == "websocket" for route in found),
    )


def _application(
    question: Question,
    routed: list[str],
    consumed: list[str],
    notes: list[str],
    warnings: list[Finding],
) -> Iterator[Finding]:
    key = question.key or f"app.{question.gateway}"
    try:
        loaded = application.load(question.application, question.gateway)
        if question.gateway == "wsgi" and question.server not in application.SPEAK_WSGI:
            application.wsgi_to_asgi(loaded)
        yield from _routers(loaded, question, key, warnings)
        routed += _routed(loaded)
        consumed += _consumed(loaded, question.consumption)
        if question.consumption:
            yield from _consumption(loaded, question.consumption)
        if question.system_checks and (count := application.check_system()):
            what = "a warning" if count == 1 else f"{count} warnings"
            notes.append(f"Django's system checks have {what}: python manage.py check")
    except application.ApplicationError as error:
        yield Finding(key, str(error), error.details)
    except application.GatewayError as error:
        if question.server == "relay":
            command = f'{sys.executable} -m pip install "chansup[wsgi]"'
            yield Finding(key, f"app workers need a2wsgi to run it: {command}")
        else:
            yield Finding("interface.server", str(error))


def _routers(
    loaded: object, question: Question, key: str, warnings: list[Finding]
) -> Iterator[Finding]:
    for route, name in routers.bare_consumers(loaded):
        message = (
            f'the route "{route}" leads to the class {name}, which is not an application: '
            f"write {name}.as_asgi()"
        )
        yield Finding(key, message)
    for protocol in routers.missing_protocols(loaded, question.protocols):
        remedy = (
            'add "http": get_asgi_application()'
            if protocol == "http"
            else 'add "websocket": URLRouter([…])'
        )
        message = (
            f'the app\'s ProtocolTypeRouter has no "{protocol}", so each such request is answered '
            f"500: {remedy} to it"
        )
        warnings.append(Finding(key, message))


def _routed(loaded: object) -> list[str]:
    if "channels.routing" not in sys.modules:  # else it has no router
        return []
    from chansup.worker import routes

    return routes.routing(loaded).names or []


def _consumed(loaded: object, pools: list[Consumption]) -> list[str]:
    if not pools:
        return []
    from chansup.worker import routes

    found = routes.routing(loaded)
    choices = [routes.Choice(pool.channels, pool.only, pool.exclude) for pool in pools]
    return [name for choice in choices for name in routes.consumed(found, choice)]


def _channel_layer() -> Iterator[Finding]:
    """Look for the package of a channel layer that is not chansup's own, and at the options."""
    text = os.environ.get(channel_layer.VARIABLE)
    if not text:
        return
    place = channel_layer.decode(text)
    backend = place.backend
    if backend == "local":
        if place.options:
            yield from _options(place)
        return
    first = backend if isinstance(backend, str) else backend[0]
    is_rabbitmq = isinstance(first, str) and first.startswith(("amqp://", "amqps://"))
    package, extra = (
        ("channels_rabbitmq", "rabbitmq") if is_rabbitmq else ("channels_redis", "redis")
    )
    if importlib.util.find_spec(package) is None:
        command = f'{sys.executable} -m pip install "chansup[{extra}]"'
        yield Finding("channel_layer.backend", f"needs {package}, where the app runs: {command}")
    else:
        yield from _options(place)


def _options(place: channel_layer.Place) -> Iterator[Finding]:
    from chansup.worker import layers

    found = layers.problem_of_site(place)
    if found is not None:
        yield Finding("channel_layer.options", found)


def _consumption(loaded: object, pools: list[Consumption]) -> Iterator[Finding]:
    from chansup.launch.channels import prepare_django
    from chansup.worker import layers, routes

    prepare_django()
    found = routes.routing(loaded)
    for pool in pools:
        choice = routes.Choice(pool.channels, pool.only, pool.exclude)
        for field, message in routes.problems(found, choice):
            yield Finding(f"workers.{pool.pool}.{field}", message)
        problem = layers.problem(pool.layer, redeliver=pool.redeliver)
        if problem is not None:
            yield Finding(f"workers.{pool.pool}.layer", problem)


def main() -> None:
    """Answer the question on stdin."""
    question = encoding.decode(sys.stdin.buffer.read(), Question)
    answer = encoding.encode(probe(question)).decode()
    sys.stdout.flush()
    os.write(sys.stdout.fileno(), f"\n{answer}\n".encode())


if __name__ == "__main__":
    main()
