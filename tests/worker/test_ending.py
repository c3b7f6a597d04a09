"""What becomes of messages when processes end, as asked or not."""

import json
import os
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from tests.layer import hubs
from tests.servers import redis
from tests.worker.project import CONFIG, Project
from tests.worker.test_handling import numbers

pytestmark = pytest.mark.slow  # the interpreter makes no difference

THUMBNAILS = '[workers.thumbnails]\nchannels = ["thumbnails"]\n'
MAIL = '[workers.mail]\nchannels = ["mail"]\n'
BOTH = '[workers.x]\nchannels = ["thumbnails", "mail"]\n'
REDELIVER = "redeliver = true\n"
IN_HASTE = CONFIG.replace("stop_timeout = 15", "stop_timeout = 3")


# Asked to end


@pytest.mark.parametrize("channel", ["thumbnails", "mail"])
@pytest.mark.thorough
def test_a_stop_in_the_middle_of_200_messages_loses_none(either: Project, channel: str) -> None:
    tables = f'[workers.x]\nchannels = ["{channel}"]\nprocesses = 2\nconcurrency = 2\n'
    either.send(channel, *numbers(200, seconds=0.1))
    with either.running(tables) as run:
        run.wait_for(lambda: len(either.journal()) >= 20)
        assert run.stop() == 0
    at_stop = len(either.journal())
    assert sorted(either.journal()) == sorted(either.journal("begin"))
    assert at_stop < 200
    with either.running(tables) as run:
        run.wait_for(lambda: len(either.journal()) == 200)
        assert run.stop() == 0
    assert sorted(either.journal()) == list(range(200))
    assert "returned" not in run.output()


@pytest.mark.slow
@pytest.mark.thorough
def test_reloads_while_a_queue_is_worked_off(either: Project) -> None:
    with either.running(BOTH + "processes = 2\n") as run:
        messages = [
            (one, {"number": n, "seconds": 0.02})
            for n in range(150)
            for one in ("thumbnails", "mail")
        ]
        either.send_all(messages)
        for _ in range(2):
            assert run.command("reload").returncode == 0
        assert run.command("scale", "x=4").returncode == 0
        assert run.command("scale", "x=1").returncode == 0
        run.wait_for(lambda: len(either.journal()) == 300)
        assert run.stop() == 0
    assert Counter(either.journal()) == dict.fromkeys(range(150), 2)


@pytest.mark.parametrize(("channel", "concurrency"), [("thumbnails", 1), ("mail", 1), ("mail", 2)])
@pytest.mark.thorough
def test_what_cannot_be_finished_goes_back_to_the_queue(
    either: Project, channel: str, concurrency: int
) -> None:
    tables = f'[workers.x]\nchannels = ["{channel}"]\nconcurrency = {concurrency}\n'
    with either.running(tables, IN_HASTE) as run:
        messages = numbers(concurrency, wait_for="go")
        either.send(channel, *messages, {"number": 2})
        run.wait_for(lambda: len(either.journal("begin")) == concurrency)
        assert run.stop() == 0
    assert "was not finished in time, and goes back to the queue" in run.output()
    assert "killed" not in run.output()
    assert either.journal() == []
    (either.directory / "go").touch()
    with either.running(tables) as run:
        run.wait_for(lambda: sorted(either.journal()) == [*range(concurrency), 2])
        assert run.stop() == 0


@pytest.mark.parametrize("channel", ["thumbnails", "mail"])
@pytest.mark.thorough
def test_a_second_signal_hurries(site: Project, channel: str) -> None:
    with site.running(f'[workers.x]\nchannels = ["{channel}"]\n') as run:
        site.send(channel, {"number": 1, "wait_for": "go"})
        run.wait_for(lambda: site.journal("begin") == [1])
        (pid,) = run.pids("x")
        run.send_to(pid, signal.SIGTERM)
        run.wait_for(lambda: run.slots()["x.0"]["pid"] != pid or _is_draining(run, pid))
        run.send_to(pid, signal.SIGTERM)
        run.wait_for_output(f"x.0[{pid}]: gone, exit code 0")  # with the thread that waits for it
        (site.directory / "go").touch()
        run.wait_for(lambda: site.journal() == [1])
        assert len(site.journal("begin")) == 2
        run.wait_for_output("goes back to the queue")


@pytest.mark.parametrize("word", ["returns", "raises"])
@pytest.mark.thorough
def test_a_consumer_that_takes_its_end_calmly_is_not_done(site: Project, word: str) -> None:
    with site.running(THUMBNAILS, IN_HASTE) as run:
        site.send("thumbnails", {"type": "calm", "number": 1, word: True})
        run.wait_for(lambda: site.journal("begin") == [1])
        assert run.stop() == 0
    assert "goes back to the queue" in run.output()
    with site.running(THUMBNAILS, IN_HASTE) as run:
        run.wait_for(lambda: site.journal("begin") == [1, 1])


def _is_draining(run: object, pid: int) -> bool:
    """Whether the process has taken notice of the signal: it holds no SIGTERM back."""
    status = Path(f"/proc/{pid}/status").read_text()
    return "SigPnd:\t0000000000000000" in status and "ShdPnd:\t0000000000000000" in status


