"""``python -m chansup.launch.probe``: says what is wrong with a server, its options and the app.

Reads one JSON document from stdin, {server, gateway, application, options, directory, key}, and
prints one line of JSON, the last of stdout: {"problems": [{key, message, traceback?}],
"notes": [str]}. It imports the app's module, which is its purpose, and serves nothing.
"""

import os
import sys
from collections.abc import Iterator

import msgspec

from chansup.launch import __main__ as launcher
from chansup.launch import application


class Question(msgspec.Struct, frozen=True):
    """What is to be checked; most fields are those of `protocol.launch.Launch`."""

    server: str
    gateway: str
    application: str
    options: dict[str, object]
    directory: str
    key: str = ""  # of what names the app, in the config file; dotted


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong."""

    key: str  # of the config file, dotted
    message: str
    traceback: str = ""


class Findings(msgspec.Struct, frozen=True):
    """The answer."""

    problems: list[Problem]
    notes: list[str]


def probe(question: Question) -> Findings:
    """Import the server and the app, and return what is wrong."""
    os.chdir(question.directory)
    sys.path.insert(0, question.directory)
    problems: list[Problem] = []
    notes = [f"Python {sys.version.split()[0]}"]
    try:
        server = launcher.import_server(question.server)
    except ModuleNotFoundError as error:
        message = f'no module named "{error.name}": {launcher.remedy(question.server)}'
        problems.append(Problem("interface.server", message))
    else:
        notes.append(server.version())
        problems += [
            Problem(f"interface.options.{found.name}", found.message)
            for found in server.check(question.options, question.gateway)
        ]
    if question.application:
        problems += _application(question)
    return Findings(problems, notes)


def _application(question: Question) -> Iterator[Problem]:
    key = question.key or f"app.{question.gateway}"
    try:
        loaded = application.load(question.application, question.gateway)
        if question.gateway == "wsgi" and question.server not in application.SPEAK_WSGI:
            application.wsgi_to_asgi(loaded)
    except application.ApplicationError as error:
        yield Problem(key, str(error), error.details)
    except application.GatewayError as error:
        if question.server == "relay":
            command = f'{sys.executable} -m pip install "chansup[wsgi]"'
            yield Problem(key, f"app workers need a2wsgi to run it: {command}")
        else:
            yield Problem("interface.server", str(error))


def main() -> None:
    """Answer the question on stdin."""
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    answer = msgspec.json.encode(probe(question)).decode()
    sys.stdout.flush()
    os.write(sys.stdout.fileno(), f"\n{answer}\n".encode())


if __name__ == "__main__":
    main()
