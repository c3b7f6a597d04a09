"""The CLI as real processes, beside a supervisor without processes behind a real socket."""

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Site:
    """A directory with a config file, and perhaps a fake supervisor."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "chansup.toml"
        self.config.write_text('[supervisor]\nruntime_directory = "run"\n')
        (directory / "run").mkdir(mode=0o700)
        self.socket = directory / "run" / "control.sock"

    @contextlib.contextmanager
    def supervisor(self, *scenario: str) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "tests.control.fake", str(self.socket), *scenario]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.terminate()
            process.wait(10)
            process.stdout.close()
            self.socket.unlink(missing_ok=True)

    def chansup(
        self, *arguments: str, environ: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments), cwd=cwd or self.directory, env=environment(environ),
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip

    def started(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command(*arguments), cwd=self.directory, env=environment(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def on_terminal(self, *arguments: str, columns: int = 100) -> tuple[int, str]:
        """Run a command on a terminal of its own; return its exit code and what that showed."""
        leader, follower = pty.openpty()
        environ = {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "40"}
        process = subprocess.Popen(
            command(*arguments), cwd=self.directory, env=environment(environ),
            stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
        )  # fmt: skip
        os.close(follower)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            while select.select([leader], [], [], 20)[0] and (piece := os.read(leader, 65536)):
                shown += piece
        os.close(leader)
        return process.wait(10), shown.decode()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "chansup", *arguments]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    dropped = ("CHANSUP_CONFIG", "COLUMNS", "NO_COLOR", "FORCE_COLOR")
    own = {name: value for name, value in os.environ.items() if name not in dropped}
    return own | {"PYTHONPATH": str(ROOT)} | dict(more or {})


def interrupt(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)
