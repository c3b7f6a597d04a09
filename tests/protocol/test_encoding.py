"""Documents with paths that are not UTF-8."""

import json
import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chansup.protocol import encoding


class Held(msgspec.Struct):
    path: str
    more: dict[str, list[str]] = {}


paths = st.binary(max_size=20).map(os.fsdecode)


@given(paths, st.dictionaries(paths, st.lists(paths, max_size=3), max_size=3))
def test_every_path_arrives_as_it_was(path: str, more: dict[str, list[str]]) -> None:
    held = Held(path, more)
    assert encoding.decode(encoding.encode(held), Held) == held
    assert encoding.decode(encoding.encode(held).decode(), Held) == held


@given(paths)
def test_others_can_read_it(path: str) -> None:
    read = json.loads(encoding.encode_for_others(Held(path)).decode())
    assert read["path"] == os.fsencode(path).decode(errors="backslashreplace")


@pytest.mark.parametrize("content", [b'{"path":"\\ud800"', b'{"path":1}', ""])
def test_what_is_no_document_raises(content: bytes | str) -> None:
    with pytest.raises(msgspec.DecodeError):
        encoding.decode(content, Held)
