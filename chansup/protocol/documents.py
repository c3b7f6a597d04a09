"""Counters in documents: fields of a Struct, each annotated with the Family or Part it counts."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import get_type_hints

import msgspec

from chansup.protocol.counters import Buckets, Family, Part, Row
from chansup.protocol.histogram import Histogram


@cache
def _parts(document: type[msgspec.Struct]) -> list[tuple[str, Part]]:
    found = []
    for name, hint in get_type_hints(document, include_extras=True).items():
        for note in getattr(hint, "__metadata__", ()):
            if isinstance(note, Family):
                found.append((name, Part(note)))
            elif isinstance(note, Part):
                found.append((name, note))
    return found


def counters(document: type[msgspec.Struct]) -> list[str]:
    """Return the names of the fields that are counters."""
    return [name for name, (family, _) in _parts(document) if family.kind == "counter"]


def fold(
    into: msgspec.Struct, document: msgspec.Struct, how: Callable[[int, int], int] = int.__add__
) -> None:
    """Bring counters and histograms of a document into those of another one of its class."""
    for name, (family, _) in _parts(type(into)):
        here, there = getattr(into, name), getattr(document, name)
        if isinstance(there, Histogram):
            if here is None:
                setattr(into, name, here := Histogram())
            here.merge(there)
        elif family.kind == "counter":
            setattr(into, name, how(here, there))


def rows(document: msgspec.Struct, labels: Sequence[str]) -> Iterator[Row]:
    """Return the rows of a document; none for a value of None."""
    for name, (family, values) in _parts(type(document)):
        value = getattr(document, name)
        if isinstance(value, Histogram):
            below = [*value.below(family.bounds), value.count]
            yield Row(family, labels, Buckets(below, value.total))
        elif value is not None:
            yield Row(family, [*labels, *values], value)
