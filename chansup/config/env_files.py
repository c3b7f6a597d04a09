"""The files that `[app] env_file` names."""

import io
import os
from pathlib import Path

from chansup.config.errors import Problem
from chansup.config.keys import quoted
from chansup.config.text import UnreadableFileError, read
from chansup.vendored.dotenv_parser import parse_stream

OPTIONAL = "-"  # before a path: the file may be missing, as in systemd's EnvironmentFile=


def paths(value: object) -> list[str]:
    """Return the names in `env_file`; none where it is neither a string nor a list of them."""
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, list):
        return [item for item in value if isinstance(item, str)]
    return []


def load(name: str, directory: Path) -> tuple[dict[str, str], list[Problem]]:
    """Return the variables of one dotenv file, and what is wrong with it.

    `name` is relative to `directory`. Nothing in the file is expanded. A name without "=" sets
    nothing. The problems name the file and the line, and never a value.
    """
    optional = name.startswith(OPTIONAL)
    path = directory / name.removeprefix(OPTIONAL)
    if optional and not os.path.exists(path):
        return {}, []
    try:
        text = read(path)
    except UnreadableFileError as error:
        remedy = ""
        if not os.path.exists(path):
            remedy = f', or write "-{name}" if it may be missing'
        elif not os.path.isfile(path):
            remedy = ": write the variables into a file, and name that"
        return {}, [Problem("app.env_file", f"{quoted(str(path), limit=300)} {error}{remedy}")]
    text = text.replace("\r\n", "\n").replace("\r", "\n")  # as text files are read; PEP 278
    variables: dict[str, str] = {}
    problems = []
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            message = "this is not NAME=value: write one to a line, or # before a comment"
            line = binding.original.line + _leading_newlines(binding.original.string)
            problems.append(Problem("", message, line, str(path)))
        elif binding.key is not None and binding.value is not None:
            if "\0" in binding.key + binding.value:
                message = f"{quoted(binding.key)} holds a NUL character"
                problems.append(Problem("", message, binding.original.line, str(path)))
            else:
                variables[binding.key] = binding.value
    return variables, problems


def _leading_newlines(text: str) -> int:
    return text[: len(text) - len(text.lstrip())].count("\n")
