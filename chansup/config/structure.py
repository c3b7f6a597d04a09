"""Whether a parsed config has the shape of the schema, and every place where it has not.

msgspec.convert stops at the first error; this walks the same types and continues.
"""

import datetime
import difflib
import math
from functools import cache

import msgspec.inspect as types
from msgspec import to_builtins
from msgspec.structs import replace

from chansup.config.interpolation import Interpolated, Unresolved
from chansup.config.keys import Finding, Key, dotted, listed, quoted
from chansup.config.schema import Config, LocalOptions, ServerOptions, Table

_BAD = object()  # stands for a value that is left out, because it was wrong
_MAX_INTEGER = 2**63 - 1
_OCTAL = ("umask", "unix_mode")
_WORDS_FOR_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_OTHER_NAMES = {  # what neighbours of chansup call the same thing
    "address": "bind",
    "autorestart": "max_restarts",
    "chdir": "directory",
    "cmd": "command",
    "cwd": "directory",
    "depends_on": "after",
    "env": "environment",
    "exec": "command",
    "host": "bind",
    "instances": "processes",
    "listen": "bind",
    "module": "asgi",
    "numprocs": "processes",
    "port": "bind",
    "replicas": "processes",
    "requires": "after",
    "rlimits": "limits",
    "routes": "serves",
    "stopasgroup": "stop_signal_to",
    "stopsignal": "stop_signal",
    "stopwaitsecs": "stop_timeout",
    "workers": "processes",
    "working_directory": "directory",
}


def build(document: dict[str, object], findings: list[Finding]) -> Config:
    """Return the config that `document` holds; what is wrong with it is added to `findings`.

    A wrong value is replaced by its default, or something of its type, so that the rest can still
    be looked at.
    """
    config = _table(_type_of(Config), document, (), findings)
    assert isinstance(config, Config)
    return _with_options(config, document, findings)


def _with_options(config: Config, document: dict[str, object], findings: list[Finding]) -> Config:
    """Look at the options of the channel layer: those of chansup's own are all known."""
    layer = config.channel_layer
    table = document.get("channel_layer")
    options = table.get("options") if isinstance(table, dict) else None
    if not isinstance(options, dict):
        return config
    if layer.backend == "local":
        known = local_options(options, findings)
    else:
        known = {**layer.options, **_server_options(options, findings)}
    return replace(config, channel_layer=replace(layer, options=known))


def local_options(options: dict[str, object], findings: list[Finding]) -> dict[str, object]:
    """Return the options of chansup's own layer; what is wrong is added to `findings`."""
    key = ("channel_layer", "options")
    checked = _table(_type_of(LocalOptions), options, key, findings)
    return {name: value for name, value in to_builtins(checked).items() if name in options}


def _server_options(options: dict[str, object], findings: list[Finding]) -> dict[str, object]:
    """Return those options of another's layer that variables were filled in, as what they mean."""
    meant: dict[str, object] = {}
    for name, field in fields(ServerOptions).items():
        if name not in options:
            continue
        value = _value(field.type, options[name], ("channel_layer", "options", name), findings)
        if isinstance(options[name], Interpolated) and value is not _BAD:
            meant[name] = int(value) if isinstance(value, float) and value.is_integer() else value
    return meant


def fields(table: type[Table]) -> dict[str, types.Field]:
    """Return the keys that a table of the schema may hold."""
    return {field.encode_name: field for field in _type_of(table).fields}


@cache
def _type_of(table: type[Table]) -> types.StructType:
    found = types.type_info(table)
    assert isinstance(found, types.StructType)
    return found


@cache
def _homes() -> dict[str, list[str]]:
    """Return, for each key, the headers under which it is valid."""
    homes: dict[str, list[str]] = {}

    def visit(table: types.StructType, header: str) -> None:
        for field in table.fields:
            inner = _struct(field.type)
            if inner is not None:
                visit(inner, field.encode_name)
            elif isinstance(field.type, types.DictType) and (
                inner := _struct(field.type.value_type)
            ):
                visit(inner, f"{field.encode_name}.NAME")
            homes.setdefault(field.encode_name, []).append(f"[{header}]" if header else "")

    visit(_type_of(Config), "")
    return homes


def _struct(expected: types.Type) -> types.StructType | None:
    for member in _members(expected):
        if isinstance(member, types.StructType):
            return member
    return None


def _members(expected: types.Type) -> tuple[types.Type, ...]:
    """Return the alternatives of a type; None is none of them, since TOML has no such value."""
    if isinstance(expected, types.UnionType):
        return tuple(type_ for type_ in expected.types if not isinstance(type_, types.NoneType))
    return (expected,)


