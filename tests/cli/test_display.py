import io
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from chansup.cli.status_view import _slot_table
from chansup.protocol.status import PoolStatus, SlotStatus
from chansup.text import clean, clean_but_colours, duration

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


def slot(name: str, state: str, **more: Any) -> SlotStatus:
    known: dict[str, Any] = {
        "pid": None, "generation": 12, "started": None, "restarts": {}, "last_exit": None,
        "last_exit_code": None, "status": None, "retry_in": None, "output": [],
        "requests_in_progress": 0, "websockets_open": 0, "loop_lag": None, "draining": [],
    }  # fmt: skip
    return SlotStatus(name, state, **{**known, **more})


def table(width: int, name: str = "interface") -> str:
    slots = [
        slot(f"{name}.0", "READY", pid=1048576, started=1000.0, requests_in_progress=3),
        slot(
            f"{name}.1", "BACKOFF", retry_in=28.5, restarts={"crash": 12345},
            last_exit="exit code 1 (ModuleNotFoundError)",
        ),
    ]  # fmt: skip
    pool = PoolStatus(name, "interface", "uvicorn", 2, 1, slots)
    console = Console(width=width, file=io.StringIO(), highlight=False, emoji=False, markup=False)
    with console.capture() as captured:
        console.print(_slot_table([pool], 2000.0, width))
    return captured.get()


@pytest.mark.parametrize("width", range(32, 140, 3))
def test_no_width_cuts_a_state_or_hides_why_a_process_ended(width: int):
    shown = table(width)
    assert all(word in shown for word in ("backoff,", "retry in", "29s"))
    assert "backoff, retry in 29s" in shown or width < 40
    assert "exit code 1 (ModuleNotFoundError)" in " ".join(shown.split())
    assert "1048576" in shown or "pid" not in shown
    assert "…" not in shown or width < 48  # then the names lose their middle
    assert all(len(line.rstrip()) <= width for line in shown.splitlines())


@pytest.mark.parametrize("width", range(48, 140, 7))
def test_a_long_name_costs_neither_state_nor_pid(width: int):
    shown = table(width, name="thumbnails-of-large-pictures")
    assert "1048576" in shown
    assert "backoff, retry in 29s" in shown
    assert all(f".{number} " in shown for number in (0, 1))
