"""One process that the supervisor would start, in direct or relay mode or as an app worker."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from chansup.protocol.launch import (
    VARIABLE,
    AppWorker,
    Drain,
    Launch,
    Listener,
    Relay,
    encode,
)
from tests.launch import harness

PATIENCE = 20.0
DRAIN = Drain(settle=0.05, spread=0.1, keep_alive=0.3, timeout=8.0)


def listen() -> tuple[socket.socket, str]:
    """Open a listener on the loopback as the supervisor does."""
    return harness.listen("tcp", Path("/tmp"))


class Launcher:
    """One launcher. The listeners are its own: they are closed here once it has them."""

    def __init__(
        self,
        server: str,
        listeners: list[tuple[socket.socket, str]],
        application: str,
        *,
        slot: str,
        directory: Path,
        options: dict[str, Any] | None = None,
        relay: Relay | None = None,
        app_worker: AppWorker | None = None,
        inherit: list[int] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.address = listeners[0][1]
        self.notifications = harness.Notifications()
        inherited = [listener.fileno() for listener, _ in listeners]
        launch = Launch(
            pool=slot.partition(".")[0],
            slot=0,
            generation=1,
            server=server,
            application=application,
            gateway="asgi",
            directory=str(directory),
            listeners=[
                Listener(fd=listener.fileno(), address=address, steered=False, backlog=512)
                for listener, address in listeners
            ],
            options=options or {},
            drain=DRAIN,
            relay=relay,
            app_worker=app_worker,
        )
        self._lines: list[str] = []
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "chansup.launch", server, application, "--slot", slot],
            cwd=directory,
            env={
                **os.environ,
                VARIABLE: encode(launch),
                "NOTIFY_SOCKET": self.notifications.address,
                **(environment or {}),
            },
            pass_fds=[*inherited, *(inherit or [])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._lines.append(line)

    def output(self) -> str:
        return "".join(self._lines)

    def wait_ready(self) -> "Launcher":
        self.notifications.wait_for("READY", self)  # type: ignore[arg-type]
        return self

    def wait_for_output(self, text: str, timeout: float = PATIENCE) -> None:
        deadline = time.monotonic() + timeout
        while text not in self.output():
            if time.monotonic() > deadline:
                raise AssertionError(f"no {text!r} in:\n{self.output()}")
            time.sleep(0.005)

    def terminate(self) -> None:
        self.popen.terminate()

    def wait_exit(self, timeout: float = PATIENCE) -> int:
        code = self.popen.wait(timeout)
        self._reader.join(PATIENCE)
        return code

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        self._reader.join(PATIENCE)
        self.notifications.close()
