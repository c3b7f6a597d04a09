"""Asks the app's own interpreter whether the app and its server are usable.

The probe itself, ``python -m chansup.launch.probe``, imports the app, so it runs in a process of
its own. It reads one JSON document on stdin and writes another as the last line of stdout; the app
may print what it likes before that.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from chansup.config.keys import quoted
from chansup.config.load import Loaded

TIMEOUT = 60.0  # seconds, for an app that imports half the world
_MODULE = "chansup.launch.probe"
_OWN_MODULE = re.compile(r"No module named '?chansup(?P<inner>\.[a-z.]+)?")
_SHOWN_LINES = 12  # of what a failed probe printed


class Question(msgspec.Struct, frozen=True):
    """What the probe is asked."""

    server: str
    gateway: str  # "asgi" | "wsgi"
    application: str  # "package.module:attribute"
    options: dict[str, object]
    directory: str  # absolute


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong with the app, the server or its options."""

    key: str  # dotted, as in the config
    message: str


class Answer(msgspec.Struct, frozen=True):
    """What the probe found."""

    problems: list[Finding] = []
    notes: list[str] = []


def question(loaded: Loaded) -> Question | None:
    """Return what to ask about a config; None where no server of chansup runs an app."""
    app, interface = loaded.config.app, loaded.config.interface
    application = app.asgi or app.wsgi
    if interface is None or interface.command is not None or application is None:
        return None
    gateway = "asgi" if app.asgi else "wsgi"
    directory = str(loaded.directory)
    return Question(interface.server, gateway, application, dict(interface.options), directory)


def ask(loaded: Loaded, environ: Mapping[str, str], timeout: float = TIMEOUT) -> Answer:
    """Run the probe and return what it found.

    `timeout` is in seconds. A probe that cannot answer is a problem like others; nothing is raised.
    """
    asked = question(loaded)
    if asked is None:
        return Answer()
    key = f"app.{asked.gateway}"
    interface = loaded.config.interface
    environment = loaded.child_environment(environ, interface.environment if interface else {})
    python = loaded.python or sys.executable
    try:
        code, output, errors = _run(python, asked, environment, loaded.directory, timeout)
    except subprocess.TimeoutExpired:
        return _failed(key, f"importing it took longer than {timeout:g} s: look at what it does")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return _failed("app.python", f"{quoted(python, 300)} cannot be run: {reason}")
    answer = _answer(output)
    if answer is not None:
        return answer
    if missing := _OWN_MODULE.search(_last_line(errors)):
        state = "is older there than this one" if missing["inner"] else "is not installed there"
        message = f"chansup {state}: {python} -m pip install --upgrade chansup"
        return _failed("app.python", message)
    return _failed(key, f"importing it {_ending(code)}{_shown(errors)}")


def _run(
    python: str, asked: Question, environment: dict[str, str], directory: Path, timeout: float
) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr; on a timeout nothing of the probe's group is left."""
    process = subprocess.Popen(
        [python, "-m", _MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=directory,
        env=environment,
        process_group=0,
    )
    try:
        output, errors = process.communicate(msgspec.json.encode(asked), timeout)
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
        return msgspec.json.decode(lines[-1] if lines else "", type=Answer)
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
