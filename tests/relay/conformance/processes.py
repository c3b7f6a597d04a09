"""Starts a server with an app twice: running the app itself, and behind the relay."""

import contextlib
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chansup.protocol import roster
from chansup.protocol.launch import AppWorker, Relay
from chansup.protocol.roster import Pool, Roster, Route, Worker

from .launcher import DRAIN, Launcher, listen

APPS = Path(__file__).parent.parent / "apps"
PATIENCE = 10.0
ROUTES = [Route("http"), Route("websocket")]


class Side:
    """One way to run the app: where clients connect, and what the app noted."""

    def __init__(self, address: str, records: Path, launchers: list[Launcher]) -> None:
        self.address = address
        self.launchers = launchers
        self._file = records
        self._offset = 0
        self._lock = threading.Lock()
        self._records: dict[str, dict[int, dict[str, Any]]] = {}

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def records(self, case: str, count: int) -> list[dict[str, Any]]:
        """Take what the app noted of a case, as soon as it has ended each time it was called.

        `count` is how often that should be; where a server refuses a request, it is less.
        """
        if not self._wait(lambda: self._ended(case) >= count, 0.1):
            self._fence()
        self._wait(lambda: self._ended(case) == len(self._records.get(case, ())), PATIENCE)
        records = self._records.pop(case, {})
        return [records[number] for number in sorted(records)]

    def _ended(self, case: str) -> int:
        return sum("outcome" in record for record in self._records.get(case, {}).values())

    def _wait(self, happened: Callable[[], bool], patience: float) -> bool:
        deadline = time.monotonic() + patience
        while True:
            self._read()
            if happened():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)

    def _fence(self) -> None:
        """Have one more request answered: the app has been called for whatever came before."""
        host, _, port = self.address.rpartition(":")
        with socket.create_connection((host, int(port)), PATIENCE) as fence:
            fence.sendall(b"GET /fence HTTP/1.0\r\nHost: localhost\r\n\r\n")
            while fence.recv(1000):
                pass

    def _read(self) -> None:
        with self._lock:
            self._read_on()

    def _read_on(self) -> None:
        with self._file.open("rb") as file:
            file.seek(self._offset)
            lines = file.readlines()
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:  # still being written
                return
            self._offset += len(line)
            self._records.setdefault(record["case"], {})[record["number"]] = record

    def output(self) -> str:
        return "\n".join(launcher.output() for launcher in self.launchers)


@contextlib.contextmanager
def direct(
    server: str, options: dict[str, Any], application: str = "recorder:application",
    environment: dict[str, str] | None = None,
) -> Iterator[Side]:  # fmt: skip
    """Run the app in the server's own process."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chansup-")))
        records = directory / "records"
        records.touch()
        listener, address = listen()
        stack.callback(listener.close)
        launcher = Launcher(
            server, [(listener, address)], application, slot="interface.0", directory=APPS,
            options=options, environment={"RECORDS": str(records), **(environment or {})},
        )  # fmt: skip
        stack.callback(launcher.close)
        launcher.wait_ready()
        yield Side(address, records, [launcher])


@contextlib.contextmanager
def relayed(
    server: str, options: dict[str, Any], application: str = "recorder:application",
    environment: dict[str, str] | None = None,
) -> Iterator[Side]:  # fmt: skip
    """Run the relay in the server's process, and the app in a worker behind it."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chansup-")))
        records = directory / "records"
        records.touch()
        worker = stack.enter_context(
            app_worker(directory, application, {"RECORDS": str(records), **(environment or {})})
        )
        ours, theirs = socket.socketpair()
        stack.callback(ours.close)
        listener, address = listen()
        stack.callback(listener.close)
        with theirs:
            interface = Launcher(
                server, [(listener, address)], "", slot="interface.0", directory=directory,
                options=options, relay=Relay(roster_fd=theirs.fileno()), inherit=[theirs.fileno()],
            )  # fmt: skip
        stack.callback(interface.close)
        worker.wait_ready()
        ours.sendall(roster.encode(Roster([POOL], [entry(worker)])))
        interface.wait_ready()
        yield Side(address, records, [interface, worker])


POOL = Pool(
    name="web", row=1, routes=ROUTES, queue_limit=100, queue_timeout=10.0, worker_timeout=10.0,
    websocket_timeout=10.0, handover_rate=100.0, drain_spread=0.1, stop_timeout=8.0,
)  # fmt: skip


def entry(worker: Launcher) -> Worker:
    return Worker(
        name="web.0", pool="web", pid=worker.popen.pid, generation=1,
        address=worker.address.removeprefix("unix:"), state="ready",
    )  # fmt: skip


@contextlib.contextmanager
def app_worker(
    directory: Path, application: str, environment: dict[str, str]
) -> Iterator[Launcher]:
    """Start an app worker; it may not be ready yet."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        address = f"unix:{directory / 'web.0.sock'}"
        listener.bind(address[5:])
        os.chmod(address[5:], 0o600)
        listener.listen()
        listener.setblocking(False)
        launcher = Launcher(
            "relay", [(listener, address)], application, slot="web.0", directory=APPS,
            app_worker=AppWorker(concurrency=64, threads=4, peers=[os.getuid()]),
            environment=environment,
        )  # fmt: skip
    with contextlib.closing(launcher):
        yield launcher


__all__ = ["DRAIN", "Side", "app_worker", "direct", "relayed"]
