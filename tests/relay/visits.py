"""Sites whose clients leave before they are answered, and such clients."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import fetch
from tests.running import Running, running, wait_for

APPS = Path(__file__).parent / "leaving"
CONCURRENCY = 8
_INTERFACE = """
[app]
directory = "{apps}"

[interface]
bind = "127.0.0.1:0"
server = "{server}"
processes = 2

[rollout]
settle = 0.05
keep_alive = 0.3
stop_timeout = 25
"""
_POOL = """
[workers.{name}]
{gateway} = "{app}"
serves = ["http:/{name}/*"{more}]
concurrency = {concurrency}
queue_timeout = 8
disconnect_timeout = {timeout}
"""


def pool(name: str, app: str = "app", timeout: float = 60, websocket: bool = False) -> str:
    more = f', "websocket:/{name}/*"' if websocket else ""
    return _POOL.format(
        name=name,
        gateway="wsgi" if name == "wsgi" else "asgi",
        app=f"{name}_app:{app}",
        more=more,
        concurrency=4 if name == "wsgi" else CONCURRENCY,
        timeout=timeout,
    )


@contextmanager
def site_of(directory: Path, *pools: str, server: str = "uvicorn") -> Iterator[Running]:
    config = _INTERFACE.format(apps=APPS, server=server) + "".join(pools)
    with running(directory, config) as run:
        yield run.wait_until_ready()


def call(run: Running, path: str, *lines: str, method: str = "GET") -> socket.socket:
    """Send a request on a connection of its own; return that."""
    host, _, port = run.address.rpartition(":")
    connection = socket.create_connection((host, int(port)), 20)
    head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""])
    connection.sendall(head.encode())
    return connection


def stays_until_it_hears(connection: socket.socket) -> None:
    """Wait for the first part of a response."""
    heard = b""
    while not any(word in heard for word in (b"hello", b"tick", b"stream-open")):
        heard += connection.recv(2**16)
    assert heard.startswith(b"HTTP/1.1 200"), heard


def come_and_leave(run: Running, path: str, number: int = CONCURRENCY) -> None:
    """Be so many clients of a stream, until each has heard of it."""
    clients = [call(run, path) for _ in range(number)]
    try:
        for client in clients:
            stays_until_it_hears(client)
    finally:
        for client in clients:
            client.close()


def hear(run: Running, path: str) -> str:
    answer = fetch.get(run.url + path, timeout=20)
    assert answer.status_code == 200, answer.text
    return answer.text


def until_nobody_waits(run: Running, name: str, patience: float = 10.0) -> None:
    wait_for(lambda: hear(run, f"/{name}/count") == "0", f"nobody in {name}", patience=patience)


def in_hand(run: Running, name: str = "bare") -> int:
    return int(run.slots()[f"{name}.0"]["requests_in_progress"])


HANDSHAKE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
