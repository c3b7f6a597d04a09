"""A copy of examples/chat that `chansup run` keeps up, for as long as a test looks at it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from tests import fetch

EXAMPLE = Path(__file__).parents[2] / "examples" / "chat"
LOCAL, REDIS = "chansup.toml", "chansup.redis.toml"  # its two configs
# What would make the site another one than the example is for a newcomer.
SITE_VARIABLES = {
    "CHANSUP_CHANNEL_LAYER",
    "CHANSUP_CONFIG",
    "CHAT_DATA_DIR",
    "CHAT_HOSTS",
    "DEBUG",
    "DJANGO_SETTINGS_MODULE",
    "REDIS_PORT",
    "SECRET_KEY",
}
# The interpreter that runs the tests is the one that runs the site, whatever is first on PATH.
BIN = Path(sys.executable).parent


def copy_example(to: Path) -> Path:
    """Copy the example as it is in the repository, without what running it has left there."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc", "*.sock")
    shutil.copytree(EXAMPLE, to, ignore=ignore)
    shutil.rmtree(to / "data", ignore_errors=True)
    return to


def environment(**variables: str) -> dict[str, str]:
    """Return the environment to run the example in."""
    inherited = {name: value for name, value in os.environ.items() if name not in SITE_VARIABLES}
    path = f"{BIN}{os.pathsep}{inherited.get('PATH', os.defpath)}"
    return {**inherited, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1", **variables}


def free_port() -> int:
    """Return a port of the loopback address that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Site:
    """The running site."""

    def __init__(self, directory: Path, port: int, variables: dict[str, str]) -> None:
        self.directory = directory
        self.url = f"http://127.0.0.1:{port}"
        self.log = directory.parent / "chansup.log"
        self._environment = environment(PORT=str(port), **variables)
        with self.log.open("wb") as log:
            self.supervisor = psutil.Popen(
                [sys.executable, "-m", "chansup", "run"],
                cwd=directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def chansup(self, *arguments: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
        """Run another chansup command on the site."""
        return subprocess.run(
            [sys.executable, "-m", "chansup", *arguments],
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def wait_until_up(self, timeout: float = 60) -> None:
        """Wait until the home page answers."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                if fetch.get(f"{self.url}/", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert self.supervisor.poll() is None, f"chansup run ended:\n{self.output()}"
            assert time.monotonic() < deadline, f"the site does not answer:\n{self.output()}"
            time.sleep(0.05)

    def pids(self, pool: str) -> list[int]:
        """Return the processes that fill the slots of a pool."""
        status = self.chansup("status")
        lines = re.findall(rf"^ +{pool}\.\d+ +ready +(\d+)", status.stdout, re.MULTILINE)
        return [int(pid) for pid in lines]

    def processes(self, name: str) -> list[psutil.Process]:
        """Return the site's processes of this name."""
        return [
            process
            for process in self.supervisor.children(recursive=True)
            if process.is_running() and process.name() == name
        ]

    def output(self) -> str:
        """Return what chansup has written so far."""
        return self.log.read_text(errors="replace")

    def stop(self, timeout: float = 45) -> int:
        """Stop everything, leave nothing behind, and return the exit code of chansup."""
        family = [self.supervisor, *self.supervisor.children(recursive=True)]
        try:
            self.supervisor.send_signal(signal.SIGTERM)
            code: int = self.supervisor.wait(timeout)
            return code
        finally:
            left = [process for process in family if process.is_running()]
            for process in left:
                process.kill()
            psutil.wait_procs(left, timeout=10)


@contextmanager
def running_site(directory: Path, config: str = LOCAL) -> Iterator[Site]:
    """Run a copy of the example in this directory; it must end well."""
    copy = copy_example(directory / "chat")
    variables = {"ADMIN_PORT": str(free_port())}
    if config != LOCAL:
        variables |= {"CHANSUP_CONFIG": str(copy / config), "REDIS_PORT": str(free_port())}
    site = Site(copy, free_port(), variables)
    try:
        site.wait_until_up()
        yield site
    except BaseException:
        site.stop()
        raise
    assert site.stop() == 0, site.output()
