"""Hubs for tests: real processes."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 20.0


class Hub:
    """A hub at one path, which may be killed, and started again."""

    def __init__(self, path: str, *options: str) -> None:
        self.path = path
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.log = Path(path + ".log")

    def start(self, *options: str) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            process = self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "chansup.layer.hub", "--socket", self.path),
                    *self.options,
                    *options,
                ],
                stderr=log,
            )
        if "--takeover" not in options:
            self.wait_until_ready()
        return process

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(self.path)
                except OSError:
                    assert time.monotonic() < deadline, self.log.read_text()
                    time.sleep(0.01)
                else:
                    return

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@contextmanager
def running(*options: str) -> Iterator[Hub]:
    with tempfile.TemporaryDirectory(prefix="hub-") as directory:
        hub = Hub(os.path.join(directory, "hub.sock"), *options)
        hub.start()
        try:
            yield hub
        finally:
            if hub.process is not None and hub.process.poll() is None:
                hub.kill()


async def replaced(hub: Hub, during: Callable[[], object] = lambda: None) -> None:
    """Let a new hub take over, and wait until the old one has ended."""
    old = hub.process
    assert old is not None
    new = hub.start("--takeover")
    during()
    deadline = time.monotonic() + PATIENCE
    while old.poll() is None:
        assert time.monotonic() < deadline, hub.log.read_text()
        assert new.poll() is None, hub.log.read_text()
        await asyncio.sleep(0.01)
    assert old.returncode == 0