def _value(expected: types.Type, value: object, key: Key, findings: list[Finding]) -> object:
    if isinstance(value, Unresolved):
        return _BAD
    members = _members(expected)
    for member in members:
        if isinstance(member, types.CustomType | types.AnyType):
            return _plain(value, key, findings)
        if isinstance(member, types.StructType) and isinstance(value, dict):
            return _table(member, value, key, findings)
        if isinstance(member, types.DictType) and isinstance(value, dict):
            return _mapping(member, value, key, findings)
        if isinstance(member, types.ListType) and isinstance(value, list):
            return _items(member, value, key, findings)
    scalar = _scalar(members, value)
    if scalar is _BAD:
        findings.append((key, _mismatch(members, value, key)))
        return _BAD
    if isinstance(scalar, str) and "\0" in scalar:
        findings.append((key, f"expected text, found a NUL character in {quoted(scalar)}"))
        return _BAD
    return scalar


def _scalar(members: tuple[types.Type, ...], value: object) -> object:
    """Return the value as one of the types takes it, or _BAD."""
    for member in members:
        if isinstance(value, Interpolated) and isinstance(
            member, types.IntType | types.FloatType | types.BoolType
        ):
            number = _from_text(member, value)
            if number is not _BAD and _fits(member, number):
                return number
        if _fits(member, value):
            if isinstance(member, types.FloatType):
                return float(value)  # type: ignore[arg-type]
            return str(value) if isinstance(value, str) else value
    return _BAD


def _from_text(expected: types.Type, text: str) -> object:
    """Return the number or truth value that a variable's text stands for."""
    if isinstance(expected, types.BoolType):
        return _WORDS_FOR_TRUTH.get(text.strip().lower(), _BAD)
    try:
        return int(text) if isinstance(expected, types.IntType) else float(text)
    except ValueError:
        return _BAD


def _fits(expected: types.Type, value: object) -> bool:
    match expected:
        case types.StrType():
            return isinstance(value, str)
        case types.BoolType():
            return isinstance(value, bool)
        case types.LiteralType():
            return isinstance(value, str) and str(value) in expected.values
        case types.IntType():
            return type(value) is int and abs(value) <= _MAX_INTEGER and _in_range(expected, value)
        case types.FloatType():
            if type(value) not in (int, float) or not -_MAX_INTEGER <= value <= _MAX_INTEGER:  # type: ignore[operator]
                return False  # not a number, nan, infinite or absurd
            return _in_range(expected, float(value))  # type: ignore[arg-type]
    return False


def _in_range(expected: types.IntType | types.FloatType, value: float) -> bool:
    return (
        (expected.gt is None or value > expected.gt)
        and (expected.ge is None or value >= expected.ge)
        and (expected.lt is None or value < expected.lt)
        and (expected.le is None or value <= expected.le)
    )


def _table(
    expected: types.StructType, value: dict[str, object], key: Key, findings: list[Finding]
) -> Table:
    known = {field.encode_name: field for field in expected.fields}
    values: dict[str, object] = {}
    for name, inner in value.items():
        if name not in known:
            findings.append(((*key, name), _unknown(name, list(known), key)))
            continue
        result = _value(known[name].type, inner, (*key, name), findings)
        if result is not _BAD:
            values[known[name].name] = result
    for field in expected.fields:
        if field.required and field.name not in values:
            if field.encode_name not in value:
                message = f"is missing: expected {_expected(_members(field.type))}"
                findings.append(((*key, field.encode_name), message))
            values[field.name] = _stand_in(field.type)
    table = expected.cls(**values)
    assert isinstance(table, Table)
    return table


def _stand_in(expected: types.Type) -> object:
    """Return something of the type, for a required key that is missing or wrong."""
    match _members(expected)[0]:
        case types.StrType():
            return ""
        case types.IntType() | types.FloatType():
            return 0
        case types.ListType():
            return []
    raise NotImplementedError(f"a required key of the type {expected}")


def _mapping(
    expected: types.DictType, value: dict[str, object], key: Key, findings: list[Finding]
) -> dict[str, object]:
    results: dict[str, object] = {}
    for name, inner in value.items():
        if "\0" in name:
            findings.append(((*key, name), "a name cannot hold a NUL character"))
            continue
        result = _value(expected.value_type, inner, (*key, name), findings)
        if result is not _BAD:
            results[name] = result
    return results


def _items(
    expected: types.ListType, value: list[object], key: Key, findings: list[Finding]
) -> list[object]:
    """Return the list, with something in the place of a bad item: the positions stay true."""
    results = [
        _value(expected.item_type, inner, (*key, position), findings)
        for position, inner in enumerate(value)
    ]
    return [_stand_in(expected.item_type) if item is _BAD else item for item in results]


