"""docs/api.md names everything that is public, as it is."""

from typing import Any, get_type_hints

import msgspec
import pytest

import chansup.layer
from chansup.errors import ExitCode
from chansup.layer.delivery import Delivery
from chansup.layer.local import LocalChannelLayer
from chansup.protocol.status import Event
from chansup.relay.consumers import HandoverMixin
from tests.docs import schemas
from tests.docs.pages import ROOT, blocks, table

pytestmark = pytest.mark.slow  # the interpreter makes no difference

PAGE = ROOT / "docs/api.md"
INHERITED = {"compile_capacities", "get_capacity", "serialize", "deserialize"}
STRUCTS = {
    name: struct
    for document in schemas.DOCUMENTS.values()
    for name, struct in schemas.structs(document).items()
}


@pytest.mark.parametrize("name", schemas.DOCUMENTS)
def test_a_schema_is_that_of_the_code(name: str) -> None:
    written = (schemas.DIRECTORY / f"{name}.json").read_text()
    hint = "python -m tests.docs.schemas writes it"
    assert written == schemas.schema(schemas.DOCUMENTS[name]), hint


def test_every_schema_is_listed() -> None:
    listed = [row[2] for row in table(PAGE, "command", "prints", "schema")]
    assert listed == [f"[{name}.json](schemas/{name}.json)" for name in schemas.DOCUMENTS]
    assert {path.stem for path in schemas.DIRECTORY.iterdir()} == set(schemas.DOCUMENTS)


@pytest.mark.parametrize("name", STRUCTS)
def test_the_fields_of_a_document(name: str) -> None:
    rows = table(PAGE, f"field of {name}", "type")
    types = get_type_hints(STRUCTS[name])
    assert [(field.strip("`"), kind) for field, kind, _ in rows] == [
        (field, schemas.words(types[field])) for field in STRUCTS[name].__struct_fields__
    ]
    assert all(meaning for *_, meaning in rows)


def test_the_events_that_are_shown() -> None:
    (shown,) = (block for block in blocks(PAGE) if "events" in block.notes)
    decoder = msgspec.json.Decoder(Event)
    events = [decoder.decode(line) for line in shown.text.splitlines()]
    assert [msgspec.json.encode(event).decode() for event in events] == shown.text.splitlines()
    assert [event.type for event in events][-1] == "result"


@pytest.mark.parametrize("kind", [LocalChannelLayer, Delivery, HandoverMixin])
def test_the_members_of_a_class(kind: type) -> None:
    header = "method" if kind is LocalChannelLayer else "member"
    said = {
        cell.strip("`").partition("(")[0] for cell, _ in table(PAGE, f"{header} of {kind.__name__}")
    }
    assert said == members(kind)


def members(kind: type) -> set[str]:
    found: set[str] = set()
    for base in kind.__mro__:
        if base.__module__.startswith("chansup."):
            found |= {name for name in vars(base) if not name.startswith("_")}
    if kind is LocalChannelLayer:  # the page tells of its attributes in prose
        found = {name for name in found if callable(getattr(kind, name))}
        found -= {*INHERITED, "ChannelFull", "MessageTooLarge"}
    return found


def test_the_exceptions_of_the_layer() -> None:
    said = {row[0].strip("`"): row[1] for row in table(PAGE, "exception of `chansup.layer`")}
    names: dict[str, Any] = {name: getattr(chansup.layer, name) for name in chansup.layer.__all__}
    has = {name: kind for name, kind in names.items() if issubclass(kind, Exception)}
    assert set(said) == set(has)
    for name, bases in said.items():
        for base in bases.split(", "):
            above = {one.__name__ for one in has[name].__mro__}
            assert base.strip("`").rpartition(".")[2] in above, name


def test_the_exit_codes() -> None:
    rows = table(PAGE, "exit code", "name")
    assert [(int(code), word.strip("`")) for code, word, _ in rows] == [
        (code.value, code.name) for code in ExitCode
    ]
