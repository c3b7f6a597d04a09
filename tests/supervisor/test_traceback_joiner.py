"""Tracebacks in the JSON log: one document each, whatever comes before, between and after."""

import asyncio
import json
import os
import subprocess
import sys
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chansup.supervisor.logs.line_reader import LineReader
from chansup.supervisor.logs.log_batch import Batch
from chansup.supervisor.logs.log_writer import LogWriter
from chansup.supervisor.logs.traceback_joiner import HOLD, TracebackJoiner


def fails(number: int) -> None:
    raise ValueError(f"number {number}")


def plain() -> str:
    try:
        fails(1)
    except ValueError:
        return traceback.format_exc()
    raise AssertionError


def chained(cause: bool) -> str:
    try:
        try:
            fails(1)
        except ValueError as error:
            raise KeyError("other") from (error if cause else None)
    except KeyError as error:
        error.__suppress_context__ = False
        return traceback.format_exc()
    raise AssertionError


def grouped() -> str:
    try:
        inner = ExceptionGroup("inner", [ValueError(2), OSError(3)])
        raise ExceptionGroup("outer", [inner, ValueError(4)])
    except ExceptionGroup:
        return traceback.format_exc()
    raise AssertionError


def several_lines() -> str:
    try:
        try:
            fails(1)
        except ValueError as error:
            raise RuntimeError("first\n\nDETAIL:  third\n  indented\n{") from error
    except RuntimeError as error:
        error.add_note("a note\nof two lines")
        return traceback.format_exc()
    raise AssertionError


KINDS = [plain(), chained(True), chained(False), grouped()]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def batch(lines: list[str], slot: str = "web.0", pid: int = 7) -> Batch:
    return Batch(1.0, slot, pid, None, "\n".join(lines), len(lines))


def documents(batches: list[Batch]) -> list[str]:
    found = []
    for one in batches:
        found.extend([one.text] if one.lines == 1 else one.text.split("\n"))
    return found


@given(st.lists(st.sampled_from([*KINDS, "INFO: a line\n", "\n", "  indented\n"])), st.data())
def test_each_traceback_is_one_document_however_it_is_cut(pieces: list[str], data) -> None:
    lines = "".join(pieces).splitlines()
    clock, given_back = Clock(), []
    joiner = TracebackJoiner(clock)
    while lines:
        cut = data.draw(st.integers(1, len(lines)))
        given_back += joiner.add(batch(lines[:cut]))
        lines = lines[cut:]
    given_back += joiner.all()
    # Nothing is lost and the order stays.
    assert "\n".join(documents(given_back)) == "".join(pieces).removesuffix("\n")
    found = documents(given_back)
    for piece in pieces:
        if piece in KINDS:
            assert any(piece.rstrip("\n") in one for one in found)
    assert "INFO: a line" not in "".join(one for one in found if one != "INFO: a line")


def test_two_processes_do_not_mix() -> None:
    joiner = TracebackJoiner(Clock())
    one, other = plain().splitlines(), grouped().splitlines()
    for first, second in zip(one, other, strict=False):
        assert joiner.add(batch([first])) == []
        assert joiner.add(batch([second], pid=8)) == []
    (done,) = joiner.add(batch(["next"]))[:1]
    assert done.text == "\n".join(one)


def test_silence_completes_it() -> None:
    clock = Clock()
    joiner = TracebackJoiner(clock)
    assert joiner.patience is None
    assert joiner.add(batch(plain().splitlines())) == []
    assert joiner.patience == HOLD
    assert joiner.complete() == []
    clock.now += HOLD
    assert documents(joiner.complete()) == [plain().rstrip("\n")]
    assert joiner.patience is None


def test_it_is_bounded() -> None:
    joiner = TracebackJoiner(Clock())
    lines = ["Traceback (most recent call last):", *["  frame"] * 10_000]
    assert sum(len(one.text) for one in joiner.add(batch(lines))) > 0


@pytest.mark.parametrize("end", ["INFO: next", "2026-12-01 10:00:00 next", plain().rstrip("\n")])
def test_a_message_of_several_lines_stays_with_its_traceback(end: str) -> None:
    joiner = TracebackJoiner(Clock())
    kind = several_lines()
    given_back = joiner.add(batch([*kind.splitlines(), "", *end.splitlines()])) + joiner.all()
    assert documents(given_back) == [kind.rstrip("\n"), "", end]


def test_the_traceback_of_another_process_stays_within_the_message() -> None:
    remote = f'concurrent.futures.process._RemoteTraceback: \n"""\n{plain()}"""\n\n'
    chain = f"The above exception was the direct cause of the following exception:\n\n{plain()}"
    joiner = TracebackJoiner(Clock())
    lines = (remote + chain).rstrip("\n").split("\n")
    lines = ["Traceback (most recent call last):", "  frame", *lines]
    assert joiner.add(batch(lines)) == []
    assert documents(joiner.all()) == ["\n".join(lines)]


PRINTS = {
    "uncaught": "raise ValueError('one\\n\\ntwo\\n  three')",
    "logged": "import logging\ntry: raise ValueError('one\\n\\ntwo\\n  three')\n"
    "except ValueError: logging.exception('it failed\\nhere')",
}


@pytest.mark.parametrize("code", PRINTS.values(), ids=PRINTS)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_python_that_prints_an_exception_of_several_lines(code: str, unbuffered: str) -> None:
    loop = asyncio.new_event_loop()
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    found, log = os.pipe()
    writer = LogWriter(log, "json")
    writer.start()
    reader = LineReader(
        ours, lambda lines: writer.write("a.0", 7, lines, continues=reader.continues), loop.stop
    )
    reader.start(loop)
    environ = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env=environ)
    os.close(theirs)
    loop.run_forever()
    loop.close()
    assert writer.close()
    os.close(log)
    with open(found) as file:
        messages = [json.loads(line)["message"] for line in file]
    assert messages[-1].startswith("Traceback")
    assert messages[-1].endswith("ValueError: one\n\ntwo\n  three")


@pytest.mark.parametrize("kind", KINDS)
def test_the_log_has_one_document(kind: str) -> None:
    reader, writer = os.pipe()
    log = LogWriter(writer, "json")
    log.start()
    for line in ["before", *kind.splitlines(), "after"]:
        log.write("web.0", 7, [line])
    assert log.close()
    os.close(writer)
    with open(reader) as file:
        messages = [json.loads(line)["message"] for line in file]
    assert messages == ["before", kind.rstrip("\n"), "after"]
