"""Reading children's output and writing it to pipes, files and terminals that misbehave."""

import asyncio
import fcntl
import gc
import json
import os
import pty
import re
import resource
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chansup.protocol.status import LogLine
from chansup.supervisor.logs import line_reader
from chansup.supervisor.logs.line_reader import CHUNK, MAX_LINE, LineReader
from chansup.supervisor.logs.log_batch import Batch
from chansup.supervisor.logs.log_format import Formatter, resolve
from chansup.supervisor.logs.log_writer import LogWriter
from chansup.supervisor.logs.recent_lines import RecentLines
from chansup.text import visible_but_colours

pytestmark = pytest.mark.slow  # the interpreter makes no difference

NOON = 1_800_000_000.125


def nonblocking_pipe():
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    return reader, writer


def read_lines(*chunks):
    """Return the lines that a reader makes of the chunks, and how often it heard of the end."""
    reader, writer = nonblocking_pipe()
    lines: list[str] = []
    ends: list[int] = []
    one = LineReader(reader, lines.extend, lambda: ends.append(1))
    for chunk in chunks:
        for start in range(0, len(chunk), 4096):
            os.write(writer, chunk[start : start + 4096])
            one._read()
    os.close(writer)
    while not ends:
        one._read()
    one.close()
    return lines, len(ends)


# Reading


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([b"one\ntwo\n"], ["one", "two"]),
        ([b"o", b"ne\nt", b"wo"], ["one", "two"]),
        ([b"\n\n x \n"], ["", "", " x "]),
        ([b"one\r\ntwo\r", b"\nthree\r\n"], ["one", "two", "three"]),
        ([b"10%\r20%\r", b"30%\n"], ["10%", "20%", "30%"]),
        ([b"at the end\r"], ["at the end"]),
        ([b"caf\xc3", b"\xa9\n\xff\xfe!\n"], ["café", "\ufffd\ufffd!"]),
        ([b""], []),
    ],
)
def test_lines(chunks, expected):
    assert read_lines(*chunks) == (expected, 1)


@given(st.binary(max_size=300), st.lists(st.integers(1, 20), max_size=60))
def test_where_the_chunks_end_makes_no_difference(content, sizes):
    chunks, start = [], 0
    for size in sizes:
        chunks.append(content[start : start + size])
        start += size
    chunks = [chunk for chunk in [*chunks, content[start:]] if chunk]
    assert read_lines(*chunks) == read_lines(content)


@given(st.binary(max_size=300))
def test_no_line_can_be_taken_for_two(content):
    lines, _ = read_lines(content)
    for line in lines:
        assert not re.search("[\x00-\x08\x0a-\x1a\x1c-\x1f\x7f-\x9f\u2028\u2029]", line)
        assert len(line.splitlines()) <= 1
        assert "\x1b" not in re.sub("\x1b\\[[0-9;:]*m", "", line)


