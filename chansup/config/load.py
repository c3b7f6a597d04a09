"""From a file to a config that can be used, or to every reason why it cannot."""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import tomli

from chansup.config import env_files, interpreter, rules, structure
from chansup.config.errors import ConfigError, Problem
from chansup.config.interpolation import Unresolved, interpolate_tree
from chansup.config.keys import Finding, Key, dotted, overlaps, quoted
from chansup.config.lines import Lines
from chansup.config.rules.context import Context
from chansup.config.schema import Config
from chansup.config.text import UnreadableFileError, read

_MAX_DEPTH = 50  # of tables and lists in each other
_SET_TWICE = "Cannot overwrite a value"  # as tomli says it


class Loaded(msgspec.Struct, frozen=True):
    """One config file as it was at one moment, with what it points to."""

    config: Config
    path: Path  # of the file; absolute, symlinks kept
    directory: Path  # of the app; absolute, every symlink followed
    environment: dict[str, str]  # env_file, then [app] environment; nothing inherited
    python: str | None  # absolute path of [app] python
    pythons: dict[str, str]  # absolute paths of the interpreters that pools of workers name
    document: dict[str, object]  # as it was written, with "${NAME}" where a value may be secret
    warnings: list[Problem]  # what works, and is probably not meant

    def python_of(self, workers: str) -> str:
        """Return the absolute path of the interpreter of a pool of workers."""
        return self.pythons.get(workers) or self.python or sys.executable

    def child_environment(
        self, inherited: Mapping[str, str], own: Mapping[str, str], python: str | None = None
    ) -> dict[str, str]:
        """Return the environment of a process whose table has `own` variables.

        Unless the config sets PATH, the directory of `python`, by default the app's interpreter,
        stands first on it, so that "python" and the programs installed beside it are the app's.
        """
        environment = {**inherited, **self.environment, **own}
        if "PATH" not in self.environment and "PATH" not in own:
            first = os.path.dirname(python or self.python or sys.executable)
            rest = inherited.get("PATH", os.defpath)
            environment["PATH"] = f"{first}{os.pathsep}{rest}"
        return environment


def load(path: str | os.PathLike[str], environ: Mapping[str, str]) -> Loaded:
    """Read and check a config file, the env files it names, and what it points to.

    `environ` is the environment that children inherit. Raises ConfigError with every problem.
    """
    file = Path(os.path.abspath(path))
    text = _text(file)
    document = _parse(text, file)
    lines = Lines(text)
    findings: list[Finding] = []
    problems: list[Problem] = []

    app = document.get("app")
    early = _early(app if isinstance(app, dict) else {}, environ, findings)
    directory = _directory(early.get("directory"), file.parent)
    variables, in_files = _env_files(early.get("env_file"), directory, lines)
    problems.extend(in_files)
    unset: list[Finding] = []
    resolved = interpolate_tree(document, {**environ, **variables}, (), unset)
    assert isinstance(resolved, dict)
    if early:
        resolved["app"].update(early)
    if not in_files:  # else the missing file would have set them
        findings.extend(unset)

    config = structure.build(resolved, findings)
    environment = {**variables, **config.app.environment}
    seen = {**environ, **environment}
    context = Context(config, resolved, file.parent, directory, seen, document, variables)
    wrong = [*(key for key, _ in findings), *_unresolved(resolved, ())]
    found_by_rules = rules.errors(context)
    pythons, not_found = _pythons(context)
    findings.extend(_beyond([*found_by_rules, *not_found], wrong))
    problems.extend(_located(findings, lines))
    if problems:
        order = {id(problem): place for place, problem in enumerate(problems)}
        problems.sort(key=lambda problem: (problem.line or 0, order[id(problem)]))
        raise ConfigError(file, problems)
    warnings = _located(rules.warnings(context), lines)
    python = pythons.pop(("app",), None)
    own = {key[-1]: found for key, found in pythons.items()}
    return Loaded(config, file, directory, environment, python, own, document, warnings)


def _early(
    app: dict[str, object], environ: Mapping[str, str], findings: list[Finding]
) -> dict[str, object]:
    """Take out of ``[app]``, and return, what says where the env files are.

    Only `environ` can fill it in: the variables of the env files come after it.
    """
    early = {name: app.pop(name) for name in ("directory", "env_file") if name in app}
    return {
        name: interpolate_tree(value, environ, ("app", name), findings)
        for name, value in early.items()
    }


