"""What is told of channels and their workers, beside what was really sent and done."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from chansup.cli.client import Client, find
from chansup.cli.latency.comparison import ChannelLatency, compare
from chansup.protocol.status import Consumption
from tests import fetch
from tests.running import Running
from tests.servers import redis
from tests.worker import project
from tests.worker.project import Project

pytestmark = pytest.mark.slow

ADMIN = '[admin]\nbind = "127.0.0.1:0"\n'
THUMBNAILS = '[workers.thumbnails]\nchannels = ["thumbnails"]\n'
ONE = {"pool": "thumbnails", "channel": "thumbnails"}


class Site:
    """The project while it runs, and what is said about it."""

    def __init__(self, project: Project, run: Running) -> None:
        self.project = project
        self.run = run
        self.client: Client = find(run.config, os.environ)
        self.admin = f"http://{run.status()['admin']}"
        self.gate = project.directory / "gate"

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        page = fetch.get(f"{self.admin}/metrics").text
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics()[f"chansup_{name}", frozenset(labels.items())]

    def tells(self, value: float, name: str, **labels: str) -> bool:
        """Wait until a metric has a value: a page is given out again for a second."""
        self.run.wait_for(lambda: self.metric(name, **labels) == value, f"{name} {value}")
        return True

    def counts(self, value: float, result: str) -> bool:
        return self.tells(value, "channel_messages_total", **ONE, result=result)

    def look(self) -> Consumption:
        return self.client.consumption()

    def course(self, before: Consumption) -> ChannelLatency:
        rows = compare(before, self.look(), "thumbnails").channels
        assert len(rows) == 1
        return rows[0]

    def wait_until(self, **expected: Any) -> None:
        """Wait until the counts of the channel are so."""

        def are_so() -> bool:
            counts = self.look().pools[0].channels["thumbnails"]
            found = {name: getattr(counts, name) for name in expected}
            assert found == expected
            return True

        self.run.wait_for(are_so, f"{expected}")

    def block(self, queued: int) -> None:
        """Let a worker take a message that it is not done with, and let others wait behind it."""
        self.project.send("thumbnails", {"number": -1, "wait_for": str(self.gate)})
        self.run.wait_for(lambda: self.project.journal("begin")[-1:] == [-1])
        self.project.send("thumbnails", *({"number": number} for number in range(queued)))


@contextmanager
def running(project: Project, tables: str) -> Iterator[Site]:
    with project.running(tables + ADMIN) as run:
        yield Site(project, run)


@pytest.fixture
def local(tmp_path: Path) -> Project:
    return project.write(tmp_path, {"BACKEND": "chansup.layer.ChannelLayer"})


@pytest.mark.thorough
def test_what_is_told_is_what_was_done(local: Project) -> None:
    with running(local, THUMBNAILS) as site:
        assert site.counts(0, "handled")
        assert site.tells(0, "channel_wait_seconds_count", **ONE)
        beginning = site.look()
        local.send("thumbnails", *({"number": n, "seconds": 0.05} for n in range(10)))
        local.send("thumbnails", {"number": 99, "fail": True})
        site.wait_until(handled=10, failed=1, in_flight=0, depth=0)
        assert site.counts(10, "handled")
        assert site.counts(1, "failed")
        assert site.tells(11, "channel_wait_seconds_count", **ONE)
        assert site.tells(11, "channel_handling_seconds_count", **ONE)
        assert site.metric("channel_handling_seconds_sum", **ONE) >= 0.5
        course = site.course(beginning)
        assert (course.messages, course.failed, course.capacity) == (11, 1, 1)
        assert (course.verdict, course.depth_change) == ("keeps_up", 0)
        assert course.handling is not None
        assert course.handling.p50 >= 0.045

        beginning = site.look()
        site.block(queued=5)
        site.wait_until(in_flight=1, depth=5)
        assert site.tells(5, "channel_depth", **ONE)
        assert site.tells(5, "layer_queue_messages", pattern="*")
        site.run.wait_for(lambda: site.metric("channel_oldest_seconds", **ONE) > 0.3)
        assert site.tells(17, "layer_messages_sent_total")
        course = site.course(beginning)
        assert (course.messages, course.in_flight, course.depth) == (0, 1, 5)
        assert course.words.startswith("falls behind: ")
        measured = site.run.command("latency", "--seconds", "1", "--json")
        assert measured.returncode == 1, measured.stderr
        (row,) = json.loads(measured.stdout)["channels"]
        assert (row["verdict"], row["in_flight"], row["depth"]) == ("falls_behind", 1, 5)
        assert "thumbnails: 5 waiting, the oldest for" in site.run.command("status").stdout

        beginning = site.look()
        site.gate.touch()
        site.wait_until(handled=16, in_flight=0, depth=0)
        course = site.course(beginning)
        assert (course.messages, course.depth_change) == (6, -5)
        assert course.wait is not None
        assert course.wait.max > 0.3
        assert course.words.startswith("keeps up: works off what waits")
        (status,) = [pool for pool in site.run.status()["pools"] if pool["name"] == "thumbnails"]
        assert status["channels"][0]["handled"] == 17
        assert site.tells(17, "layer_messages_delivered_total")


@pytest.mark.thorough
def test_nobody_consumes_it(local: Project) -> None:
    with running(local, THUMBNAILS) as site:
        assert site.run.command("scale", "thumbnails=0").returncode == 0
        local.send("thumbnails", *({"number": number} for number in range(3)))
        site.wait_until(depth=3)  # the hub keeps looking
        assert site.tells(3, "channel_depth", **ONE)
        measured = site.run.command("latency", "--seconds", "1")
        assert measured.returncode == 1
        assert "nobody consumes it: 0 of 0 processes of thumbnails are ready; 3 wait" in (
            measured.stdout
        )
        assert site.run.command("latency", "nope").returncode == 2


@pytest.mark.thorough
def test_no_counter_falls_when_processes_are_killed_or_replaced(local: Project) -> None:
    with running(local, THUMBNAILS) as site:
        local.send("thumbnails", *({"number": number} for number in range(4)))
        site.wait_until(handled=4, in_flight=0)
        assert site.tells(4, "layer_messages_sent_total")
        # Replaced as planned: the successors keep counting.
        assert site.run.command("restart", "hub").returncode == 0
        assert site.run.command("restart", "thumbnails").returncode == 0
        site.wait_until(handled=4, in_flight=0)
        assert site.tells(4, "layer_messages_sent_total")
        local.send("thumbnails", {"number": 4})
        site.wait_until(handled=5)
        assert site.tells(5, "layer_messages_sent_total")
        # Killed: they begin anew, and what was before is added.
        site.block(queued=0)
        site.wait_until(in_flight=1)
        assert site.tells(6, "layer_messages_sent_total")
        (worker,), (hub,) = site.run.pids("thumbnails"), site.run.pids("hub")
        os.kill(worker, signal.SIGKILL)
        site.run.wait_for_successor("thumbnails.0", worker)
        site.wait_until(handled=5, lost=1, in_flight=0)
        assert site.counts(1, "lost")
        os.kill(hub, signal.SIGKILL)
        site.run.wait_for_successor("hub.0", hub)
        assert site.tells(6, "layer_messages_sent_total")
        site.run.wait_until_ready()
        local.send("thumbnails", {"number": 5})
        site.wait_until(handled=6)
        assert site.tells(7, "layer_messages_sent_total")


@pytest.mark.thorough
def test_the_same_is_told_of_redis(tmp_path: Path) -> None:
    with redis.on_socket() as (_, url):
        elsewhere = project.on_redis(tmp_path, [url])
        with running(elsewhere, THUMBNAILS) as site:
            site.block(queued=5)
            site.wait_until(in_flight=1, depth=5)
            assert site.tells(5, "channel_depth", **ONE)
            site.run.wait_for(lambda: site.metric("channel_oldest_seconds", **ONE) > 0.3)
            beginning = site.look()
            site.gate.touch()
            site.wait_until(handled=6, in_flight=0, depth=0)
            course = site.course(beginning)
            assert (course.messages, course.depth_change) == (6, -5)
            assert course.wait is not None
            assert course.wait.max > 0.3
