"""Checks `[interface.options]` against what a server knows, before it is started."""

import dataclasses
import difflib
import enum
import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

_MISSING = inspect.Parameter.empty


class OptionProblem(NamedTuple):
    """An option that the server would not take, and why."""

    name: str
    message: str


def check(
    options: Mapping[str, object],
    known: Mapping[str, object],
    reserved_options: Mapping[str, str],
    server: str,
) -> list[OptionProblem]:
    """Return everything that is wrong with the options.

    `known` maps names to type hints (None: any type), `reserved_options` maps the names that
    chansup sets itself to what to do instead.
    """
    problems = []
    for name, value in options.items():
        if name in reserved_options:
            problems.append(OptionProblem(name, reserved_options[name]))
        elif name not in known:
            message = f"{server} has no such option"
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            problems.append(
                OptionProblem(
                    name, f'{message}; did you mean "{nearest[0]}"?' if nearest else message
                )
            )
        elif not accepts(known[name], value):
            problems.append(OptionProblem(name, f"expected {describe(known[name])}, got {value!r}"))
    return problems


def parameters(function: Callable[..., Any], without: Iterable[str] = ()) -> dict[str, object]:
    """Return the names of a function's parameters with their type hints, as far as they resolve."""
    excluded = {"self", *without}
    found: dict[str, object] = {}
    scope = getattr(function, "__globals__", {})
    for name, parameter in inspect.signature(function).parameters.items():
        if name in excluded or parameter.kind in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        ):
            continue
        found[name] = _resolve(parameter.annotation, scope)
    return found


def _resolve(annotation: object, scope: dict[str, Any]) -> object:
    if annotation is _MISSING:
        return None
    if isinstance(annotation, str):
        try:
            return eval(annotation, scope)  # noqa: S307 - the server's own source
        except Exception:
            return None
    return annotation


def accepts(hint: object, value: object) -> bool:
    """Say whether a value from TOML may be given where `hint` stands; unsure means yes."""
    if hint is None or hint is Any:
        return True
    origin = get_origin(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return value in [member.value for member in hint]
    if isinstance(hint, type) and issubclass(hint, Path):
        return isinstance(value, str)
    if dataclasses.is_dataclass(hint):
        names = {field.name for field in dataclasses.fields(hint)}
        return isinstance(value, Mapping) and names >= set(value)
    if origin in (Union, types.UnionType):
        return any(
            value is None if member is type(None) else accepts(member, value)
            for member in get_args(hint)
        )
    if origin is Literal:
        return value in get_args(hint)
    if origin in (list, Sequence):
        (item,) = get_args(hint) or (Any,)
        return isinstance(value, list) and all(accepts(item, entry) for entry in value)
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    return True


def convert(hint: object, value: object) -> object:
    """Return a value from TOML as the type that `hint` asks for; `accepts` has said yes."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        for member in get_args(hint):
            if member is not type(None) and accepts(member, value):
                return convert(member, value)
        return value
    if origin in (list, Sequence) and isinstance(value, list):
        (item,) = get_args(hint) or (Any,)
        return [convert(item, entry) for entry in value]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(value)
    if isinstance(hint, type) and issubclass(hint, Path) and isinstance(value, str):
        return hint(value)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return hint(**value)  # type: ignore[operator]
    return value


def describe(hint: object) -> str:
    """Return a type hint in the words of TOML."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        names = [describe(member) for member in get_args(hint) if member is not type(None)]
        return " or ".join(dict.fromkeys(names))
    if origin is Literal:
        return " or ".join(f'"{value}"' for value in get_args(hint))
    if origin in (list, Sequence):
        return "a list"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return " or ".join(f'"{member.value}"' for member in hint)
    if isinstance(hint, type) and issubclass(hint, Path):
        return "a path"
    if dataclasses.is_dataclass(hint):
        return f"a table of {', '.join(field.name for field in dataclasses.fields(hint))}"
    if hint in _TOML_NAMES:
        return _TOML_NAMES[hint]
    return getattr(hint, "__name__", str(hint))


_TOML_NAMES: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
}
