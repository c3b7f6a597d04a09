"""``python -m chansup.launch.examine``: judges a server's options before a reload runs any task.

Reads a `protocol.probe.Question` from its environment. It imports the server and nothing of the
app. Exit code 78 (EX_CONFIG of sysexits.h): the server could not start; stderr says why.
"""

import os
import sys

import msgspec

from chansup.launch import __main__ as launcher
from chansup.launch import application
from chansup.protocol import encoding
from chansup.protocol.probe import VARIABLE, Question


def main() -> int:
    """Judge, and return the exit code."""
    try:
        question = encoding.decode(os.environ[VARIABLE], Question)
    except msgspec.DecodeError:  # of another version: the start of the process says it better
        return 0
    sys.path[0] = question.directory
    try:
        server = launcher.import_server(question.server)
    except application.ServerError as error:
        launcher.complain(f"{question.server}: {error}")
        return launcher.EXIT_CONFIGURATION
    problems = server.check(question.options, question.gateway)
    for problem in problems:
        launcher.complain(f"interface.options.{problem.name}: {problem.message}")
    return launcher.EXIT_CONFIGURATION if problems else 0


if __name__ == "__main__":
    sys.exit(main())
