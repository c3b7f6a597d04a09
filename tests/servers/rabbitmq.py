"""One RabbitMQ for all tests that run at the same time: a node of its own, on loopback alone.

`node()` is for tests. The node belongs to a guard (this file run as a program), which ends it
when nobody uses it any more: users hold a shared lock, and the kernel gives theirs back for those
that were killed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

PATIENCE = 90.0  # Erlang on two busy cores
# Debian's command on PATH only runs as root, who becomes the user rabbitmq: this is what it calls.
_PROGRAMS = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server")


def require() -> str:
    """Return the path of rabbitmq-server; skip where it is missing, fail under CI."""
    found = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if found and shutil.which("epmd"):
        return found
    missing = "rabbitmq-server is not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


@contextmanager
def node(directory: Path) -> Iterator[str]:
    """Give the URL of a node; whoever gives the same directory gets the same node."""
    program = require()
    directory.mkdir(exist_ok=True)
    with (directory / "starting").open("w") as starting, (directory / "users").open("w") as users:
        fcntl.flock(starting, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)  # waits for a guard that ends what was there
        url = directory / "url"
        if not url.exists():
            with (directory / "log").open("ab") as log:
                guard = subprocess.Popen(
                    [sys.executable, __file__, program, str(directory)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            deadline = time.monotonic() + PATIENCE + 30
            while not url.exists():
                assert guard.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline, (directory / "log").read_text()
                time.sleep(0.05)
        fcntl.flock(starting, fcntl.LOCK_UN)
        yield url.read_text()


def start(program: str, directory: Path) -> tuple[list[subprocess.Popen[bytes]], str]:
    """Start a node and its port mapper (epmd); return both, and the URL, once it accepts."""
    home = directory / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o700)
    port, between, mapper = _free_ports(3)
    config = home / "rabbitmq.conf"
    config.write_text("disk_free_limit.absolute = 1MB\nloopback_users.guest = true\n")
    (home / "plugins").write_text("[].\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),  # of the cookie
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(mapper),
        "RABBITMQ_NODENAME": f"chansup-test-{os.getpid()}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(between),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",  # not the one of the system
        "RABBITMQ_CONFIG_FILE": str(config),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_LOG_BASE": str(home / "logs"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 -kernel inet_dist_use_interface {127,0,0,1}",
        "RUNNING_UNDER_SYSTEMD": "true",  # its script becomes the node, instead of its parent
    }
    processes = []
    try:
        for command in ([shutil.which("epmd") or "epmd"], [program]):
            processes.append(
                subprocess.Popen(
                    command, env=environment, cwd=home, stdin=subprocess.DEVNULL, process_group=0
                )
            )
            _wait_until_accepting(mapper if len(processes) == 1 else port, processes)
    except BaseException:
        stop(processes)
        raise
    return processes, f"amqp://guest:guest@127.0.0.1:{port}/"


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """End them at once, with what they have started: nothing in there is worth keeping."""
    for process in reversed(processes):
        try:
            family = psutil.Process(process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            family = []
        process.kill()
        for member in family:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                pass
        process.wait()
        psutil.wait_procs(family, timeout=10)


def _wait_until_accepting(port: int, processes: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with socket.socket() as probe:
            try:
                probe.connect(("127.0.0.1", port))
            except OSError:
                pass
            else:
                return
        for process in processes:
            if process.poll() is not None:
                raise SystemExit(f"{process.args!r} ended: {process.returncode}")
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing listens at port {port}")
        time.sleep(0.05)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def guard(program: str, directory: Path) -> None:
    """Keep a node for as long as somebody has a shared lock on the file of users."""
    url = directory / "url"
    processes, address = start(program, directory)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        (directory / "url.new").write_text(address)
        (directory / "url.new").rename(url)
        with (directory / "users").open("w") as users:
            fcntl.flock(users, fcntl.LOCK_EX)
            url.unlink()
            stop(processes)
    finally:
        url.unlink(missing_ok=True)
        stop(processes)


if __name__ == "__main__":
    guard(sys.argv[1], Path(sys.argv[2]))
