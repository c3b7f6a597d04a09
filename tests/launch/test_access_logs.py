"""Whatever a client writes into a request, each line of an access log is one that the server wrote."""

import contextlib
import socket

import pytest

from chansup.text import visible_but_colours

from . import client
from .harness import PATIENCE, Process, Supervisor, eventually
from .test_servers import SERVERS

_ALL = '%(h)s "%(r)s" %(U)s %(q)s %(f)s %(a)s %({x-a}i)s'
OPTIONS = {
    "uvicorn": {"access_log": True},
    "granian": {
        "log_access": True,
        "log_access_format": '%(addr)s "%(method)s %(path)s %(query_string)s"',
    },
    "hypercorn": {"accesslog": "-", "access_log_format": _ALL},
    "daphne": {"access_log": "-"},
    "gunicorn": {"accesslog": "-", "access_log_format": _ALL},
}
ENCODED = [b"%0a", b"%0A", b"%0d%0a", b"%0d", b"%1b[2K", b"%1b[8m", b"%00", b"%0b", b"%c2%85"]
ENCODED += [b"%e2%80%a8", b"%ff%fe", b"%25%30%61"]
BARE = [b"\n", b"\r", b"\x1b[2K", b"\x1b[8m", b"\x00", b"\x0b", b"\xff\x85", b"\xc2\x85"]
BARE += [b"\xe2\x80\xa8"]
UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def requests(evil: bytes) -> list[bytes]:
    evil += b"FORGED"
    end = b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    return [
        b"GET /path" + evil + end,
        b"GET /query?q=" + evil + end,
        b"G" + evil + b"T /method" + end,
        b"GET /header HTTP/1.1\r\nHost: a" + evil + b"\r\nUser-Agent: a" + evil
        + b"\r\nReferer: a" + evil + b"\r\nX-A: a" + evil + b"\r\nConnection: close\r\n\r\n",
        b"GET /folded HTTP/1.1\r\nHost: a\r\nX-A: a\r\n " + evil + b"\r\nConnection: close\r\n\r\n",
        b"GET /websocket" + evil + b" HTTP/1.1\r\nHost: a\r\n" + UPGRADE + b"\r\n",
    ]  # fmt: skip


def send(address: str, data: bytes) -> None:
    """Send, and read until the first answer or the end."""
    with contextlib.suppress(OSError), socket.create_connection(_place(address), 5) as connection:
        connection.settimeout(1)
        connection.sendall(data)
        connection.recv(1000)


def _place(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


@pytest.mark.parametrize("server", SERVERS)
def test_no_client_begins_a_line_or_reaches_the_terminal(
    supervisor: Supervisor, server: str
) -> None:
    pytest.importorskip(server)
    process: Process = supervisor.start(server, options=OPTIONS[server]).wait_ready()
    begun = len(process.output())
    for evil in (*ENCODED, *BARE):
        for request in requests(evil):
            send(process.address, request)
    client.get(process.address, "/last")
    eventually(lambda: "/last" in process.output(), PATIENCE, process.output)
    text = process.output()[begun:]
    assert "FORGED" in text, "nothing was logged: the test is worth nothing"
    for line in text.splitlines():
        assert not line.lstrip(" [2K8m").startswith("FORGED"), text
        assert "\x1b" not in line
        assert visible_but_colours(line) == line, line
