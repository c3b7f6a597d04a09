"""Runs `chansup run` for a test, as a user would, and sees to it that nothing stays behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil

from chansup.cli import client
from chansup.errors import ChansupError

PATIENCE = 30.0  # seconds for whatever a test waits for

APP = """
import asyncio, os, sys

VERSION = {version!r}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({{"type": message["type"] + ".complete"}})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({{"type": "websocket.accept"}})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            await send({{"type": "websocket.send", "text": message["text"]}})
    if scope["path"] == "/slow":
        await asyncio.sleep(float(scope["query_string"] or 1))
    if scope["path"] == "/block":
        import time
        time.sleep(60)
    if scope["path"] == "/exit":
        os._exit(7)
    body = f"{{VERSION}} {{os.getpid()}} {{os.environ.get('COLOUR', '')}}".encode()
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]}})
    await send({{"type": "http.response.body", "body": body}})
"""


# A cached module is told from a changed one by its size and the second of its change: a test is
# quicker than that.
_COMPILE_ANEW = {"PYTHONDONTWRITEBYTECODE": "1"}


def write_app(directory: Path, version: str = "1", before: str = "", after: str = "") -> None:
    """Write a small ASGI application; `before` and `after` are lines of its module."""
    directory.mkdir(parents=True, exist_ok=True)
    source = before + APP.format(version=version) + after
    # A new file, not a changed one: a reader never sees half of it.
    fresh = directory / "site_app.py.new"
    fresh.write_text(source)
    fresh.rename(directory / "site_app.py")


class Running:
    """One `chansup run`."""

    def __init__(self, process: "subprocess.Popen[bytes]", config: Path, output: Path) -> None:
        self.process = process
        self.config = config
        self.output_file = output

    @property
    def pid(self) -> int:
        return self.process.pid

    def output(self) -> str:
        return self.output_file.read_text(errors="replace")

    def command(
        self, *arguments: str, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        return command(*arguments, "-c", str(self.config), timeout=timeout)

    def status(self) -> dict[str, Any]:
        """Return what `chansup status --json` prints, without a process for each look."""
        try:
            found = client.find(self.config, os.environ).status()
        except ChansupError as error:
            raise AssertionError(str(error)) from None
        document: dict[str, Any] = msgspec.to_builtins(found)
        return document

    def slots(self) -> dict[str, dict[str, Any]]:
        return {slot["name"]: slot for pool in self.status()["pools"] for slot in pool["slots"]}

    def pids(self, pool: str = "interface") -> list[int]:
        return [slot["pid"] for name, slot in self.slots().items() if name.startswith(pool + ".")]

    @property
    def address(self) -> str:
        address: str = self.status()["addresses"][0]
        return address

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def wait_until_ready(self) -> "Running":
        self.wait_for(lambda: self.status()["state"] == "running" and self.status()["ready"])
        return self

    def wait_for(self, happened: Callable[[], Any], what: str = "") -> Any:
        """Return what `happened` returns, once it is true."""
        return wait_for(happened, what, self._tell_if_ended)

    def wait_for_successor(self, slot: str, pid: int) -> None:
        """Wait until another process than `pid` runs in `slot`."""
        self.wait_for(lambda: self.slots()[slot]["pid"] not in (None, pid))

    def wait_for_output(self, text: str) -> None:
        wait_for(lambda: text in self.output(), f"{text!r} in the output", self._tell)

    def _tell(self) -> str:
        return self.output()[-3000:]

    def _tell_if_ended(self) -> str:
        if self.process.poll() is not None:
            raise AssertionError(f"chansup ended ({self.process.returncode}):\n{self._tell()}")
        return self._tell()

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def send_to(self, pid: int, number: int) -> None:
        """Send a signal to one of its processes."""
        assert psutil.Process(pid).ppid() == self.pid
        os.kill(pid, number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for its end; return the exit code."""
        return self.process.wait(timeout)

    def stop(self) -> int:
        self.send(signal.SIGTERM)
        return self.wait()


def wait_for(
    happened: Callable[[], Any],
    what: str = "",
    tell: Callable[[], str] = str,
    patience: float = PATIENCE,
) -> Any:
    """Look again and again, with short pauses: for what gives no sign when it happens."""
    deadline = time.monotonic() + patience
    last: Exception | None = None
    while time.monotonic() < deadline:
        try:
            if result := happened():
                return result
        except (AssertionError, OSError, KeyError, IndexError) as error:
            last = error
        tell()
        time.sleep(0.03)
    raise AssertionError(f"waited in vain for {what or happened}: {last!r}\n{tell()}")


def command(
    *arguments: str, timeout: float = PATIENCE, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run one `chansup` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "chansup", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        **more,
    )


@contextmanager
def running(
    directory: Path,
    config: str,
    environ: Mapping[str, str] | None = None,
    name: str = "chansup.toml",
    stdout: Any = None,
    program: tuple[str, ...] = ("-m", "chansup"),
    arguments: tuple[str, ...] = (),
) -> Iterator[Running]:
    """Run chansup on `config`, written into `directory`; afterwards nothing of it may be left."""
    path = directory / name
    if "[supervisor]" not in config:
        config += f'\n[supervisor]\nruntime_directory = "{directory}/.chansup"\n'
    if "[admin]" not in config:
        config += '\n[admin]\nbind = ""\n'
    path.write_text(config)
    output = directory / f"{name}.log"
    marker = {"CHANSUP_TEST": str(path)}
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, *program, "run", *arguments, "-c", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=stdout or sink,
            stderr=subprocess.STDOUT if stdout is None else sink,
            env={**os.environ, **_COMPILE_ANEW, **marker, **(environ or {})},
        )
    run = Running(process, path, output)
    try:
        yield run
    except BaseException:
        print(f"--- output of chansup:\n{run.output()[-6000:]}")
        raise
    finally:
        left = end(process, marker)
    assert not left, f"left behind: {left}"


def end(process: "subprocess.Popen[bytes]", marker: Mapping[str, str]) -> list[str]:
    """End a run and return what outlived it."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return [describe(survivor) for survivor in survivors(marker)]


def survivors(marker: Mapping[str, str], patience: float = 2.0) -> list[psutil.Process]:
    """Return the processes that carry `marker` in their environment, once nothing more ends."""
    deadline = time.monotonic() + patience
    while found := [one for one in psutil.process_iter() if _carries(one, marker)]:
        if time.monotonic() > deadline:
            for one in found:
                one.kill()
            return found
        time.sleep(0.02)
    return []


def _carries(process: psutil.Process, marker: Mapping[str, str]) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return marker.items() <= process.environ().items()
    except psutil.Error:
        return False


def describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())}"
    except psutil.Error:
        return str(process.pid)
