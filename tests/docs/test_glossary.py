"""The glossary of docs/architecture.md: what the code does not say any more does not come back."""

import re

import pytest

from tests.docs.pages import ROOT, table

pytestmark = pytest.mark.slow  # the interpreter makes no difference

ROWS = table(ROOT / "docs/architecture.md", "word", "meaning", "not")
NAMES = sorted({name for *_, instead in ROWS for name in re.findall(r"`(\w+)`", instead)})


def test_words_are_told_once() -> None:
    words = [word for row in ROWS for word in row[0].split(", ")]
    assert len(set(words)) == len(words) > 25


@pytest.mark.parametrize("name", NAMES)
def test_a_former_name_does_not_come_back(name: str) -> None:
    package = ROOT / "chansup"
    found = [
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if re.search(rf"\b{name}\b", file.read_text())
    ]
    assert not found
