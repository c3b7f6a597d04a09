"""Redis servers for tests: real ones, on Unix sockets or ports of their own, gone with the test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.certificates import certify

PATIENCE = 30.0
FORGETFUL = ("--save", "", "--appendonly", "no")


def require() -> str:
    """Return the path of redis-server; skip where it is missing, fail under CI."""
    found = shutil.which("redis-server")
    if found:
        return found
    missing = "redis-server is not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


class Redis:
    """A server that may be killed, and started again at the same address."""

    def __init__(self, directory: Path, *options: str, port: int = 0, unix: str = "") -> None:
        self.directory = directory
        self.port = port
        self.unix = unix
        self.command = [require(), *options]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.directory / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + PATIENCE
        family, address = (
            (socket.AF_UNIX, self.unix) if self.unix else (socket.AF_INET, ("127.0.0.1", self.port))
        )
        while True:
            with socket.socket(family) as probe:
                try:
                    probe.connect(address)
                except OSError:
                    pass
                else:
                    return
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.01)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def log(self) -> str:
        return (self.directory / "redis.log").read_text(errors="replace")


@contextmanager
def on_socket() -> Iterator[tuple[Redis, str]]:
    """Run a server on a Unix socket alone; give its URL."""
    # Not pytest's directory: the path of a socket may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="redis-") as name:
        path = f"{name}/redis.sock"
        options = ("--port", "0", "--unixsocket", path, "--unixsocketperm", "700", *FORGETFUL)
        with _running(Redis(Path(name), *options, unix=path)) as redis:
            yield redis, f"unix://{path}"


@contextmanager
def on_port(directory: Path, *options: str) -> Iterator[tuple[Redis, str]]:
    """Run a server on a port of 127.0.0.1; give its URL."""
    directory.mkdir(exist_ok=True)
    port = free_port()
    where = ("--port", str(port), "--bind", "127.0.0.1")
    with _running(Redis(directory, *where, *FORGETFUL, *options, port=port)) as redis:
        yield redis, f"redis://127.0.0.1:{port}/0"


@contextmanager
def with_tls(directory: Path) -> Iterator[tuple[Redis, str]]:
    """Run a server that speaks TLS alone; give a URL that names whom to trust."""
    directory.mkdir(exist_ok=True)
    certify(directory)
    port = free_port()
    where = ("--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1")
    tls = ("--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-auth-clients", "no")
    redis = Redis(directory, *where, *tls, *FORGETFUL, port=port)
    try:
        redis.start()
    except AssertionError:
        if "Bad directive" in redis.log():  # how one without TLS refuses the option
            pytest.skip("redis-server is built without TLS")
        raise
    try:
        yield redis, f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={directory}/cert.pem"
    finally:
        redis.kill()


@contextmanager
def sentinel(directory: Path, master: int, name: str = "chat") -> Iterator[str]:
    """Run a sentinel that watches the server at a port; give its URL."""
    directory.mkdir(exist_ok=True)
    port = free_port()
    config = directory / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\nsentinel monitor {name} 127.0.0.1 {master} 1\n"
    )
    with _running(Redis(directory, str(config), "--sentinel", port=port)):
        yield f"redis+sentinel://127.0.0.1:{port}/{name}/0"


@contextmanager
def _running(redis: Redis) -> Iterator[Redis]:
    redis.start()
    try:
        yield redis
    finally:
        redis.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
