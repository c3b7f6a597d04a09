"""JSON schemas of the documents that commands print with `--json`.

`python -m tests.docs.schemas` writes them to docs/schemas/.
"""

import json
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from chansup.check.check import Report
from chansup.protocol.status import Event, LogLine, Status

DIRECTORY = Path(__file__).parents[2] / "docs/schemas"
DOCUMENTS: dict[str, type[msgspec.Struct]] = {
    "status": Status,
    "check": Report,
    "event": Event,
    "log-line": LogLine,
}
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}


def schema(document: type[msgspec.Struct]) -> str:
    """Return the JSON schema of a document, as its file has it."""
    found = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **msgspec.json.schema(document),
    }
    return json.dumps(found, indent=1) + "\n"


def structs(document: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct]]:
    """Return a document and all that stands in it, by name, in the order of their first use."""
    found = {document.__name__: document}
    for annotation in get_type_hints(document).values():
        for kind in _kinds(annotation):
            found |= {name: one for name, one in structs(kind).items() if name not in found}
    return found


def _kinds(annotation: Any) -> list[type[msgspec.Struct]]:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return [annotation]
    return [kind for argument in get_args(annotation) for kind in _kinds(argument)]


def words(annotation: Any) -> str:
    """Return the type of a field as the page names it."""
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f'`"{argument}"`' for argument in arguments)
    if origin is UnionType:
        return " or ".join(words(argument) for argument in arguments)
    if origin is list:
        return f"array of {words(arguments[0])}"
    if origin is dict:
        return f"object of {words(arguments[1])}"
    name: str = annotation.__name__
    return f"[{name}](#{name.lower()})"


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for name, document in DOCUMENTS.items():
        (DIRECTORY / f"{name}.json").write_text(schema(document))