@given(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs", "Cc"])))
def test_ordinary_text_is_left_as_it_is(text):
    if "\u2028" not in text and "\u2029" not in text:
        assert read_lines(text.encode() + b"\n")[0] == [text]


def test_what_could_forge_is_shown_and_colours_pass():
    assert visible_but_colours("\x1b[1;31mred\x1b[0m\ttab") == "\x1b[1;31mred\x1b[0m\ttab"
    assert visible_but_colours("\x1b[2K\x1b[1Gweb.1 | forged") == "\\x1b[2K\\x1b[1Gweb.1 | forged"
    assert visible_but_colours("a\x07b\x00c\x9b1Gd\u2028e") == "a\\x07b\\x00c\\x9b1Gd\\u2028e"


@pytest.mark.parametrize("ending", [b"\n", b""])
@pytest.mark.parametrize("length", [MAX_LINE, MAX_LINE + 1, 3 * MAX_LINE + 5, 20 * MAX_LINE])
def test_long_lines_are_split(length, ending):
    lines, _ = read_lines(b"x" * length + ending)
    assert "".join(lines) == "x" * length
    assert max(map(len, lines)) <= MAX_LINE
    assert len(lines) <= -(-length // MAX_LINE) + 1


def test_no_character_is_torn_when_a_line_is_split():
    for ahead in ("", "x"):
        text = ahead + "é" * (2 * MAX_LINE)
        lines, _ = read_lines(text.encode())
        assert "".join(lines) == text


async def until(question, seconds=20):
    async with asyncio.timeout(seconds):
        while not question():
            await asyncio.sleep(0.002)


def child_printing(program):
    """Start a program whose stdout is a pipe; return it and the non-blocking end to read."""
    reader, writer = nonblocking_pipe()
    child = subprocess.Popen([sys.executable, "-c", program], stdout=writer)
    os.close(writer)
    return child, reader


def test_the_output_of_a_child_to_its_end():
    async def main():
        child, reader = child_printing("import os; os.write(1, b'hello\\nand bye')")
        lines: list[str] = []
        ended = asyncio.Event()
        LineReader(reader, lines.extend, ended.set).start(asyncio.get_running_loop())
        await asyncio.wait_for(ended.wait(), 10)
        assert lines == ["hello", "and bye"]
        child.wait()

    asyncio.run(main())


def test_a_child_that_closes_its_output_and_lives_on_costs_nothing():
    async def main():
        child, reader = child_printing("import os, time; os.close(1); time.sleep(60)")
        ended = asyncio.Event()
        LineReader(reader, lambda lines: None, ended.set).start(asyncio.get_running_loop())
        await asyncio.wait_for(ended.wait(), 10)
        assert child.poll() is None
        before = time.process_time()
        await asyncio.sleep(0.1)
        assert time.process_time() - before < 0.05
        child.kill()
        child.wait()

    asyncio.run(main())


def waiting_in(reader):
    """Return how many bytes a pipe holds."""
    return struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, b"\0" * 4))[0]


FLOOD = "import os\nwhile True: os.write(1, (b'x' * 63 + b'\\n') * 1000)"


def test_a_flood_gets_one_chunk_at_a_time_and_then_it_is_the_turn_of_the_others():
    async def main():
        child, reader = child_printing(FLOOD)
        count, most = 0, 0

        def take(lines):
            nonlocal count
            count += len(lines)

        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 16 * CHUNK)
        one = LineReader(reader, take)
        await until(lambda: waiting_in(reader) > 4 * CHUNK)
        one.start(asyncio.get_running_loop())
        async with asyncio.timeout(30):
            while count < 20_000:
                before = count
                await asyncio.sleep(0)
                most = max(most, count - before)
        child.kill()
        child.wait()
        one.close()
        assert 0 < most <= CHUNK / 64 + 1

    asyncio.run(main())


def test_closing_takes_what_waits_but_not_for_ever():
    child, reader = child_printing(FLOOD)
    lines: list[str] = []
    ends: list[int] = []
    one = LineReader(reader, lines.extend, lambda: ends.append(1))
    while not one._read():
        pass
    one.close()
    one.close()
    assert lines
    assert ends == [1]
    child.kill()
    child.wait()
    LineReader(os.open("/dev/zero", os.O_RDONLY), lines.extend).close()  # never at its end


def test_a_crowded_queue_slows_a_flood_and_nobody_else():
    async def main():
        loop = asyncio.get_running_loop()
        child, reader = child_printing(FLOOD)
        flood: list[int] = []
        quiet: list[str] = []
        first = LineReader(
            reader, lambda lines: flood.append(sum(map(len, lines))), crowded=lambda: True
        )
        first.start(loop)
        reader, writer = nonblocking_pipe()
        second = LineReader(reader, quiet.extend, crowded=lambda: True)
        second.start(loop)
        await until(lambda: flood)
        began = loop.time()
        flood.clear()
        while loop.time() < began + 0.5:
            sent = len(quiet)
            os.write(writer, b"hello\n")
            await until(lambda sent=sent: len(quiet) > sent)
        assert 1 <= sum(flood) / CHUNK <= 2 * (0.5 / line_reader.PAUSE + 1)
        assert len(quiet) > 20
        first.close()
        second.close()
        os.close(writer)
        child.kill()
        child.wait()

    asyncio.run(main())


# Keeping


