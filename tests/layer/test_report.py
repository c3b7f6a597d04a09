"""What the hub tells the supervisor, and what it takes from it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chansup.layer import ChannelFull, LocalChannelLayer
from chansup.layer.frames import MAX_OBSERVED
from chansup.layer.hub import listening
from chansup.layer.hub.limits import Memory
from chansup.layer.hub.observation import Reporter, observe
from chansup.layer.hub.store import Store
from chansup.layer.policies import Capacities, Policy, rules
from chansup.protocol import bulletin, hub_report
from chansup.protocol.bulletin import Bulletin
from chansup.protocol.hub_report import HubReport, Queue
from tests.layer.hubs import Hub

PATIENCE = 30


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 60))


class Supervised:
    """Hubs as the supervisor starts them: with its listening socket, a bulletin, notify."""

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(directory, "hub.sock")
        self.listener = listening.listen(self.path)
        self.notify = os.path.join(directory, "notify.sock")
        self.told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.told.bind(self.notify)
        self.told.settimeout(PATIENCE)
        self.log = Path(directory, "log")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.bulletins: list[Bulletin] = []

    def start(self, *options: str) -> "subprocess.Popen[bytes]":
        report = bulletin.create()
        descriptor = self.listener.fileno()
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "chansup.layer.hub", "--socket", self.path),
                    *("--descriptor", str(descriptor), "--report", str(report), *options),
                ],
                pass_fds=[descriptor, report],
                env={**os.environ, "NOTIFY_SOCKET": self.notify},
                stderr=log,
            )
        self.processes.append(process)
        self.bulletins.append(Bulletin(report))
        os.close(report)
        return process

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.told.recv(4096).decode().splitlines():
            assert time.monotonic() < deadline, self.log.read_text()

    def report(self, place: int = -1) -> HubReport:
        document = self.bulletins[place].read()
        return hub_report.decode(document) if document is not None else HubReport()

    async def until(self, condition: Callable[[HubReport], object], place: int = -1) -> HubReport:
        deadline = time.monotonic() + PATIENCE
        while not condition(report := self.report(place)):
            assert time.monotonic() < deadline, report
            await asyncio.sleep(0.02)
        return report


@pytest.fixture
def supervised() -> Iterator[Supervised]:
    with ExitStack() as stack:
        found = Supervised(stack.enter_context(tempfile.TemporaryDirectory(prefix="hub-")))
        try:
            yield found
        finally:
            for process in found.processes:
                process.kill()
                process.wait()
            found.listener.close()
            found.told.close()


def test_depth_and_age_of_what_waits(hub: Hub) -> None:
    async def tried() -> None:
        layer = LocalChannelLayer(hub.path, expiry=3600)
        assert await layer.observe([]) == {}
        assert await layer.observe(["mail"]) == {"mail": Queue(channels=1)}
        began = time.monotonic()
        for _ in range(3):
            await layer.send("mail", {})
        await asyncio.sleep(0.1)
        held = await layer.take("mail", until_done=True)
        found = await layer.observe(["mail", "none", "mail"])
        assert list(found) == ["mail", "none"]
        assert found["mail"].messages == 2
        # In whole milliseconds, so it may be half of one too much.
        assert 0.1 <= found["mail"].oldest <= time.monotonic() - began + 0.001
        held.give_back()
        assert (await layer.observe(["mail"]))["mail"].messages == 3
        names = [f"channel.{number}" for number in range(MAX_OBSERVED + 500)]
        assert list(await layer.observe(names)) == names
        with pytest.raises(TypeError, match="not valid"):
            await layer.observe(["a b"])
        short = LocalChannelLayer(hub.path, expiry=0.05)
        await short.send("short", {})
        await asyncio.sleep(0.1)
        assert (await short.observe(["short"]))["short"].messages == 0
        await short.close()
        await layer.close()

    run(tried())


@pytest.mark.thorough
def test_the_bulletin_and_what_goes_on_over_replacements(supervised: Supervised) -> None:
    async def tried() -> None:
        old = supervised.start()
        supervised.wait_for("READY=1")
        assert supervised.report().memory_limit == 256 * 2**20
        layer = LocalChannelLayer(supervised.path, capacity=3, channel_capacity={"bulk*": 1})
        await layer.observe(["work", "idle"])
        name = await layer.new_channel()
        await layer.group_add("all", name)
        await layer.group_send("all", {})
        await layer.send("bulk", {})
        with pytest.raises(ChannelFull):
            await layer.send("bulk", {})
        for _ in range(3):
            await layer.send("work", {})
        (await layer.take("work", until_done=True)).give_back(failed=True)
        held = await layer.take("work", until_done=True)

        def has_all(report: HubReport) -> bool:
            return report.messages_redelivered == 1 and report.observed["work"].messages == 2

        report = await supervised.until(has_all)
        assert report.messages_sent == 4
        assert report.group_messages_sent == 1
        assert report.messages_delivered == 2
        assert report.dropped == {"full": {"bulk*": 1}}
        assert report.pending["bulk*"].messages == 1
        assert report.pending["*"].messages == 3
        assert report.observed["idle"] == Queue(channels=1)
        assert report.connections == 1
        assert (report.groups, report.memberships) == (1, 1)
        assert 0 < report.memory < report.memory_limit
        supervised.start("--takeover")
        assert await asyncio.to_thread(old.wait, PATIENCE) == 0
        after = await supervised.until(has_all)
        assert after.epoch == report.epoch
        assert after.messages_sent == 4
        assert after.dropped == report.dropped
        assert after.pending["bulk*"].messages == 1
        assert list(after.observed) == ["work", "idle"]
        held.done()
        await layer.receive("work")
        await layer.receive("work")
        await supervised.until(lambda report: not report.observed["work"].messages)
        supervised.processes[-1].kill()
        assert supervised.report().messages_sent == 4  # what was told last can be read yet
        supervised.processes[-1].wait()
        supervised.start()
        await layer.statistics()
        await layer.send("work", {})
        third = await supervised.until(lambda report: report.messages_sent == 1)
        assert third.epoch != report.epoch
        await layer.close()
        supervised.processes[-1].send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(supervised.processes[-1].wait, PATIENCE) == 0
        assert os.path.exists(supervised.path), "the socket is the supervisor's"

    run(tried())


@pytest.mark.thorough
def test_the_hub_tells_that_it_is_alive(supervised: Supervised) -> None:
    supervised.start()
    supervised.wait_for("READY=1")
    beats = supervised.bulletins[-1].beats()
    assert beats
    deadline = time.monotonic() + PATIENCE
    while supervised.bulletins[-1].beats() == beats:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_service_manager_that_waits_for_signs_of_life_gets_them(
    supervised: Supervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    supervised.start()
    supervised.wait_for("READY=1")
    supervised.wait_for("WATCHDOG=1")


@pytest.mark.thorough
def test_without_a_hub_to_take_over_from_it_begins_empty_and_says_so(
    supervised: Supervised,
) -> None:
    """The listening socket takes connections though nobody answers."""
    first = supervised.start()
    supervised.wait_for("READY=1")
    first.kill()
    first.wait()
    supervised.start("--takeover")
    supervised.wait_for("READY=1")
    assert "does not answer" in supervised.log.read_text()

    async def tried() -> None:
        layer = LocalChannelLayer(supervised.path)
        await layer.send("alpha", {"a": 1})
        assert await layer.receive("alpha") == {"a": 1}
        await layer.close()

    run(tried())
    assert supervised.processes[-1].poll() is None


@pytest.mark.parametrize("option", ["--descriptor", "--report"])
def test_descriptors_that_were_not_inherited(option: str, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        found = subprocess.run(
            [
                *(sys.executable, "-m", "chansup.layer.hub", "--socket", str(tmp_path / "s")),
                *(option, str(file.fileno())),
            ],
            pass_fds=[file.fileno()],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert found.returncode == 1
    assert f"{option} " in found.stderr
    assert "Traceback" not in found.stderr


def test_the_report_stays_within_the_bulletin() -> None:
    descriptor = bulletin.create()
    written = Bulletin(descriptor)
    store = Store(Memory(2**30))
    patterns = {f"{number:04}{'x' * 80}*": 3 for number in range(1000)}
    capacities = Capacities(Policy(60, 86400, 100, rules(patterns)))
    for number in range(1000):
        name = f"{number:04}{'x' * 80}a".encode()
        for _ in range(number % 7):
            store.send(name, b"", capacities)
    observe(store, (b"%04d%s" % (number, b"o" * 90) for number in range(2000)))
    Reporter(store, written, "epoch").write(1)
    document = written.read()
    assert document is not None
    report = hub_report.decode(document)
    assert len(report.pending) == 200
    assert min(queue.messages for queue in report.pending.values()) == 3
    assert sum(map(len, report.dropped.values())) == 200
    assert len(report.observed) == MAX_OBSERVED
    assert f"1999{'o' * 90}" in report.observed
    written.close()
    os.close(descriptor)
