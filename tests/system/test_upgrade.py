"""chansup is upgraded on disk while it runs: nothing fails, and no command says more than is true."""

import contextlib
import re
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import chansup
from tests import fetch
from tests.layer.raw import Raw
from tests.load import FreshConnections, KeepAlive, in_background
from tests.running import PATIENCE, Running, running
from tests.system.conftest import DIRECT

RELAY = (
    DIRECT
    + """
[workers.web]
serves = ["http", "websocket"]
processes = 2
"""
)


SAFE_PATH = ("-P", "-m", "chansup")  # not the working tree that the tests run in


class Installation:
    """A copy of chansup that the site runs by, and that can be changed while it runs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        package = Path(chansup.__file__).parent
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, directory / "chansup", ignore=ignored)

    @property
    def environ(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.directory)}

    def speaks(self, oldest: int, newest: int, contract: str = "RELAY") -> None:
        """Install a version that knows other versions of a contract."""
        path = self.directory / "chansup" / "protocol" / "versions.py"
        text, count = re.subn(
            rf"^({contract} = Contract\(.*), \d+, \d+\)",
            rf"\1, {newest}, {oldest})",
            path.read_text(),
            flags=re.M,
        )
        assert count == 1
        replacement = path.with_suffix(".new")
        replacement.write_text(text)
        replacement.rename(path)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path / "installed")


def text_of(run: Running, *arguments: str, code: int) -> str:
    done = run.command(*arguments, timeout=60)
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    return said


def kill(run: Running, slots: list[str]) -> None:
    for name in slots:
        run.send_to(run.slots()[name]["pid"], signal.SIGKILL)


@pytest.mark.thorough
def test_a_version_that_still_speaks_the_one_before_takes_over_slot_by_slot(
    site: Path, installation: Installation
) -> None:
    with running(site, RELAY, installation.environ, program=SAFE_PATH) as run:
        run.wait_until_ready()
        interface = run.pids()
        installation.speaks(oldest=3, newest=1000)
        load = FreshConnections(run.address, 30)
        with in_background(load):
            said = text_of(run, "restart", "web", code=0)
            assert "chansup on disk is other code now" in said
            text_of(run, "restart", "interface.0", code=0)
            text_of(run, "reload", code=0)
        assert not load.result.failures, load.result.summary()
        assert not set(interface) & set(run.pids())
        assert "cannot speak" not in run.output()


@pytest.mark.thorough
def test_without_a_common_version_only_a_reload_replaces_and_nothing_fails(
    site: Path, installation: Installation
) -> None:
    with running(site, RELAY, installation.environ, program=SAFE_PATH) as run:
        run.wait_until_ready()
        before = [*run.pids(), *run.pids("web")]
        installation.speaks(oldest=1000, newest=1000)
        loads = FreshConnections(run.address, 30), KeepAlive(run.address, 4)
        with in_background(*loads):
            for target in ("web", "web.1", "interface"):
                said = text_of(run, "restart", target, code=1)
                assert "cannot speak to" in said
                assert "`chansup reload` replaces workers and interface together" in said
            assert [*run.pids(), *run.pids("web")] == before
            said = text_of(run, "reload", code=0)
            assert "no version of the relay in common" in said
        for load in loads:
            assert not load.result.failures, load.result.summary()
        assert not set(before) & {*run.pids(), *run.pids("web")}
        assert run.status()["ready"]


def test_new_code_that_does_not_boot_leaves_the_old_generation_serving(
    site: Path, installation: Installation
) -> None:
    with running(site, RELAY, installation.environ, program=SAFE_PATH) as run:
        run.wait_until_ready()
        before = [*run.pids(), *run.pids("web")]
        installation.speaks(oldest=1000, newest=1000)
        broken = installation.directory / "chansup" / "relay" / "interface" / "application.py"
        broken.write_text("broken = 1 / 0  # whatever size the one before had\n")
        load = FreshConnections(run.address, 30)
        with in_background(load):
            assert "ZeroDivisionError" in text_of(run, "reload", code=1)
        assert not load.result.failures, load.result.summary()
        assert [*run.pids(), *run.pids("web")] == before


@pytest.mark.thorough
def test_crashed_workers_that_nobody_can_speak_to_are_said_and_replaced_with_the_interface(
    site: Path, installation: Installation
) -> None:
    with running(site, RELAY, installation.environ, program=SAFE_PATH) as run:
        run.wait_until_ready()
        interface = run.pids()
        installation.speaks(oldest=1000, newest=1000)
        kill(run, ["web.0"])
        run.wait_for_output("interface.0 cannot speak to it")
        assert "chansup on disk is other code now" in run.output()
        assert run.slots()["web.0"]["state"] != "READY"
        assert fetch.get(run.url).status_code == 200  # by the one that is left
        assert run.pids() == interface
        kill(run, ["web.1"])
        run.wait_for_output("replacing workers and interface by the code on disk")
        run.wait_for(lambda: run.status()["ready"] and not set(run.pids()) & set(interface))
        assert fetch.get(run.url).status_code == 200


USES_HUB = (
    RELAY
    + """
