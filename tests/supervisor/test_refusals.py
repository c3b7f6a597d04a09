"""What is said when the kernel refuses to start a process: the call, what it wanted, the remedy."""

import os
import resource
import select
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chansup.config import accounts
from chansup.supervisor.errors import SpawnError
from chansup.supervisor.logs.repetition import AGAIN_AFTER, Repetition
from chansup.supervisor.plan.command import Command
from chansup.supervisor.process import spawn as spawning
from chansup.supervisor.process.spawn import spawn
from tests.kit import everybody
from tests.running import wait_for

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="only root can become somebody else")


def command(*argv: str, **more: object) -> Command:
    settings: dict[str, object] = {
        "program": argv[0],
        "environment": {"PATH": "/usr/bin:/bin"},
        "directory": "/",
        **more,
    }
    return Command(argv, **settings)  # type: ignore[arg-type]


def printed(wanted: Command) -> str:
    """Return what a child prints until it ends."""
    child = spawn(wanted, [], [])
    output = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not select.select([child.output], [], [], 1)[0]:
            continue
        chunk = os.read(child.output, 65536)
        if not chunk:
            break
        output += chunk
    child.popen.wait(30)
    os.close(child.output)
    os.close(child.pidfd)
    return output.decode()


def complaint(wanted: Command) -> str:
    """Return why it cannot be started, whoever finds out."""
    try:
        return printed(wanted)
    except SpawnError as error:
        return str(error)


def script(path: Path, text: str, mode: int = 0o755) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


REFUSED: dict[str, tuple[Callable[[Path], Command], tuple[str, ...]]] = {
    "no directory": (
        lambda path: command("true", directory=f"{path}/gone"),
        ("cannot go into its directory", "/gone", "does not exist"),
    ),
    "a file as directory": (
        lambda path: command("true", directory=script(path / "file", "")),
        ("cannot go into its directory", "not a directory"),
    ),
    "no program": (
        lambda path: command(f"{path}/release-1/bin/python"),
        ("release-1/bin/python does not exist", "there is no release-1 in", "install"),
    ),
    "a dangling link": (
        lambda path: (
            os.symlink("/nowhere/python3", path / "python"),  # type: ignore[func-returns-value]
            command(f"{path}/python"),
        )[1],
        ("leads to /nowhere/python3, which does not exist",),
    ),
    "no interpreter": (
        lambda path: command(script(path / "tool", "#!/gone/venv/bin/python\n")),
        ("its interpreter /gone/venv/bin/python does not exist", "/tool"),
    ),
    "a script of Windows": (
        lambda path: command(script(path / "tool", "#!/bin/sh\r\necho\r\n")),
        ("carriage return", "/tool"),
    ),
    "no format": (
        lambda path: command(script(path / "tool", "echo hello\n")),
        ("not a program of this machine", "#!"),
    ),
    "a format that nobody knows": (
        lambda path: command(script(path / "tool", "\x7fELF and no more")),
        ("not a program of this machine", "/tool"),
    ),
    "no interpreter for env": (
        lambda path: command(script(path / "tool", "#!/usr/bin/env -S python1.4 -u\n")),
        ("its interpreter python1.4 is not on PATH", "/tool"),
    ),
    "not executable": (
        lambda path: command(script(path / "tool", "#!/bin/sh\n", 0o644)),
        ("/tool is not executable", "chmod +x"),
    ),
    "a limit too long an argument": (
        lambda path: command("true", environment={"PATH": "/usr/bin:/bin", "X": "x" * 200_000}),
        ("arguments and environment are larger",),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_names_itself(name: str, tmp_path: Path) -> None:
    make, words = REFUSED[name]
    said = complaint(make(tmp_path))
    for word in words:
        assert word in said, said
    assert "Traceback" not in said


@as_root
def test_a_closed_directory_is_named(tmp_path: Path) -> None:
    with everybody.directory() as open_to_all:
        (open_to_all / "inner").mkdir(mode=0o700)
        tool = script(open_to_all / "inner" / "tool", "#!/bin/sh\n")
        said = complaint(command(tool, user="nobody"))
        assert f"user nobody may not go into {open_to_all}/inner" in said


@as_root
def test_too_many_processes_of_a_user_are_said(tmp_path: Path) -> None:
    # An exec is refused to a user who had too many processes when this one joined them.
    other = spawn(command("sleep", "60", user="nobody"), [], [])
    try:
        running = Path(f"/proc/{other.pid}/cmdline")
        wait_for(lambda: running.read_bytes().startswith(b"sleep"), "a process of that user")
        said = complaint(command("true", user="nobody", limits={"nproc": 0}))
    finally:
        other.popen.kill()
        other.popen.wait(30)
        os.close(other.output)
        os.close(other.pidfd)
    assert "too many processes" in said and "RLIMIT_NPROC is 0" in said


def test_a_limit_above_the_hard_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most == resource.RLIM_INFINITY or ROOT:
        pytest.skip("nothing is above the limit")
    said = complaint(command("true", limits={"nofile": most + 1}))
    assert "cannot set the limit nofile" in said


def test_the_python_that_starts_children_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawning, "INTERPRETER", "/gone/bin/python3")
    said = complaint(command("true"))
    assert "the Python that runs chansup is gone" in said and "/gone/bin/python3" in said


def test_children_start_without_the_virtual_environment() -> None:
    assert not os.path.islink(spawning.INTERPRETER)
    assert printed(command("echo", "hello")) == "hello\n"


@as_root
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("user", [None, "nobody", "12345"])
def test_a_program_of_another_user_opens_its_own_output(user: str | None, stream: str) -> None:
    group = "12345" if user == "12345" else None
    line = f"echo hello > /dev/{stream}"
    assert printed(command("sh", "-c", line, user=user, group=group)) == "hello\n"


@as_root
def test_a_program_that_leaves_root_by_itself_opens_its_own_output() -> None:
    line = "setpriv --reuid=65534 --clear-groups sh -c 'echo hello >> /dev/stdout'"
    assert printed(command("sh", "-c", line)) == "hello\n"


def test_the_same_complaint_is_made_once_in_a_while() -> None:
    now = 0.0
    repetition = Repetition(lambda: now)
    assert repetition.filter("a") == "a"
    assert [repetition.filter("a") for _ in range(5)] == [None] * 5
    now = AGAIN_AFTER
    assert repetition.filter("a") == "a (still so, 6 more attempts)"
    assert repetition.filter("b") == "b"
    repetition.forget()
    assert repetition.filter("b") == "b"


@as_root
def test_a_process_of_another_user_inherits_nothing_of_a_session() -> None:
    inherited = {"HOME": "/root", "USER": "root", "XDG_RUNTIME_DIR": "/run/user/0", "LANG": "C"}
    of_nobody = accounts.environment(inherited, "nobody", None)
    assert of_nobody["USER"] == of_nobody["LOGNAME"] == "nobody"
    assert of_nobody["LANG"] == "C" and "XDG_RUNTIME_DIR" not in of_nobody
    unlisted = accounts.environment(inherited, "12345", "12345")
    assert unlisted == {"HOME": "/", "LANG": "C"}
    assert accounts.environment(inherited, None, None) == inherited
