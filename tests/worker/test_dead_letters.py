"""What is written down of messages that are given up."""

import datetime
import json
import logging
from pathlib import Path

import pytest

from chansup.worker.dead_letters import DeadLetters


@pytest.mark.parametrize(
    "message",
    [
        {"type": "x", "text": "ä\n\u2028", "number": 1.5, "nothing": None, "list": [1, [2]]},
        {"type": "x", "data": b"\xff\x00"},
        {"type": "x", "when": datetime.datetime(2026, 1, 1), "set": {1}},
        {"type": "x", 1: 2, (1, 2): {3: 4}},
        {"type": "x", "number": float("nan")},
        {"type": "x", "text": "\ud800"},
    ],
)
def test_every_message_is_one_line_of_json(tmp_path: Path, message: dict) -> None:
    path = tmp_path / "dead.jsonl"
    DeadLetters(str(path), "pool").write("channel", 3, "ValueError: x", message)
    DeadLetters(str(path), "pool").write("channel", 3, None, message)
    first, second = map(json.loads, path.read_bytes().splitlines())
    assert set(first) == {"time", "pool", "channel", "attempts", "error", "message"}
    assert first["message"] == second["message"]
    assert first["message"]["type"] == "x"
    if "data" in message:
        assert first["message"]["data"] == repr(message["data"])


def test_what_contains_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    message: dict = {"type": "x"}
    message["self"] = message
    with caplog.at_level(logging.ERROR):
        DeadLetters(str(tmp_path / "dead"), "pool").write("channel", 3, None, message)
    assert "given up" in caplog.text
    assert "..." in (tmp_path / "dead").read_text()


class Shy:
    def __repr__(self) -> str:
        raise ArithmeticError("do not look")


def test_what_nobody_can_show(tmp_path: Path) -> None:
    DeadLetters(str(tmp_path / "dead"), "pool").write("channel", 3, None, {"type": Shy()})
    assert "cannot be shown: ArithmeticError: do not look" in (tmp_path / "dead").read_text()
