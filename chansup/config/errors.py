"""Everything that can be wrong with a config file."""

from pathlib import Path

import msgspec

from chansup.errors import ChansupError, ExitCode


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong, and where."""

    key: str  # dotted: "interface.bind[0]"
    message: str  # what was expected, what was found, and the remedy
    line: int | None = None  # counted from 1; None where the file has no such line
    file: str | None = None


class ConfigError(ChansupError):
    """The config cannot be used; `problems` holds every reason, in the order of the file."""

    exit_code = ExitCode.FAILED

    def __init__(self, file: Path, problems: list[Problem]) -> None:
        self.file = file
        self.problems: list[Problem] = problems
        super().__init__("\n".join(describe(problem, file) for problem in problems))


def describe(problem: Problem, file: Path) -> str:
    """Return the problem as one line: ``chansup.toml:12: interface.bnd: unknown key…``."""
    place = problem.file or str(file)
    if problem.line is not None:
        place = f"{place}:{problem.line}"
    return (
        f"{place}: {problem.key}: {problem.message}"
        if problem.key
        else f"{place}: {problem.message}"
    )
