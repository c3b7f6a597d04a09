"""chansup is upgraded on disk while it runs: nothing fails, and no command says more than is true."""

import re
import shutil
import signal
from pathlib import Path

import pytest

import chansup
from tests import fetch
from tests.load import FreshConnections, KeepAlive, in_background
from tests.running import Running, running
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

    def speaks(self, oldest: int, newest: int) -> None:
        """Install a version that speaks other versions of the relay's protocol."""
        frames = self.directory / "chansup" / "relay" / "frames.py"
        text = frames.read_text()
        text = re.sub(r"^PROTOCOL = \d+", f"PROTOCOL = {newest}", text, flags=re.M)
        text = re.sub(r"^OLDEST_PROTOCOL = \d+", f"OLDEST_PROTOCOL = {oldest}", text, flags=re.M)
        replacement = frames.with_suffix(".new")
        replacement.write_text(text)
        replacement.rename(frames)


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
