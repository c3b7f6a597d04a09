import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chansup.display import clean, clean_but_colours, duration

pytestmark = pytest.mark.slow  # the interpreter makes no difference


@given(st.text())
def test_what_processes_print_cannot_control_the_terminal(text: str):
    assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", clean(text))
    coloured = re.sub(r"\x1b\[[0-9;:]*m", "", clean_but_colours(text))
    assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", coloured)


@pytest.mark.parametrize(
    ("text", "plain", "coloured"),
    [
        ("tab\there", "tab\there", "tab\there"),
        ("\x1b[31mred\x1b[0m", "red", "\x1b[31mred\x1b[0m\x1b[0m"),
        ("\x1b[2J\x1b[Hgone", "gone", "gone"),
        ("\x1b]0;title\x07text", "text", "text"),
        ("over\rwritten", "overwritten", "overwritten"),
        ("\x1b[31mred \x1b[2Jx", "red x", "\x1b[31mred x\x1b[0m"),
        ("\x1b[\x1b[31m2J", "\x1b[31m2J"[5:], None),
    ],
)
def test_cleaning(text: str, plain: str, coloured: str | None):
    assert clean(text) == plain
    if coloured is not None:
        assert clean_but_colours(text) == coloured


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0s"), (0.9, "0s"), (59.9, "59s"), (60, "1m 0s"), (7423, "2h 3m"), (190_000, "2d 4h")],
)
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text
