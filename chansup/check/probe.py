"""Asks the interpreters that will run servers and apps whether these are usable.

In direct mode the app's interpreter has both. In relay mode chansup's own has the server, and that
of each pool of app workers has the app. The probe itself, ``python -m chansup.launch.probe``,
imports the app, so it runs in a process of its own. It reads one JSON document on stdin and writes
another as the last line of stdout; the app may print what it likes before that.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping

import msgspec

from chansup import __version__
from chansup.config import channels, hub, relay, routes, server_variables
from chansup.config.keys import quoted
from chansup.config.load import Loaded
from chansup.config.schema import Workers
from chansup.protocol import channel_layer, encoding
from chansup.protocol.probe import Answer, Consumption, Finding, Question

TIMEOUT = 60.0  # seconds, for an app that imports half the world
_MODULE = "chansup.launch.probe"
_OWN_MODULE = re.compile(r"No module named '?chansup(?P<inner>\.[a-z.]+)?")
_SHOWN_LINES = 12  # of what a failed probe printed


class Asked(msgspec.Struct, frozen=True):
    """A question, and where it is put."""

    question: Question
    python: str  # absolute path
    python_key: str  # of what names the interpreter
    environment: dict[str, str]
    pool: str = ""  # "workers.web", before its notes


def questions(loaded: Loaded, environ: Mapping[str, str]) -> list[Asked]:
    """Return what to ask about a config; nothing where chansup itself runs no app."""
    if relay.is_relay(loaded.config):
        serving = [_holding(loaded, environ), *_app_workers(loaded, environ)]
    else:
        serving = list(_interface(loaded, environ))
    return [*serving, *_channel_workers(loaded, environ)]


def _interface(loaded: Loaded, environ: Mapping[str, str]) -> Iterator[Asked]:
    """Yield what to ask about an interface that runs the app."""
    app, interface = loaded.config.app, loaded.config.interface
    application = app.asgi or app.wsgi
    if interface is None or interface.command is not None or application is None:
        return
    gateway = "asgi" if app.asgi else "wsgi"
    question = Question(
        interface.server,
        gateway,
        application,
        dict(interface.options),
        str(loaded.directory),
        f"app.{gateway}",
        system_checks=app.system_checks,
        protocols=["http"],  # an app may well be without WebSockets
    )
    environment = loaded.child_environment(environ, interface.environment)
    yield Asked(question, loaded.python or sys.executable, "app.python", environment)


def _holding(loaded: Loaded, environ: Mapping[str, str]) -> Asked:
    """Return what to ask about an interface that only holds connections."""
    interface = loaded.config.interface
    assert interface is not None
    directory = str(loaded.path.parent)
    options = dict(interface.options)
    key = "interface.server"
    written = [
        one.route
        for table in relay.app_workers(loaded.config).values()
        for one in relay.served(table)
    ]
    question = Question(interface.server, "asgi", "", options, directory, key, relayed=written)
    passed_on = server_variables.passed_on(interface.server, loaded.environment)
    environment = {**environ, **passed_on, **interface.environment}
    return Asked(question, sys.executable, key, environment)


def _app_workers(loaded: Loaded, environ: Mapping[str, str]) -> Iterator[Asked]:
    # Pools that differ in their routes alone import the same, so that is asked once.
    together: list[tuple[Asked, str, set[str]]] = []
    for name, table in relay.app_workers(loaded.config).items():
        app = relay.application(loaded.config, name)
        assert app is not None
        asked = _of_workers("relay", app, name, table, loaded, environ)
        types = {str(routes.parse(one.route).type) for one in relay.served(table)}
        for other, _, protocols in together:
            if other == asked:
                protocols.update(types)
                break
        else:
            together.append((asked, name, types))
    for asked, name, protocols in together:
        question = msgspec.structs.replace(
            asked.question,
            system_checks=loaded.config.app.system_checks,
            protocols=sorted(protocols) if asked.question.gateway == "asgi" else [],
        )
        yield msgspec.structs.replace(asked, question=question, pool=f"workers.{name}")


def _channel_workers(loaded: Loaded, environ: Mapping[str, str]) -> Iterator[Asked]:
    together: list[tuple[Asked, list[Consumption]]] = []  # the app is imported once for all pools
    for name, table in channels.workers(loaded.config).items():
        app = channels.application(loaded.config, name)
        assert app is not None
        asked = _of_workers("channels", app, name, table, loaded, environ)
        consumption = Consumption(
            name,
            table.channels,
            table.only_channels,
            table.exclude_channels,
            table.layer,
            table.redeliver,
        )
        for other, consumptions in together:
            if other == asked:
                consumptions.append(consumption)
                break
        else:
            together.append((asked, [consumption]))
    for asked, consumptions in together:
        question = msgspec.structs.replace(asked.question, consumption=consumptions)
        pool = f"workers.{consumptions[0].pool}"
        yield msgspec.structs.replace(asked, question=question, pool=pool)


def _of_workers(
    launcher: str,
    app: relay.Application,
    name: str,
    table: Workers,
    loaded: Loaded,
    environ: Mapping[str, str],
) -> Asked:
    directory, key = str(loaded.directory), ".".join(app.key)
    question = Question(launcher, app.gateway, app.reference, {}, directory, key)
    python = loaded.python_of(name)
    python_key = "app.python" if table.python is None else f"workers.{name}.python"
    environment = loaded.child_environment(environ, table.environment, python)
    return Asked(question, python, python_key, environment)


def ask(loaded: Loaded, environ: Mapping[str, str], timeout: float = TIMEOUT) -> Answer:
    """Run the probes and return what they found.

    `timeout` is in seconds, for each. A probe that cannot answer is a problem like others; nothing
    is raised.
    """
    problems: dict[Finding, None] = {}
    notes = []
    routed: dict[str, None] = {}
    consumed: dict[str, None] = {}
    warnings: dict[Finding, None] = {}
    session_modules: dict[str, None] = {}
    place = {channel_layer.VARIABLE: channel_layer.encode(hub.place(loaded, environ))}
    for asked in questions(loaded, environ):
        # An app may make its channel layer while it is imported.
        asked = msgspec.structs.replace(asked, environment={**asked.environment, **place})
        answer = _ask(asked, timeout)
        problems.update(dict.fromkeys(answer.problems))
        notes += [f"{asked.pool}: {note}" if asked.pool else note for note in answer.notes]
        routed.update(dict.fromkeys(answer.routed))
        consumed.update(dict.fromkeys(answer.consumed))
        warnings.update(dict.fromkeys(answer.warnings))
        session_modules.update(dict.fromkeys(answer.session_modules))
    return Answer(
        list(problems),
        notes,
        list(routed),
        list(consumed),
        list(warnings),
        list(session_modules),
    )


def _ask(asked: Asked, timeout: float) -> Answer:
    key, python = asked.question.key, asked.python
    try:
        code, output, errors = _run(asked, timeout)
    except subprocess.TimeoutExpired:
        return _failed(key, f"importing it took longer than {timeout:g} s: look at what it does")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return _failed(asked.python_key, f"{quoted(python, 300)} cannot be run: {reason}")
    answer = _answer(output)
    if answer is not None and not _lacks_relay(asked, answer):
        return answer
    missing = _OWN_MODULE.search(_last_line(errors))
    if answer is not None or missing:
        is_older = missing is None or missing["inner"]
        state = "is older there than this one" if is_older else "is not installed there"
        message = (
            f"chansup {state}: install version {__version__} with {python} -m pip, from where this "
            "one comes (a checkout, a wheel or a git URL)"
        )
        return _failed(asked.python_key, message)
    return _failed(key, f"importing it {_ending(code)}{_shown(errors)}")


def _lacks_relay(asked: Asked, answer: Answer) -> bool:
    """Say whether an answer about workers is that of a chansup that knows none of their kind."""
    of_workers = asked.question.server in ("relay", "channels")
    return of_workers and any(found.key == "interface.server" for found in answer.problems)


def _run(asked: Asked, timeout: float) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr; on a timeout nothing of the probe's group is left."""
    process = subprocess.Popen(
        [asked.python, "-m", _MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=asked.question.directory,
        env=asked.environment,
        process_group=0,
    )
    try:
        output, errors = process.communicate(encoding.encode(asked.question), timeout)
    finally:
        _kill_group(process.pid)  # a child of the app would keep our pipes open
        process.wait()
    return process.returncode, output.decode(errors="replace"), errors.decode(errors="replace")


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _answer(output: str) -> Answer | None:
    lines = output.strip().splitlines()
    try:
        return encoding.decode(lines[-1] if lines else "", Answer)
    except msgspec.MsgspecError:
        return None


def _failed(key: str, message: str) -> Answer:
    return Answer([Finding(key, message)])


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended the process with exit code {code}"
    try:
        return f"killed the process: {signal.Signals(-code).name}"
    except ValueError:
        return f"killed the process: signal {-code}"


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def _shown(errors: str) -> str:
    lines = errors.strip().splitlines()[-_SHOWN_LINES:]
    return "".join(f"\n    {line}" for line in lines)
