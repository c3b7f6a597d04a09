"""Whatever stands in the file: it loads, or ConfigError says why, and nothing else happens."""

import json
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chansup.config import schema, structure
from chansup.config.errors import ConfigError
from chansup.config.interpolation import Interpolated, Unresolved, interpolate
from chansup.config.keys import dotted
from chansup.config.lines import Lines
from chansup.config.load import Loaded, load

pytestmark = pytest.mark.slow  # the interpreter makes no difference

VALID: dict[str, object] = {
    "app": {"asgi": "mysite.asgi:application", "environment": {"A": "b"}},
    "interface": {"bind": ["8000", "unix:x"], "processes": 2, "options": {"a": [1, {"b": True}]}},
    "workers": {
        "web": {"command": "x", "after": ["redis"]},
        "api": {"serves": ["http", {"route": "websocket:/ws/*"}], "concurrency": 3},
    },
    "programs": {"redis": {"command": ["x"], "ready": "tcp:1", "limits": {"nofile": 1}}},
    "tasks": {"migrate": {"command": "x", "before": ["interface"]}},
    "rollout": {"surge": 2, "settle": 0.1},
    "admin": {"bind": "9180"},
    "log": {"format": "json"},
    "supervisor": {},
}
KNOWN = sorted(
    {
        key
        for table in vars(schema).values()
        if isinstance(table, type) and issubclass(table, schema.Table)
        for key in structure.fields(table)
    }
)
KEYS = st.sampled_from(KNOWN) | st.text(max_size=8)
SCALARS = (
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.dates()
    | st.datetimes()
    | st.sampled_from(["${X}", "${UNSET:-1}", "$${", "${", "per-core", "~", "a:b", "unix:x", "\0"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
ENVIRON = {"X": "1", "EMPTY": "", "PATH": "/usr/bin:/bin"}


def toml(document: dict[str, object]) -> str:
    """Return a TOML document, one top-level table to a header, one key to a line."""
    lines = [f"{_key(key)} = {_value(value)}" for key, value in _leaves(document)]
    for name, table in document.items():
        if isinstance(table, dict):
            lines.append(f"[{_key(name)}]")
            lines.extend(f"{_key(key)} = {_value(value)}" for key, value in table.items())
    return "\n".join(lines)


def _leaves(document):
    return [(key, value) for key, value in document.items() if not isinstance(value, dict)]


def _key(name: str) -> str:
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float():
            return repr(value)
        case str():
            return _key(value)
        case dict():
            return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_value, value)) + "]"
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("site")


def outcome(directory: Path, content: str | bytes) -> Loaded | ConfigError:
    path = directory / "chansup.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "replace"))
    try:
        return load(path, ENVIRON)
    except ConfigError as error:
        _clear(error)
        return error


def _clear(error: ConfigError) -> None:
    assert error.problems
    assert "\x00" not in str(error)
    assert all(problem.message for problem in error.problems)


def places(document: dict[str, object]) -> dict[str, int]:
    """Return the line of each key as `toml` writes the document."""
    leaves = [key for key, _ in _leaves(document)]
    found = {dotted((key,)): number for number, key in enumerate(leaves, start=1)}
    number = len(leaves)
    for name, table in document.items():
        if isinstance(table, dict):
            number += 1
            found[dotted((name,))] = number
            for key in table:
                number += 1
                found[dotted((name, key))] = number
    return found


def nothing_but_clear_errors(directory: Path, document: dict[str, object]) -> None:
    result = outcome(directory, toml(document))
    if isinstance(result, Loaded):
        return
    lines = places(document)
    for problem in result.problems:
        if problem.file is not None or problem.key == "":
            continue
        around = [
            key
            for key in lines
            if problem.key == key or problem.key.startswith((f"{key}.", f"{key}["))
        ]
        assert problem.line == (lines[max(around, key=len)] if around else None), problem


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_toml(directory, document):
    nothing_but_clear_errors(directory, document)


@settings(deadline=None)
@given(st.data())
def test_a_valid_config_with_any_value_anywhere(directory, data):
    document = json.loads(json.dumps(VALID))
    table = document
    path = []
    while True:
        key = data.draw(st.sampled_from(sorted(table)) | KEYS if table else KEYS)
        path.append(key)
        if isinstance(table.get(key), dict) and data.draw(st.booleans()):
            table = table[key]
            continue
        table[key] = data.draw(VALUES)
        break
    nothing_but_clear_errors(directory, document)


@settings(deadline=None)
@given(st.text())
@example("[app]\nasgi = '''")
@example("\ufeff[app]")
@example("[app]\rasgi = 1")
def test_any_text(directory, text):
    outcome(directory, text)


@settings(deadline=None)
@given(st.binary())
def test_any_bytes(directory, content):
    outcome(directory, content)


@settings(deadline=None)
@given(st.text(alphabet=string.printable + "ä\0"), st.text())
def test_any_env_file(directory, text, other):
    (directory / "any.env").write_bytes((text + other).encode("utf-8", "replace"))
    outcome(directory, '[app]\nenv_file = "any.env"\n[programs.x]\ncommand = "${X}"')


def test_the_valid_one_is_valid(directory):
    assert isinstance(outcome(directory, toml(VALID)), Loaded)


_names = st.text("ab_", min_size=1, max_size=3)


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_characters="$", codec="utf-8")))
def test_text_without_variables_is_itself(text):
    assert interpolate(text, {}) == (text, None)


@settings(deadline=None)
@given(st.text(alphabet="$" + "{}ab:-"))
def test_escaped_text_comes_back(text):
    escaped = text.replace("${", "$${")
    assert interpolate(escaped, {}) == (text, None)


@settings(deadline=None)
@given(_names, st.text(), st.text(), st.text())
def test_a_variable_is_put_in_as_it_is(name, value, before, after):
    before, after = before.replace("$", ""), after.replace("$", "")
    result, wrong = interpolate(f"{before}${{{name}}}{after}", {name: value})
    assert (result, wrong) == (before + value + after, None)
    assert isinstance(result, Interpolated)


@settings(deadline=None)
@given(_names, st.text().filter(lambda text: "}" not in text))
def test_a_default_stands_in_for_nothing(name, default):
    for variables in ({}, {name: ""}):
        assert interpolate(f"${{{name}:-{default}}}", variables) == (default, None)


@settings(deadline=None)
@given(st.text(alphabet="$" + "{}ab:- "))
def test_any_dollar_signs(text):
    result, wrong = interpolate(text, {"a": "1"})
    assert isinstance(result, Unresolved) == (wrong is not None)


@settings(deadline=None)
@given(st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=3), max_size=3))
def test_every_key_has_its_own_line(document):
    text = toml(document)
    lines = Lines(text)
    number = 0
    for name, table in document.items():
        number += 1
        assert lines.of((name,)) == number
        for key in table:
            number += 1
            assert lines.of((name, key)) == number, dotted((name, key))
            assert lines.of((name, key, "x", 0)) == number