def _plain(value: object, key: Key, findings: list[Finding]) -> object:
    """Return any value as JSON can carry it to a launcher."""
    if isinstance(value, dict):
        return {name: _plain(inner, (*key, name), findings) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner, (*key, position), findings) for position, inner in enumerate(value)]
    if isinstance(value, str) and "\0" not in value:
        return str(value)
    if isinstance(value, bool) or (
        isinstance(value, int | float) and math.isfinite(value) and abs(value) <= _MAX_INTEGER
    ):
        return value
    findings.append((key, f"expected a string, a number, true or false, found {_found(value)}"))
    return None


def _mismatch(members: tuple[types.Type, ...], value: object, key: Key) -> str:
    message = f"expected {_expected(members)}, found {_found(value)}"
    return f"{message}: {remedy}" if (remedy := _remedy(members, value, key)) else message


def _remedy(members: tuple[types.Type, ...], value: object, key: Key) -> str | None:
    kinds = tuple(type(member) for member in members)
    if key[-1] in _OCTAL:
        return 'write octal digits in quotes, "027"'
    if types.StrType in kinds and isinstance(value, bool | int | float):
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        return f'put it in quotes, "{shown}"'
    if types.LiteralType in kinds and isinstance(value, str):
        choices = [str(choice) for member in members for choice in _values_of(member)]
        close = difflib.get_close_matches(value.lower(), choices, n=2)
        close.sort(key=lambda choice: choice[0] != value[:1].lower())  # "unicorn" is uvicorn
        return f"did you mean {quoted(close[0])}?" if close else None
    if isinstance(value, str) and not isinstance(value, Interpolated):
        for member in members:
            if isinstance(member, types.IntType | types.FloatType | types.BoolType):
                meant = _from_text(member, value)
                if meant is not _BAD and _fits(member, meant):
                    return f"write {value.strip()} without quotes"
        if kinds == (types.ListType,):
            return f"write [{quoted(value)}]"
    return None


def _values_of(member: types.Type) -> tuple[object, ...]:
    return tuple(member.values) if isinstance(member, types.LiteralType) else ()


def _expected(members: tuple[types.Type, ...]) -> str:
    return " or ".join(_name(member) for member in members)


def _name(expected: types.Type) -> str:
    match expected:
        case types.StrType():
            return "a string"
        case types.BoolType():
            return "true or false"
        case types.LiteralType():
            return listed([str(value) for value in expected.values])
        case types.IntType():
            return f"a whole number{_range(expected)}"
        case types.FloatType():  # every float of the schema is a duration
            return f"a number of seconds{_range(expected)}"
        case types.ListType(types.CustomType()):
            return "a list"
        case types.ListType():
            return f"a list of {_name(_members(expected.item_type)[0]).removeprefix('a ')}s"
        case types.StructType() | types.DictType():
            return "a table"
    raise NotImplementedError(f"a name for {expected}")


def _range(expected: types.IntType | types.FloatType) -> str:
    if expected.ge is not None and expected.le is not None:
        return f" from {expected.ge} to {expected.le}"
    if expected.ge is not None:
        return f", {expected.ge} or more"
    if expected.gt is not None:
        return f" above {expected.gt}"
    return ""


def _found(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            shown = repr(value) if abs(value) <= _MAX_INTEGER else "too large"
            return f"the number {shown}" if math.isfinite(value) else f"{value}"
        case Interpolated():
            return f"{quoted(value)} (after its variables were filled in)"
        case str():
            return f"the string {quoted(value)}"
        case dict():
            return "a table"
        case list():
            return "a list"
        case datetime.date() | datetime.time():
            return f"the date or time {value}"
    return f"a {type(value).__name__}"


def _unknown(name: str, known: list[str], table: Key) -> str:
    """Return what to say of a key that `table` does not have."""
    header = f"[{dotted(table)}]" if table else "the top of the file"
    hints = []
    close = difflib.get_close_matches(name.lower(), known, n=1)
    if not close and _OTHER_NAMES.get(name) in known:
        close = [_OTHER_NAMES[name]]
    if close:
        hints.append(f"did you mean {quoted(close[0])}?")
        if name in _OTHER_NAMES:
            return f"unknown key in {header}; {hints[0]}"
    homes = [home for home in _homes().get(name, []) if home]
    if homes:
        hints.append(f"{quoted(name)} belongs in {' or '.join(homes)}")
    elif name in _homes() and table:
        hints.append(f"{quoted(name)} is a table of its own: [{name}]")
    if not hints and table == ("channel_layer",):
        hints.append("the layer's own options belong in [channel_layer.options]")
    if not hints and table == ("interface",):
        hints.append("the server's own options belong in [interface.options]")
    if not hints:
        hints.append(f"{header} may hold {listed(sorted(known), 'and')}")
    return f"unknown key in {header}; {' '.join(hints)}"
