"""Plays the supervisor for one launcher: sockets, scoreboard, notify socket, process."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chansup.protocol import notify, scoreboard
from chansup.protocol.launch import VARIABLE, Drain, Launch, Listener, ReadyRequest, encode

APPS = Path(__file__).parent / "apps"
PATIENCE = 20.0  # seconds for anything that should happen soon

# Short, so that tests are; long enough to tell the phases apart.
DRAIN = Drain(settle=0.1, spread=0.3, keep_alive=1.0, timeout=8.0)


def listen(family: str, directory: Path, backlog: int = 512) -> tuple[socket.socket, str]:
    """Open a listener as the supervisor does. Return it and its address as in the config."""
    if family == "unix":
        # Not pytest's tmp_path: sun_path holds 108 bytes.
        path = tempfile.mktemp(prefix="chansup-", suffix=".sock", dir="/tmp")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        address = f"unix:{path}"
    else:
        listener = socket.socket(socket.AF_INET)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    listener.listen(backlog)
    listener.setblocking(False)
    return listener, address


class Notifications:
    """The supervisor's end of the notify protocol."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("")  # autobind: an abstract name
        self.address = "@" + self._socket.getsockname()[1:].decode()
        self.seen: list[tuple[float, dict[str, str]]] = []

    def wait_for(self, key: str, process: "Process", timeout: float = PATIENCE) -> float:
        """Return when a message with `key` arrived; raise when the process ends first."""
        deadline = time.monotonic() + timeout
        while True:
            for moment, fields in self.seen:
                if key in fields:
                    return moment
            ready, _, _ = select.select([self._socket], [], [], 0.02)
            if ready:
                fields = notify.parse(self._socket.recv(notify.MAX_DATAGRAM))
                self.seen.append((time.monotonic(), fields))
            elif process.popen.poll() is not None:
                raise AssertionError(f"exited {process.popen.returncode}:\n{process.output()}")
            elif time.monotonic() > deadline:
                raise AssertionError(f"no {key} within {timeout} s:\n{process.output()}")

    def close(self) -> None:
        self._socket.close()


class Process:
    """One launcher."""

    def __init__(
        self,
        server: str,
        listeners: list[tuple[socket.socket, str]],
        application: str = "site_app:application",
        *,
        gateway: str = "asgi",
        options: dict[str, Any] | None = None,
        drain: Drain = DRAIN,
        health_path: str | None = "/-/health",
        heartbeat_interval: float = 0.05,
        directory: Path = APPS,
        environment: dict[str, str] | None = None,
        system_checks: bool = True,
        ready_request: ReadyRequest | None = None,
    ) -> None:
        self.listeners = listeners
        self.notifications = Notifications()
        self.board_fd = scoreboard.create()
        self.board = scoreboard.Scoreboard(self.board_fd)
        inherited = [listener.fileno() for listener, _ in listeners]
        launch = Launch(
            pool="interface",
            slot=0,
            generation=1,
            server=server,
            application=application,
            gateway=gateway,
            directory=str(directory),
            listeners=[
                Listener(fd=listener.fileno(), address=address, steered=False, backlog=512)
                for listener, address in listeners
            ],
            options=options or {},
            drain=drain,
            health_path=health_path,
            heartbeat_interval=heartbeat_interval,
            system_checks=system_checks,
            ready_request=ready_request,
            scoreboard_fd=self.board_fd,
        )
        self._lines: list[str] = []
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "chansup.launch", server, application, "--slot", "interface.0"],
            cwd=directory,
            env={
                **os.environ,
                "PYTHONUNBUFFERED": "1",  # as the supervisor sets it
                VARIABLE: encode(launch),
                "NOTIFY_SOCKET": self.notifications.address,
                "LISTEN_FDS": str(len(inherited)),
                "LISTEN_FDNAMES": ":".join("chansup" for _ in inherited),
                **(environment or {}),
            },
            pass_fds=[*inherited, self.board_fd],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def address(self) -> str:
        return self.listeners[0][1]

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._lines.append(line)

    def output(self) -> str:
        return "".join(self._lines)

    def wait_for_output(self, text: str, timeout: float = PATIENCE) -> str:
        eventually(lambda: text in self.output(), timeout, lambda: f"{text!r} in {self.output()}")
        return self.output()

    def wait_ready(self) -> "Process":
        self.notifications.wait_for("READY", self)
        return self

    def wait_stopping(self) -> float:
        return self.notifications.wait_for("STOPPING", self)

    def terminate(self) -> None:
        self.popen.send_signal(signal.SIGTERM)

    def wait_exit(self, timeout: float = PATIENCE) -> int:
        try:
            code = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {timeout} s:\n{self.output()}") from None
        self._reader.join(PATIENCE)
        return code

    def cells(self, first: int, count: int = 1) -> list[float]:
        return list(self.board.cells[first : first + count])

    def requests(self, method: str, status: int) -> float:
        return self.board.cells[scoreboard.request_cell(method, status)]

    def closed(self, code: int) -> float:
        return self.board.cells[scoreboard.close_cell(code)]

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        self._reader.join(PATIENCE)
        self.notifications.close()
        self.board.close()
        os.close(self.board_fd)


def eventually(question: Any, timeout: float = PATIENCE, what: Any = "it") -> None:
    """Wait until `question()` is true."""
    deadline = time.monotonic() + timeout
    while not question():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what() if callable(what) else what}")
        time.sleep(0.005)


class Supervisor:
    """Starts launchers and cleans up behind them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._stack = contextlib.ExitStack()

    def listen(self, family: str = "tcp", backlog: int = 512) -> tuple[socket.socket, str]:
        listener, address = listen(family, self.directory, backlog)
        self._stack.callback(listener.close)
        if address.startswith("unix:"):
            self._stack.callback(Path(address[5:]).unlink, missing_ok=True)
        return listener, address

    def start(self, server: str, family: str = "tcp", **keywords: Any) -> Process:
        listeners = keywords.pop("listeners", None) or [self.listen(family)]
        process = Process(server, listeners, **keywords)
        self._stack.callback(process.close)
        return process

    def close(self) -> None:
        self._stack.close()


@contextlib.contextmanager
def supervisor(directory: Path) -> Iterator[Supervisor]:
    played = Supervisor(directory)
    try:
        yield played
    finally:
        played.close()