def test_an_idle_process_ends_at_once(either: Project) -> None:
    with either.running(BOTH + "processes = 3\n") as run:
        begin = time.monotonic()
        assert run.stop() == 0
        assert time.monotonic() - begin < 10


# Killed


def _has_done(site: Project, count: int) -> bool:
    return len(site.journal()) >= count


@pytest.mark.parametrize("channel", ["thumbnails", "mail"])
def test_with_redeliver_a_killed_process_loses_none(site: Project, channel: str) -> None:
    tables = f'[workers.x]\nchannels = ["{channel}"]\nprocesses = 2\nconcurrency = 2\n'
    more = REDELIVER + "max_deliveries = 10\n"
    with site.running(tables + more) as run:
        site.send(channel, *numbers(200, seconds=0.02))
        for done in (20, 60, 100, 140):
            run.wait_for(partial(_has_done, site, done))
            pid = run.pids("x")[0]
            run.send_to(pid, signal.SIGKILL)
            run.wait_for_successor("x.0", pid)
        run.wait_for(lambda: set(site.journal()) == set(range(200)))
        assert run.stop() == 0


def test_without_redeliver_a_killed_process_loses_what_it_had_in_hand(site: Project) -> None:
    with site.running(THUMBNAILS) as run:
        site.send("thumbnails", *numbers(3, die=True), {"number": 3})
        run.wait_for(lambda: site.journal() == [3])
        assert site.journal("begin") == [0, 1, 2, 3]


# Given up


@pytest.mark.parametrize("word", ["fail", "die"])
@pytest.mark.thorough
def test_poison_is_given_up_after_three_attempts(site: Project, word: str) -> None:
    path = site.directory / "dead.jsonl"
    with site.running(THUMBNAILS + REDELIVER + 'dead_letters = "dead.jsonl"\n') as run:
        site.send("thumbnails", {"number": 1, word: True}, {"number": 2})
        run.wait_for(lambda: site.journal() == [2])
        assert site.journal("begin") == [1, 1, 1, 2]
        (letter,) = map(json.loads, path.read_text().splitlines())
        assert letter["message"] == {"type": "work", "number": 1, word: True}
        assert (letter["pool"], letter["channel"]) == ("thumbnails", "thumbnails")
        assert letter["attempts"] == 3
        died = "the process that handled it died"
        assert letter["error"] == ("ArithmeticError: cannot do 1" if word == "fail" else died)
        assert letter["time"].endswith("Z")
        assert path.stat().st_mode & 0o777 == 0o600
        run.wait_for_output("given up after 3 attempts")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("", ""),
        ('dead_letters = "/dev/full"\n', "No space left on device"),
        ('dead_letters = "dangling"\n', "No such file or directory"),
    ],
)
@pytest.mark.thorough
def test_the_log_has_what_no_file_takes(site: Project, key: str, words: str) -> None:
    (site.directory / "dangling").symlink_to("no/such/file")
    with site.running(THUMBNAILS + REDELIVER + "max_deliveries = 1\n" + key) as run:
        site.send("thumbnails", {"number": 7, "fail": True, "words": "so long"}, {"number": 2})
        run.wait_for(lambda: site.journal() == [2])
        assert site.journal("begin") == [7, 2]
        run.wait_for_output('"words": "so long"')
        run.wait_for_output(words)


# The layer goes away


@pytest.mark.thorough
def test_a_hub_that_is_killed_and_comes_back(site: Project, hub: hubs.Hub) -> None:
    with site.running(BOTH + "concurrency = 2\n") as run:
        site.send("mail", {"number": 1, "wait_for": "go"})
        run.wait_for(lambda: site.journal("begin") == [1])
        hub.kill()
        hub.start()
        (site.directory / "go").touch()
        for channel in ("thumbnails", "mail"):
            site.send(channel, *numbers(5))
        run.wait_for(lambda: len(site.journal()) == 11)
        assert run.slots()["x.0"]["restarts"] == {}
        assert run.stop() == 0


@pytest.mark.thorough
def test_redis_that_is_killed_and_comes_back(
    redis_site: Project, redis_server: tuple[redis.Redis, str]
) -> None:
    server, _ = redis_server
    with redis_site.running(BOTH + "concurrency = 2\n") as run:
        redis_site.send("mail", {"number": 1, "wait_for": "go"})
        run.wait_for(lambda: redis_site.journal("begin") == [1])
        server.kill()
        run.wait_for_output("channel thumbnails: receive failed, retrying: ")
        run.wait_for_output("channel mail: receive failed, retrying: ")
        os.unlink(server.unix)
        server.start()
        (redis_site.directory / "go").touch()
        for channel in ("thumbnails", "mail"):
            redis_site.send(channel, *numbers(5))
        run.wait_for(lambda: len(redis_site.journal()) == 11)
        run.wait_for_output("receives again")
        assert run.slots()["x.0"]["restarts"] == {}
        assert run.output().count("thumbnails: receive failed") == 1
        assert run.stop() == 0