[channel_layer]
"""
)


@pytest.mark.thorough
def test_what_old_supervisor_and_new_code_disagree_on_is_said_and_nothing_is_touched(
    site: Path, installation: Installation
) -> None:
    """A version of each contract that nobody knows: no wrong figures, no crash, no outage."""
    with running(site, USES_HUB, installation.environ, program=SAFE_PATH) as run:
        run.wait_until_ready()
        before = [*run.pids(), *run.pids("web"), *run.pids("hub")]
        client = Raw(str(site / ".chansup" / "hub.sock"))  # as an app that uses the layer
        load = FreshConnections(run.address, 30)
        with in_background(load):
            for contract, target in (
                ("LAUNCH", "web"),
                ("SCOREBOARD", "web"),
                ("RELAY_BOARD", "interface"),
                ("LAYER", "web"),
                ("LAYER", "hub"),
                ("BULLETIN", "hub"),
                ("TAKEOVER", "hub"),
            ):
                installation.speaks(1000, 1000, contract)
                for command in (["restart", target], ["reload"]):
                    said = text_of(run, *command, code=1)
                    assert "restart chansup, whose supervisor still runs" in said, (contract, said)
                    assert "Traceback" not in said + run.output()
                    assert [*run.pids(), *run.pids("web"), *run.pids("hub")] == before
                installation.speaks(1, 1, contract)
        assert not load.result.failures, load.result.summary()
        kill(run, ["web.0"])
        run.wait_for(lambda: run.status()["ready"] and run.pids("web")[0] not in before)
        client.close()


ECHO = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
"""


def test_websockets_of_direct_mode_are_closed_where_new_code_does_not_know_their_memory(
    site: Path, installation: Installation
) -> None:
    (site / "site_app.py").write_text(ECHO)
    with (
        running(site, DIRECT, installation.environ, program=SAFE_PATH) as run,
        contextlib.ExitStack() as stack,
    ):
        run.wait_until_ready()
        dial = partial(connect, f"ws://{run.address}/")
        clients = [stack.enter_context(dial()) for _ in range(6)]
        text_of(run, "reload", code=0)
        for client in clients:  # code of the same version: they have moved
            client.send("still there")
            assert client.recv(PATIENCE) == "still there"
        installation.speaks(1000, 1000, "CARRY")
        text_of(run, "reload", code=0)
        for client in clients:
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(PATIENCE)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        assert "the memory of WebSockets has version 1" in run.output()
        assert "Traceback" not in run.output()


def test_what_can_be_done_without_is_done_without(site: Path, installation: Installation) -> None:
    """The table of sessions is a help only, and so is what a hub that is killed leaves behind."""
    with running(site, USES_HUB, installation.environ, program=SAFE_PATH) as run:
        run.wait_until_ready()
        before = [*run.pids(), *run.pids("web"), *run.pids("hub")]
        installation.speaks(1000, 1000, "SESSIONS")
        installation.speaks(1000, 1000, "LEDGER")
        text_of(run, "reload", code=0)
        run.wait_for_output("the session table has version 1")
        assert not set(before) & {*run.pids(), *run.pids("web"), *run.pids("hub")}
        hub = run.pids("hub")
        kill(run, ["hub.0"])
        run.wait_for(lambda: run.status()["ready"] and run.pids("hub") != hub)
        assert fetch.get(run.url).status_code == 200
        assert "Traceback" not in run.output()
