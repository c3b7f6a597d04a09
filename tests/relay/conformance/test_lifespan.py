"""The lifespan of an app worker is that of the app in a server's own process."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .launcher import Launcher
from .processes import app_worker, direct


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return tmp_path / "records"


def environment(records: Path, lifespan: str = "") -> dict[str, str]:
    return {"RECORDS": str(records), "LIFESPAN": lifespan}


def end(launcher: Launcher) -> int:
    launcher.terminate()
    return launcher.wait_exit()


def test_it_starts_and_ends(records: Path) -> None:
    with worker(records) as launcher:
        launcher.wait_ready()
        assert end(launcher) == 0, launcher.output()
    assert Path(f"{records}.shutdown").read_text() == "shutdown\n"


def test_a_failed_startup_is_a_failed_boot(records: Path) -> None:
    with worker(records, "fails") as launcher:
        assert launcher.wait_exit() == 1
    assert "the database is away" in launcher.output()
    assert "Traceback" not in launcher.output()


def test_an_app_without_lifespan_is_served(records: Path) -> None:
    with worker(records, "raises") as launcher:
        launcher.wait_ready()
        assert end(launcher) == 0, launcher.output()
    assert "no lifespan here" not in launcher.output()


def test_a_server_of_its_own_does_the_same(records: Path) -> None:
    with direct("uvicorn", {}, environment=environment(records, "raises")) as side:
        assert end(side.launchers[0]) == 0
    with (
        pytest.raises(AssertionError, match="the database is away"),
        direct("uvicorn", {}, environment=environment(records, "fails")),
    ):
        pass


@contextlib.contextmanager
def worker(records: Path, lifespan: str = "") -> Iterator[Launcher]:
    # Not pytest's tmp_path: the path of a Unix socket holds 108 bytes.
    with (
        tempfile.TemporaryDirectory(prefix="chansup-") as directory,
        app_worker(
            Path(directory), "recorder:application", environment(records, lifespan)
        ) as launcher,
    ):
        yield launcher
