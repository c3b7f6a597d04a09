"""Declarations of counters: once each, and what follows from them."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from chansup.protocol import counters, relay_board, scoreboard
from chansup.protocol.counters import Buckets, DeclaredTwiceError, Families, Label, Layout
from chansup.supervisor.metrics import metrics  # declares all that are left  # noqa: F401
from tests.docs.pages import ROOT

PACKAGE = ROOT / "chansup"


@pytest.fixture(autouse=True)
def of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "_declared", dict(counters._declared))


def test_a_family_is_declared_once() -> None:
    one, other = Families("a test"), Layout("another one", ("pool",))
    one.gauge("chansup_test", "Is tested.")
    with pytest.raises(DeclaredTwiceError, match="chansup_test is declared twice"):
        other.gauge("chansup_test", "Is tested, too.")
    with pytest.raises(DeclaredTwiceError):
        Families("a third one").counter("chansup_requests_total", "Is there already.")


def names_in(file: Path) -> Iterator[str]:
    """Yield the names of families that the strings of a module have."""
    tree = ast.parse(file.read_text())
    known = {family.name for family in counters.declared()}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in known:
            yield node.value


def test_no_other_place_names_a_family() -> None:
    found = Counter(name for file in PACKAGE.rglob("*.py") for name in names_in(file))
    assert found == Counter(family.name for family in counters.declared())


def test_each_cell_is_shown_or_internal() -> None:
    for layout in (scoreboard.LAYOUT, relay_board.LAYOUT):
        shown = [place for placed in layout._placed for place, _ in placed.parts]
        for family, place, _ in layout._placed:
            if family.bounds:
                shown += range(place, place + len(family.bounds) + 2)
        assert len(shown) == len(set(shown))
        inside = set(range(layout.cells)) - set(shown)
        names = {
            "BEATS", "PHASE", "LAME_DUCK", "OUT_OF_DESCRIPTORS_NOW",
        } if layout is scoreboard.LAYOUT else set()  # fmt: skip
        assert inside == {getattr(scoreboard, name) for name in names}


def test_places_of_a_layout() -> None:
    layout = Layout("a test", ("pool",))
    held = layout.gauge("chansup_test_held", "Held.")
    secret = layout.internal()
    first = layout.counter(
        "chansup_test_total", "All.", Label("a", ("x", "y"), usual=("x",)), Label("b", ("1", "2"))
    )
    times = layout.histogram("chansup_test_seconds", "Times.", (0.1, 1.0))
    assert (held, secret, first, times, layout.cells) == (0, 1, 2, 6, 10)
    cells = [7.0, 9.0, 1.0, 2.0, 0.0, 0.0, 4.5, 1.0, 2.0, 3.0]
    gone, living = [0.0] * 10, [0.0] * 10
    layout.keep(gone, cells)
    layout.add(living, [*cells[:-1], float("nan")])
    assert gone == [0.0, 0.0, *cells[2:]]
    assert living == [*cells[:-1], 0.0]
    rows = {(row.family.name, *row.labels): row.value for row in layout.rows([(["web"], cells)])}
    assert rows == {
        ("chansup_test_held", "web"): 7.0,
        ("chansup_test_total", "web", "x", "1"): 1.0,
        ("chansup_test_total", "web", "x", "2"): 2.0,
        ("chansup_test_seconds", "web"): Buckets([1.0, 3.0, 6.0], 4.5),
    }
    other = [0.0] * 5 + [1.0] + [0.0] * 4  # "y" was seen here
    rows_of_both = [row.labels for row in layout.rows([(["web"], cells), (["api"], other)])]
    assert ["web", "y", "1"] in rows_of_both
    assert ["api", "x", "1"] in rows_of_both
