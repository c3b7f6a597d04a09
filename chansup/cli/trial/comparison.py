"""Compares what an app answered on connections that stayed, and on one that moved. Free of I/O.

Answers of one app differ from connection to connection: times, ids, names. So they are looked at in
three ways, from the strictest to the loosest, and the strictest counts in which two connections
that stayed are the same.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

Answer = str | bytes
Strictness = Literal["word for word, but for numbers and ids", "by structure", "by kind"]

# Numbers, and what looks like an id: eight or more letters and digits, of both kinds.
_CHANGING = re.compile(
    r"(?<![0-9a-z])(?=[a-z_-]*\d)(?=\d*[a-z_-])[0-9a-z_-]{8,}|\d+(?:[.:-]\d+)*", re.IGNORECASE
)
_FRAMED = re.compile(r"(\d{1,4})([\[{].*)\Z", re.DOTALL)  # as Engine.IO has it: 42["event", …]
# What tells messages apart, by its value.
_TELLING = frozenset(
    {"type", "event", "op", "action", "command", "cmd", "method", "kind", "status", "error", "ok"}
    | {"success", "name", "topic", "channel"}
)
_DEEPEST = 20


class Comparison(msgspec.Struct, frozen=True):
    """How the answers compare. `strictness` is None where two that stayed differ in every way.

    `numbers_differ`: those that stayed are equal to the letter, and only the omitted parts differ.
    """

    is_same: bool
    strictness: Strictness | None
    numbers_differ: bool = False


def compare(stayed: Sequence[Sequence[Answer]], moved: Sequence[Answer]) -> Comparison:
    """Compare the answers on connections that stayed, one or more, with those on one that moved."""
    for strictness, view in _VIEWS:
        views = [[view(answer) for answer in answers] for answers in stayed]
        if all(one == views[0] for one in views):
            is_same = [view(answer) for answer in moved] == views[0]
            are_equal = all(list(one) == list(stayed[0]) for one in stayed)
            numbers_differ = is_same and are_equal and list(moved) != list(stayed[0])
            return Comparison(is_same, strictness, numbers_differ)
    # It speaks unasked, or in another order each time: at least something of it must come.
    known = {structure(answer) for answers in stayed for answer in answers}
    came = {structure(answer) for answer in moved}
    return Comparison(bool(came) and came <= known, None)


def words(answer: Answer) -> str:
    """Return an answer without what changes from one time to the next."""
    if isinstance(answer, bytes):
        return f"{len(answer)} bytes"
    return _CHANGING.sub("#", answer)


def structure(answer: Answer) -> str:
    """Return which keys and types an answer has; of a text that is not JSON, its words."""
    if isinstance(answer, bytes):
        return "bytes"
    prefix, text = "", answer
    if framed := _FRAMED.match(answer):
        prefix, text = framed.groups()
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return words(answer)
    if not isinstance(document, dict | list):
        return words(answer)
    return prefix + json.dumps(_structure(document, 0), sort_keys=True)


def kind(answer: Answer) -> str:
    """Return whether an answer is text or bytes."""
    return "bytes" if isinstance(answer, bytes) else "text"


def _structure(value: object, depth: int) -> object:
    if depth > _DEEPEST:
        return "…"
    match value:
        case dict():
            return {
                name: words(inner)
                if name in _TELLING and isinstance(inner, str)
                else inner
                if name in _TELLING and isinstance(inner, bool)
                else _structure(inner, depth + 1)
                for name, inner in value.items()
            }
        case list():
            items = [_structure(inner, depth + 1) for inner in value]
            # How many there are changes; a name at the begin, as in ["event", …], does not.
            if value and isinstance(value[0], str):
                return [words(value[0]), *items[1:]]
            return [item for place, item in enumerate(items) if item not in items[:place]]
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str():
            return "text"
    return None


_VIEWS: tuple[tuple[Strictness, Callable[[Answer], str]], ...] = (
    ("word for word, but for numbers and ids", words),
    ("by structure", structure),
    ("by kind", kind),
)
