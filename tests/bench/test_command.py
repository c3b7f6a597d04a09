"""The command itself: what it refuses, what it shows, how it ends."""

import os
import pty
import resource
import select
import signal
import subprocess
import sys
import time

import pytest

from tests.running import PATIENCE

from .conftest import ROOT, bench, command, measured

pytestmark = pytest.mark.slow  # the interpreter makes no difference


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["127.0.0.1:8000"], "http://127.0.0.1:8000"),
        (["ftp://127.0.0.1/"], "begins with http://"),
        (["http://"], "no host"),
        (["http://127.0.0.1:99999/"], "out of range"),
        (["http://127.0.0.1:0/"], "port 0"),
        (["http://[::1/"], "Invalid IPv6"),
        (["http://a..b/"], "not a host name"),
        (["http://user:word@127.0.0.1/"], "--header 'Authorization"),
        (["http://127.0.0.1/", "-H", "nothing"], "'Name: value'"),
        (["http://127.0.0.1/", "-H", "a: b\nc: d"], "'Name: value'"),
        (["http://127.0.0.1/", "-H", "Content-Length: 3"], "sets Content-Length itself"),
        (["http://127.0.0.1/", "--method", "a b"], "a method such as GET"),
        (["http://127.0.0.1/", "--idle"], "--idle cannot be used with http://"),
        (["http://127.0.0.1/", "--message", "x"], "--message cannot be used with http://"),
        (["http://127.0.0.1/", "--insecure"], "--insecure cannot be used with http://"),
        (["ws://127.0.0.1/", "--data", "x"], "--data cannot be used with ws://"),
        (["ws://127.0.0.1/", "--idle", "--rate", "3"], "--rate cannot be used with --idle"),
        (["http://127.0.0.1/", "-c", "10001"], "10001 is not in the range"),
        (["http://127.0.0.1/", "-c", "0"], "0 is not in the range"),
        (["http://127.0.0.1/", "-s", "0"], "-s"),
        (["http://127.0.0.1/", "--rate", "nan"], "--rate"),
        (["http://127.0.0.1/", "-s", "nan"], "--seconds"),
        ([], "URL"),
    ],
)
def test_what_makes_no_sense(arguments: list[str], said: str) -> None:
    done = bench(*arguments)
    assert done.code == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_a_file_that_is_not_there() -> None:
    done = bench("http://127.0.0.1/", "--data", "@/nowhere")
    assert done.code == 1
    assert "/nowhere" in done.stderr


def test_the_table(server: str) -> None:
    done = bench(f"http://{server}/missing", "-n", "30", "-c", "3")
    assert done.code == 1
    lines = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert f"http://{server}/missing: 3 connections, 30 requests" in lines
    assert "30 in" in lines["requests"]
    assert "30 (status 404: 30)" in lines["failed"]
    assert "404: 30" in lines["statuses"]
    assert {"per second", "received", "connections", "request", "connect"} <= set(lines)
    assert "p99.9" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_who_reads_only_the_first_line(server: str) -> None:
    words = " ".join(command(f"http://{server}/", "-n", "10"))
    done = subprocess.run(
        ["bash", "-c", f"{words} | head -n 1; echo ${{PIPESTATUS[0]}}"], cwd=ROOT,
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.splitlines()[1:] in (["141"], ["0"])


def test_a_bar_on_a_terminal(server: str) -> None:
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen(
        command(f"http://{server}/", "-s", "1.5", "-c", "2"), cwd=ROOT, env=environment,
        stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    shown = b""
    try:
        while select.select([leader], [], [], PATIENCE)[0] and (piece := os.read(leader, 65536)):
            shown += piece
    except OSError:  # EIO: the other side is closed
        pass
    os.close(leader)
    assert process.wait(PATIENCE) == 0
    text = shown.decode()
    assert "━" in text
    assert "/s  p50 " in text
    assert "per second" in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_end_at_any_time_shows_what_there_is(server: str, number: signal.Signals) -> None:
    process = subprocess.Popen(
        command(f"ws://{server}/", "-s", "600", "--json"), cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + PATIENCE
    while not _connected_to(process.pid, server) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    out, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert error == ""
    assert '"interrupted": true' in out


def _connected_to(pid: int, server: str) -> bool:
    port, established = f":{int(server.rpartition(':')[2]):04X}", "01"
    with open(f"/proc/{pid}/net/tcp") as file:
        connections = [line.split() for line in file]
    return sum(each[2].endswith(port) and each[3] == established for each in connections) >= 10


def test_a_rate_is_kept_and_counted_from_when_it_was_due(server: str) -> None:
    found = measured(f"http://{server}/", "-n", "100", "--rate", "100")
    assert found.code == 0
    assert found["answers"] == 100
    assert found["seconds"] > 0.9
    # One connection answers 20 per second; the last of 40 that are due within 0.4 s is 1.6 s late.
    found = measured(f"http://{server}/slow", "-n", "40", "-c", "1", "--rate", "100")
    assert found["answers"] == 40
    assert found["latency"]["max"] > 1.5
    assert found["latency"]["p50"] > 0.6


def test_what_could_not_be_sent_in_time(server: str) -> None:
    url = f"http://{server}/slow?1"
    found = measured(url, "-c", "1", "-n", "30", "--rate", "1000", "--timeout", "1.5")
    assert found.code == 1
    assert found["failed_by_kind"]["not sent in time"] > 20
    assert found["answers"] + found["failed"] + found["unfinished"] == 30


def test_more_connections_than_files_are_allowed(server: str) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))

    done = subprocess.run(
        command(f"http://{server}/", "-c", "500"), cwd=ROOT, preexec_fn=limit,
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 1
    assert "500 connections take 564 open files, and 200 are allowed here" in done.stderr


def test_the_soft_limit_is_raised(server: str) -> None:
    def limit() -> None:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        )

    done = subprocess.run(
        command(f"http://{server}/", "-c", "300", "-n", "600"), cwd=ROOT, preexec_fn=limit,
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_other_commands_load_nothing_of_it() -> None:
    script = "import sys, chansup.cli.main; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT
    )
    names = set(loaded.stdout.split())
    assert "chansup.cli.main" in names
    assert not {name for name in names if name.startswith("chansup.bench")}
    assert not {"httptools", "websockets", "rich", "uvloop", "asyncio"} & names
