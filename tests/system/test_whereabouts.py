"""Commands find the supervisor that runs, whatever was edited or switched since it started."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chansup.errors import ExitCode
from chansup.layer import discovery
from tests import fetch
from tests.kit import everybody
from tests.running import Running, command, running, write_app
from tests.system.conftest import DIRECT

IDLE = """
[programs.idle]
command = "sleep 10000"
ready = "after:0s"
"""
OWN_PLACE = IDLE + '[supervisor]\nruntime_directory = "run"\n[admin]\nbind = ""\n'


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    """Two releases, and a symlink to the first."""
    for number in ("1", "2"):
        (tmp_path / "releases" / number / "deep" / "er").mkdir(parents=True)
        (tmp_path / "releases" / number / "chansup.toml").write_text(OWN_PLACE)
    (tmp_path / "current").symlink_to("releases/1")
    return tmp_path / "current"


def switch(current: Path) -> None:
    (current.parent / "next").symlink_to("releases/2")
    (current.parent / "next").rename(current)


def found(run: Running, *arguments: str, **more: Any) -> None:
    done = command("status", *arguments, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"pid {run.pid}" in done.stdout


def test_a_switched_symlink_hides_nothing(releases: Path) -> None:
    with running(releases, OWN_PLACE) as run:
        run.wait_until_ready()
        switch(releases)
        config = str(releases / "chansup.toml")
        found(run, "-c", config)
        found(run, cwd=releases, env={**os.environ, "PWD": str(releases)})
        found(run, cwd=releases / "deep" / "er", env={**os.environ, "PWD": f"{releases}/deep/er"})
        again = command("run", "-c", config)
        assert again.returncode == ExitCode.ALREADY_RUNNING
        assert f"process {run.pid} " in again.stderr
        (releases / "chansup.toml").write_text(OWN_PLACE + "[channel_layer]\n")
        done = run.command("reload")
        assert done.returncode == 0, done.stdout + done.stderr
        hub = discovery.SiteHub({"CHANSUP_CONFIG": config}).find()
        assert hub == str(releases.parent / "releases" / "1" / "run" / "hub.sock")


def test_whoever_asks_by_the_path_of_a_release_hears_which_site_runs(releases: Path) -> None:
    with running(releases, OWN_PLACE) as run:
        run.wait_until_ready()
        done = command("status", "-c", str(releases.parent / "releases" / "2" / "chansup.toml"))
        assert done.returncode == ExitCode.NOT_RUNNING
        assert f"Yours run for {releases}/chansup.toml" in done.stderr


@pytest.mark.parametrize(
    "edited", [IDLE, IDLE + '[supervisor]\nruntime_directory = "x"\n', "bro[", None]
)
def test_an_edited_file_hides_nothing(tmp_path: Path, edited: str | None) -> None:
    with running(tmp_path, OWN_PLACE) as run:
        run.wait_until_ready()
        if edited is None:
            run.config.unlink()
        else:
            run.config.write_text(edited)
        found(run, "-c", str(run.config))
        if edited is not None and edited.startswith(IDLE):
            assert run.command("run").returncode == ExitCode.ALREADY_RUNNING


def test_several_sites_of_one_file_are_told_apart_by_the_environment(tmp_path: Path) -> None:
    config = IDLE + '[supervisor]\nruntime_directory = "run-${SITE}"\n'
    with running(tmp_path, config, {"SITE": "a"}) as first:
        first.wait_for_output("idle.0")
        environ = {**os.environ, "SITE": "b"}
        with (tmp_path / "second.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "chansup", "run", "-c", str(first.config)],
                env=environ, stdout=log, stderr=log,
            )  # fmt: skip
        second = Running(process, first.config, tmp_path / "second.log")
        try:
            second.wait_for_output("idle.0")
            found(first, "-c", str(first.config), env={**os.environ, "SITE": "a"})
            found(second, "-c", str(first.config), env=environ)
        finally:
            process.terminate()
            assert process.wait() == 0


# Of other users


OTHER = everybody.reason()
BECOME = "os.setgroups([]); os.setgid(65534); os.setuid(65534); "


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    with everybody.directory() as directory:
        yield directory


def as_nobody() -> tuple[str, ...]:
    flag, code = everybody.program()
    return flag, code.replace("import os, sys; ", "import os, sys; " + BECOME)


@pytest.mark.skipif(OTHER is not None, reason=str(OTHER))
def test_root_finds_the_site_of_another_user_and_hears_whose_it_is(open_to_all: Path) -> None:
    environ = everybody.environment(open_to_all)
    path = open_to_all / "chansup.toml"
    path.write_text(IDLE + '[admin]\nbind = ""\n')
    with (open_to_all / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *as_nobody(), "run", "-c", str(path)],
            env={**os.environ, **environ}, stdout=log, stderr=log,
        )  # fmt: skip
    run = Running(process, path, open_to_all / "log")
    try:
        run.wait_until_ready()
        done = run.command("status")
        assert done.returncode == 0, done.stderr
        assert "runs as user nobody" in done.stderr
        path.write_text(IDLE + '[supervisor]\nruntime_directory = "x"\n')
        assert run.command("status").returncode == 0  # by the signpost
        stopped = run.command("stop")
        assert stopped.returncode == 0, stopped.stderr
        assert run.wait() == 0
        done = run.command("status")
        assert done.returncode == ExitCode.NOT_RUNNING
        assert "chansup -c" in done.stderr
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(OTHER is not None, reason=str(OTHER))
def test_another_user_hears_that_the_site_is_root_s(open_to_all: Path) -> None:
    environ = {**os.environ, **everybody.environment(open_to_all)}
    with running(open_to_all, IDLE + "[supervisor]\n") as run:
        run.wait_until_ready()
        done = subprocess.run(
            [sys.executable, *as_nobody(), "status", "-c", str(run.config)],
            env=environ, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == ExitCode.FAILED
        assert "belongs to user root" in done.stderr
        assert "chansup -c" not in done.stderr


def test_a_path_that_is_not_utf8(tmp_path: Path) -> None:
    """The same for both modes: what runs in a directory is told so by documents."""
    site = tmp_path / os.fsdecode(b"caf\xe9")
    write_app(site)
    config = DIRECT + '[workers.web]\nserves = ["http", "websocket"]\n'
    config += '[supervisor]\nruntime_directory = ".chansup"\n'
    with running(site, config) as run:
        run.wait_until_ready()
        assert fetch.get(run.url).status_code == 200
        for command in ("status", "check", "reload", "restart"):
            done = run.command(command, "--json")
            assert done.returncode == 0, done.stdout + done.stderr
            documents = [json.loads(line) for line in done.stdout.splitlines()]
            if command == "status":
                assert documents[0]["config"] == str(tmp_path / "caf\\xe9" / run.config.name)
        assert "defect" not in run.output()