def _text(file: Path) -> str:
    try:
        return read(file)
    except UnreadableFileError as error:
        message = str(error)
        if not os.path.exists(file):
            message += ": write one with `chansup init`, or name another with --config"
        elif not os.path.isfile(file):
            message += ": name another with --config"
        raise ConfigError(file, [Problem("", message)]) from None


def _parse(text: str, file: Path) -> dict[str, object]:
    try:
        document = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        place = f"column {error.colno}: " if hasattr(error, "colno") else ""
        reason = getattr(error, "msg", str(error))
        message = f"{place}this is not TOML: {reason[:1].lower()}{reason[1:]}"
        if reason == _SET_TWICE and (name := _name_on(text, getattr(error, "lineno", 0))):
            message = f"{place}{quoted(name)} is set twice: remove one"
        problem = Problem("", message, getattr(error, "lineno", None))
    except RecursionError:
        problem = Problem("", "tables and lists are nested too deeply")
    except ValueError:  # an integer of thousands of digits
        problem = Problem("", "a number is too long")
    else:
        if _depth(document) <= _MAX_DEPTH:
            return document
        problem = Problem("", "tables and lists are nested too deeply")
    raise ConfigError(file, [problem])


def _name_on(text: str, number: int) -> str:
    """Return what a line sets, as it stands there; "" for a part of a statement."""
    line = "".join(text.split("\n")[number - 1 : number])
    try:
        tomli.loads(line)
    except tomli.TOMLDecodeError:
        return ""  # the end of a value of several lines
    return line.partition("=")[0].strip().strip("[]")


def _depth(document: dict[str, object]) -> int:
    """Return how deep tables and lists stand in each other; no recursion, since that is limited."""
    depth = 0
    level: list[object] = [document]
    while level:
        depth += 1
        inner: list[object] = []
        for value in level:
            if isinstance(value, dict):
                inner.extend(value.values())
            elif isinstance(value, list):
                inner.extend(value)
        level = [value for value in inner if isinstance(value, dict | list)]
    return depth


def _directory(value: object, base: Path) -> Path:
    """Return the app's directory; that of the config file where the value is invalid."""
    name = value if isinstance(value, str) and not isinstance(value, Unresolved) else "."
    return Path(os.path.realpath(base / name.replace("\0", "")))


def _env_files(
    value: object, directory: Path, lines: Lines
) -> tuple[dict[str, str], list[Problem]]:
    variables: dict[str, str] = {}
    problems: list[Problem] = []
    for name in env_files.paths(value):
        if isinstance(name, Unresolved):
            continue
        read_variables, wrong = env_files.load(name, directory)
        variables.update(read_variables)
        line = lines.of(("app", "env_file")) if wrong else None
        problems.extend(
            problem if problem.file else Problem(problem.key, problem.message, line)
            for problem in wrong
        )
    return variables, problems


def _unresolved(value: object, key: Key) -> Iterable[Key]:
    """Return where a variable was not known; what stands there says nothing."""
    if isinstance(value, Unresolved):
        yield key
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _unresolved(inner, (*key, name))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _unresolved(inner, (*key, position))


def _beyond(findings: Iterable[Finding], wrong: list[Key]) -> Iterable[Finding]:
    """Return the findings that do not just follow from a place that is wrong already."""
    for key, message in findings:
        if key and any(overlaps(key, other) for other in wrong):
            continue
        if not key and wrong:
            continue
        yield key, message


def _pythons(context: Context) -> tuple[dict[tuple[str, ...], str], list[Finding]]:
    """Return the interpreters by the keys of the tables that name them, and those not found."""
    named: dict[tuple[str, ...], str | None] = {("app",): context.config.app.python}
    for name, workers in context.config.workers.items():
        named["workers", name] = workers.python
    found: dict[tuple[str, ...], str] = {}
    findings: list[Finding] = []
    search_path = context.environment.get("PATH")
    for key, python in named.items():
        if python is None:
            continue
        try:
            found[key] = interpreter.find(python, context.directory, search_path)
        except ValueError as error:
            findings.append(((*key, "python"), str(error)))
    return found, findings


def _located(findings: Iterable[Finding], lines: Lines) -> list[Problem]:
    return [Problem(dotted(key), message, lines.of(key)) for key, message in findings]
