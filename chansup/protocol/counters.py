"""Declarations: each number that `/metrics` shows is declared once, beside what its writer writes.

A `Family` says kind, help, labels and writer. From the families follow the places in shared memory,
the sums over processes that live and that are gone, the rows of `/metrics` and the tables of
docs/metrics.md. Source: Prometheus, "Exposition formats"; a family is all that has one name there.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, product
from typing import Annotated, Literal, NamedTuple

import msgspec

Kind = Literal["counter", "gauge", "histogram", "summary", "info"]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]  # a float tells no two larger ones apart
Seconds = Annotated[float, msgspec.Meta(ge=0, le=2**53)]


class DeclaredTwiceError(Exception):
    """A defect in chansup: two families have one name."""


class Label(NamedTuple):
    """A label with a fixed list of values."""

    name: str
    values: tuple[str, ...]
    usual: tuple[str, ...] | None = None  # that have rows before they are seen; None: all


class Family(NamedTuple):
    """What `/metrics` shows under one name."""

    name: str  # as it is shown: "chansup_requests_total"
    kind: Kind
    help: str
    labels: tuple[str, ...]
    fixed: tuple[Label, ...]  # the last ones of `labels`, with their values
    bounds: tuple[float, ...]  # of the buckets of a histogram
    writer: str

    def of(self, *values: str) -> "Part":
        """Return what counts for these values of the labels that are `fixed`."""
        for label, value in zip(self.fixed, values, strict=True):
            label.values.index(value)
        return Part(self, values)


class Part(NamedTuple):
    """What one number counts of a family."""

    family: Family
    values: tuple[str, ...] = ()


class Buckets(NamedTuple):
    """A histogram as it is shown."""

    below: Sequence[float]  # how many took at most each bound; the last one: all
    total: float


class Row(NamedTuple):
    """One line of `/metrics`, or one histogram."""

    family: Family
    labels: Sequence[str]
    value: float | Buckets | tuple[float, float]  # of a summary: count and total


_declared: dict[str, Family] = {}


def declared() -> list[Family]:
    """Return all families that were declared so far."""
    return list(_declared.values())


class Families:
    """Those of one writer, which have the first labels in common."""

    def __init__(self, writer: str, labels: tuple[str, ...] = ()) -> None:
        self.declared: list[Family] = []
        self._writer = writer
        self._labels = labels

    def gauge(self, name: str, help: str, *labels: Label) -> Family:
        """Declare what rises and falls. Raises DeclaredTwiceError, as the others do."""
        return self.declare(name, "gauge", help, labels)

    def counter(self, name: str, help: str, *labels: Label) -> Family:
        """Declare what only grows."""
        return self.declare(name, "counter", help, labels)

    def histogram(self, name: str, help: str, bounds: tuple[float, ...]) -> Family:
        """Declare durations, in seconds."""
        return self.declare(name, "histogram", help, (), bounds)

    def declare(
        self,
        name: str,
        kind: Kind,
        help: str,
        fixed: tuple[Label, ...] = (),
        bounds: tuple[float, ...] = (),
    ) -> Family:
        """Declare a family of any kind."""
        if name in _declared:
            raise DeclaredTwiceError(f"{name} is declared twice")
        labels = (*self._labels, *(label.name for label in fixed))
        family = Family(name, kind, help, labels, fixed, bounds, self._writer)
        _declared[name] = family
        self.declared.append(family)
        return family


class _Placed(NamedTuple):
    family: Family
    place: int  # of its first cell
    parts: list[tuple[int, tuple[str, ...]]]  # cell and values of labels; none: a histogram


class Layout:
    """Float64 cells, whose places follow from the order in which families are declared.

    Declare new ones last: processes of another release may read or write the same cells.
    """

    def __init__(self, writer: str, labels: tuple[str, ...]) -> None:
        self.families = Families(writer, labels)
        self.cells = 0  # how many there are
        self.gauges: list[int] = []
        self._counters: list[int] = []
        self._placed: list[_Placed] = []

    def internal(self) -> int:
        """Return the place of a new cell that is for chansup alone."""
        self.cells += 1
        return self.cells - 1

    def gauge(self, name: str, help: str) -> int:
        """Return the place of a number that rises and falls."""
        self.gauges.append(self.cells)
        return self._place(self.families.gauge(name, help), [()])

    def counter(self, name: str, help: str, *labels: Label) -> int:
        """Return the first place of a number that only grows, for all values of its labels."""
        parts = list(product(*(label.values for label in labels)))
        self._counters += range(self.cells, self.cells + len(parts))
        return self._place(self.families.counter(name, help, *labels), parts)

    def histogram(self, name: str, help: str, bounds: tuple[float, ...]) -> int:
        """Return the place of the sum. Next is a cell for each bound, and one for the rest."""
        self._counters += range(self.cells, self.cells + len(bounds) + 2)
        first = self._place(self.families.histogram(name, help, bounds), [])
        self.cells += len(bounds) + 2
        return first

    def _place(self, family: Family, parts: list[tuple[str, ...]]) -> int:
        first = self.cells
        self._placed.append(_Placed(family, first, list(enumerate(parts, first))))
        self.cells += len(parts)
        return first

    def keep(self, sums: list[float], cells: Sequence[float]) -> None:
        """Add to `sums` what a process counted that is gone: its gauges are of the past."""
        for cell in self._counters:
            sums[cell] += believed(cells[cell])

    def add(self, sums: list[float], cells: Sequence[float]) -> None:
        """Add to `sums` all that is in the cells of a process that lives."""
        for cell in range(self.cells):
            sums[cell] += believed(cells[cell])

    def rows(
        self,
        together: Sequence[tuple[Sequence[str], Sequence[float]]],
        shows: Callable[[int], bool] = lambda place: True,
    ) -> Iterator[Row]:
        """Return the rows of cells that belong together, each with the values of its labels.

        A value that is not usual has rows in all of them once one has seen it. `shows` is asked
        for each family by its first place.
        """
        for family, place, parts in self._placed:
            if not shows(place):
                continue
            shown = _shown(family, parts, together)
            for labels, cells in together:
                for cell, values in shown:
                    yield Row(family, [*labels, *values], cells[cell])
                if family.bounds:
                    counts = cells[place + 1 : place + len(family.bounds) + 2]
                    yield Row(family, labels, Buckets(list(accumulate(counts)), cells[place]))


def _shown(
    family: Family,
    parts: list[tuple[int, tuple[str, ...]]],
    together: Sequence[tuple[Sequence[str], Sequence[float]]],
) -> list[tuple[int, tuple[str, ...]]]:
    for place, label in enumerate(family.fixed):
        if label.usual is not None:
            seen = {
                values[place]
                for cell, values in parts
                if any(cells[cell] for _, cells in together) or values[place] in label.usual
            }
            parts = [part for part in parts if part[1][place] in seen]
    return parts


def believed(value: float) -> float:
    """Return a number as the supervisor may use it: what a child wrote is not trusted."""
    return value if math.isfinite(value) and value >= 0 else 0.0