def test_the_last_lines_are_kept():
    recent = RecentLines(3)
    recent.append("web.0", 1, ["a", "b"], NOON)
    recent.append("web.0", 2, ["c", "d"], NOON)
    assert [line.text for line in recent.tail(10)] == ["b", "c", "d"]
    assert [line.text for line in recent.tail(2)] == ["c", "d"]
    assert [line.text for line in recent.tail(10, pid=1)] == ["b"]
    assert recent.tail(0) == []
    assert recent.tail(1)[0] == LogLine(NOON, "web.0", 2, "d")


@example([["x" * 30] * 5, ["y" * 30]], 20)
@example([["x" * 300], ["y"]], 20)
@given(st.lists(st.lists(st.text(max_size=30), max_size=10)), st.integers(1, 20))
def test_what_is_kept_is_bounded_and_is_the_end(batches, most):
    recent = RecentLines(most, size=100)
    for batch in batches:
        recent.append("web.0", 1, batch, NOON)
    everything = [line for batch in batches for line in batch]
    kept = [line.text for line in recent.tail(10**6)]
    assert len(kept) <= most
    assert sum(map(len, kept)) <= 100 or len(kept) == 1
    assert everything[len(everything) - len(kept) :] == kept
    assert kept or not everything


# Writing


@pytest.fixture
def output(tmp_path):
    """A file to write to, and a function that returns what stands in it."""
    path = tmp_path / "stdout"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    yield descriptor, lambda: path.read_bytes().decode()
    os.close(descriptor)


def started(descriptor, format="prefix", **options):
    writer = LogWriter(descriptor, format, **options)
    writer.start()
    return writer


def test_prefix(output):
    descriptor, written = output
    writer = started(descriptor)
    writer.write("web.0", 7, ["one", "", "three"])
    writer.say("two slots are ready")
    writer.say("late", "warning")
    writer.say("never shown", "debug")
    assert writer.close()
    assert written() == (
        "web.0 | one\nweb.0 | \nweb.0 | three\n"
        "chansup | two slots are ready\nchansup | warning: late\n"
    )
    assert [line.text for line in writer.own.tail(9)] == ["two slots are ready", "late"]


def test_json(output):
    descriptor, written = output
    writer = started(descriptor, "json", level="debug")
    writer.write("web.0", 7, ['a "quoted" \\ line', "snow \N{SNOWMAN}"], NOON)
    writer.say("why\nnot", "error")
    assert writer.close()
    first, second, *own = map(json.loads, written().splitlines())
    assert first == {
        "time": "2027-01-15T08:00:00.125Z",
        "slot": "web.0",
        "pid": 7,
        "message": 'a "quoted" \\ line',
    }
    assert second["message"] == "snow \N{SNOWMAN}"
    assert [(line["slot"], line["level"], line["message"]) for line in own] == [
        ("chansup", "error", "why"),
        ("chansup", "error", "not"),
    ]


@given(
    st.sampled_from(["prefix", "console", "json"]),
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5),
)
def test_every_line_of_every_format_says_whose_it_is(format, texts):
    lines, _ = read_lines("\n".join(texts).encode() + b"\n")
    batch = Batch(NOON, "web.0", 7, None, "\n".join(lines), len(lines))
    written = Formatter(format).format(batch).decode()
    assert written.endswith("\n")
    rows = written[:-1].split("\n")
    assert len(rows) == len(lines) == len(written.splitlines())
    for row, line in zip(rows, lines, strict=True):
        if format == "json":
            assert json.loads(row)["slot"] == "web.0"
            assert json.loads(row)["message"] == line
        else:
            assert "web.0" in row
            assert line in row


def test_colours_end_with_their_line_in_a_pipe_as_well():
    batch = Batch(NOON, "web.0", 7, None, "GET /\x1b[8m\nplain", 2)
    written = Formatter("prefix").format(batch).decode()
    assert written == "web.0 | GET /\x1b[8m\x1b[0m\nweb.0 | plain\x1b[0m\n"


