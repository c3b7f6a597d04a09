"""What is written down of messages that are given up."""

import datetime
import fcntl
import json
import logging
import subprocess
import sys
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


WRITER = """
import logging, random, resource, sys
from chansup.worker.dead_letters import DeadLetters

path, who, room = sys.argv[1], sys.argv[2], int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))  # as a disk that is full: short writes


class Claims(logging.Handler):
    def emit(self, record):
        if "(it is in" in record.getMessage():
            print(name)


log = logging.getLogger("chansup.worker")
log.addHandler(Claims())
log.propagate = False
letters, chance = DeadLetters(path, "pool"), random.Random(who)
print("begins", flush=True)
sys.stdin.readline()
for number in range(600):
    name = f"{who}.{number}"
    letters.write("channel", 3, None, {"id": name, "filler": "x" * chance.randrange(20, 3000)})
"""


def test_what_is_said_to_be_in_the_file_is_there_when_the_disk_fills_under_three_writers(
    tmp_path: Path,
) -> None:
    path = tmp_path / "dead.jsonl"
    for trial in range(4):
        path.unlink(missing_ok=True)
        arguments = [sys.executable, "-c", WRITER, str(path)]
        writers = [
            subprocess.Popen(
                [*arguments, f"{trial}-{who}", "150000"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for who in range(3)
        ]  # fmt: skip
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "begins\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
        claimed = {name for writer in writers for name in writer.communicate(timeout=60)[0].split()}
        lines = path.read_bytes().splitlines(keepends=True)
        assert all(line.endswith(b"\n") for line in lines)
        assert {json.loads(line)["message"]["id"] for line in lines} == claimed
        assert len(claimed) > 50


def test_a_line_is_not_glued_to_one_that_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "dead"
    path.write_text('{"message": {"id": "to')
    DeadLetters(str(path), "pool").write("channel", 3, None, {"id": "whole"})
    torn, whole = path.read_text().splitlines()
    assert torn == '{"message": {"id": "to'
    assert json.loads(whole)["message"] == {"id": "whole"}


def test_a_file_that_another_process_keeps_locked_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "dead"
    with path.open("w") as other, caplog.at_level(logging.ERROR):
        fcntl.flock(other, fcntl.LOCK_EX)
        DeadLetters(str(path), "pool").write("channel", 3, None, {"id": "kept"})
    assert path.read_text() == ""
    assert "cannot be written: another process keeps it locked" in caplog.text
    assert '"id": "kept"' in caplog.text