def test_console_has_time_slot_pid_and_ends_colours():
    batch = Batch(NOON, "web.0", 7, None, "\x1b[31mred\nplain", 2)
    plain = Formatter("console", colours=False).format(batch).decode()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.125 web\.0            7 \| \x1b\[31mred\x1b\[0m\n"
        r"\d\d:\d\d:\d\d\.125 web\.0            7 \| plain\x1b\[0m\n",
        plain,
    )
    coloured = Formatter("console").format(batch).decode()
    assert re.search(r"\x1b\[\d+mweb\.0 +7 \|\x1b\[0m", coloured)


def test_auto_is_console_on_a_terminal_and_prefix_in_a_pipe(output):
    leader, follower = pty.openpty()
    assert resolve("auto", follower) == "console"
    assert resolve("json", follower) == "json"
    assert resolve("auto", output[0]) == "prefix"
    os.close(leader)
    os.close(follower)


def small_pipe():
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    return reader, writer


def drain(reader):
    """Read a pipe to its end in a thread; return the thread and the list that it fills."""
    chunks = []

    def read():
        while chunk := os.read(reader, CHUNK):
            chunks.append(chunk)
        os.close(reader)

    thread = threading.Thread(target=read)
    thread.start()
    return thread, chunks


def test_a_stuck_stdout_holds_nobody_up_and_what_is_lost_is_said():
    reader, descriptor = small_pipe()
    writer = started(descriptor, queue=20_000)
    slowest = 0.0
    sent = 0
    while writer.dropped < 500:
        before = time.monotonic()
        writer.write("web.0", 7, [f"line {sent + number}" for number in range(10)])
        slowest = max(slowest, time.monotonic() - before)
        sent += 10
    assert slowest < 0.5
    thread, chunks = drain(reader)
    deadline = time.monotonic() + 10
    while b"dropped here" not in b"".join(chunks) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert b"dropped here" in b"".join(chunks)  # without waiting for the next line
    writer.write("web.0", 7, ["after"])
    assert writer.close(10)
    os.close(descriptor)
    thread.join()
    lines = b"".join(chunks).decode().splitlines()
    assert lines[-1] == "web.0 | after"
    said = [line for line in lines if line.startswith("chansup | ")]
    assert said == [
        f"chansup | warning: {writer.dropped} lines dropped here: stdout was blocked or failed"
    ]
    written = [line for line in lines if line.startswith("web.0 | line")]
    assert len(written) + writer.dropped == sent
    assert written == [f"web.0 | line {number}" for number in range(len(written))]
    assert lines[len(written)] == said[0]  # where they are missing


def test_a_stuck_stdout_does_not_hold_up_the_exit():
    reader, descriptor = small_pipe()
    writer = started(descriptor)
    writer.write("web.0", 7, ["x" * 10_000])
    before = time.monotonic()
    assert not writer.close(timeout=0.1)
    assert time.monotonic() - before < 20
    thread, _ = drain(reader)  # so that the thread of the writer ends
    writer._thread.join()
    os.close(descriptor)
    thread.join()


def test_the_queue_is_bounded():
    reader, descriptor = small_pipe()
    writer = started(descriptor, queue=100_000)
    for _ in range(1000):
        writer.write("web.0", 7, ["x" * 1000] * 10)
        assert writer._waiting <= 100_000
    assert writer.crowded()
    thread, _ = drain(reader)
    assert writer.close(10)
    os.close(descriptor)
    thread.join()


def test_a_broken_pipe_is_survived_and_counted():
    reader, descriptor = os.pipe()
    os.close(reader)
    writer = started(descriptor)
    writer.write("web.0", 7, ["one", "two"])
    assert writer.close()
    assert writer.dropped == 2
    os.close(descriptor)


def test_a_disk_that_fills_and_empties_again(tmp_path):
    """RLIMIT_FSIZE stands in for a full disk: write(2) fails half-way, then works again."""
    program = """
import os, resource, signal, sys, time
from chansup.supervisor.logs.log_writer import LogWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
writer = LogWriter(descriptor, "prefix")
writer.start()
resource.setrlimit(resource.RLIMIT_FSIZE, (30, resource.RLIM_INFINITY))
writer.write("web.0", 7, ["fits", "does not fit whole", "not at all"])
while not writer.dropped: time.sleep(0.001)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
writer.write("web.0", 7, ["again"])
assert writer.close(10)
print(writer.dropped)
"""
    path = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=30
    )
    assert (done.stdout, done.stderr) == ("2\n", "")
    assert path.read_text() == (
        "web.0 | fits\nweb.0 | does not \n"  # cut off after 30 bytes
        "chansup | warning: 2 lines dropped here: stdout was blocked or failed\n"
        "web.0 | again\n"
    )


def test_a_stdout_that_somebody_made_non_blocking(tmp_path):
    reader, descriptor = small_pipe()
    os.set_blocking(descriptor, False)
    writer = started(descriptor)
    writer.write("web.0", 7, [f"{number:01000}" for number in range(100)])
    thread, chunks = drain(reader)
    assert writer.close(10)
    os.close(descriptor)
    thread.join()
    assert len(b"".join(chunks).splitlines()) == 100
    assert writer.dropped == 0


def test_messages_of_our_own_cannot_break_out_either(output):
    descriptor, written = output
    writer = started(descriptor)
    writer.say("from a file name: \udcff\rweb.0 | forged\x1b[2K")
    writer.close()
    assert written() == ("chansup | from a file name: \\xff\nchansup | web.0 | forged\\x1b[2K\n")


# Following


def test_followers_get_what_they_want_as_it_comes(output):
    async def main():
        writer = LogWriter(output[0])
        everything = writer.follow()
        web = writer.follow(lambda slot: slot.startswith("web."))
        writer.write("web.0", 7, ["one"], NOON)
        writer.write("clock.0", 8, ["tick"], NOON)
        writer.say("hello")
        assert [(await anext(everything)).text for _ in range(3)] == ["one", "tick", "hello"]
        waiting = asyncio.ensure_future(anext(web))
        assert (await waiting).slot == "web.0"
        waiting = asyncio.ensure_future(anext(web))
        await asyncio.sleep(0)
        assert not waiting.done()
        writer.write("web.1", 7, ["two"], NOON)
        assert (await waiting).text == "two"
        writer.close()
        assert [line async for line in web] == []

    asyncio.run(main())


def test_a_slow_follower_misses_lines_and_learns_how_many(output):
    async def main():
        writer = LogWriter(output[0])
        slow = writer.follow(limit=3)
        for number in range(5):
            writer.write("web.0", 7, [f"{number}a", f"{number}b"])
        assert slow.missed == 7
        assert [(await anext(slow)).text for _ in range(3)] == ["0a", "0b", "1a"]
        writer.write("web.0", 7, ["again"])
        said, again = await anext(slow), await anext(slow)
        assert (said.slot, said.text) == (
            "chansup",
            "7 lines left out here: this reader is too slow",
        )
        assert again.text == "again"

    asyncio.run(main())


def test_followers_that_left_are_forgotten(output):
    async def main():
        writer = LogWriter(output[0])
        kept = writer.follow()
        writer.follow()
        gone = writer.follow()
        await gone.aclose()
        writer.write("web.0", 7, ["one"])
        assert [line async for line in gone] == []
        gc.collect()
        assert set(writer._subscriptions) == {kept, gone}

    asyncio.run(main())


# Cost


def test_it_is_fast_enough(output):
    """At least 300,000 lines a second, with a wide margin for slow and busy machines."""
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    chunk = (b"127.0.0.1 - GET /rooms/7/ 200 1234 bytes in 12 ms" + b"\n") * (CHUNK // 50)
    writer = started(os.open(os.devnull, os.O_WRONLY))
    recent = RecentLines()
    count = 0

    def take(lines):
        nonlocal count
        now = time.time()
        count += len(lines)
        writer.write("web.0", 7, lines, now)
        recent.append("web.0", 7, lines, now)

    reader, pipe = nonblocking_pipe()
    one = LineReader(reader, take)
    before = time.process_time()
    for _ in range(50):
        one._split(chunk)
    spent = time.process_time() - before
    writer.close(10)
    os.close(pipe)
    one.close()
    assert count / spent > 300_000
