"""A hub that has no descriptors left for its clients."""

import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

from chansup.layer.frames import Kind, pack
from tests.layer.hubs import PATIENCE, Hub

LIMIT = 40
_SCRIPT = """
import os, resource, sys
soft, hard = (int(one) for one in sys.argv[1:3])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
os.execv(sys.executable, [sys.executable, "-m", "chansup.layer.hub", *sys.argv[3:]])
"""


def started(path: str, soft: int, hard: int, *options: str) -> Hub:
    hub = Hub(path)
    with hub.log.open("ab") as log:
        arguments = [str(soft), str(hard), "--socket", path, *options]
        hub.process = subprocess.Popen([sys.executable, "-c", _SCRIPT, *arguments], stderr=log)
    hub.wait_until_ready()
    return hub


def cpu(hub: Hub) -> float:
    assert hub.process is not None
    fields = Path(f"/proc/{hub.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_answered(client: socket.socket) -> bool:
    """Say whether the hub has accepted a client: it closes what begins with nonsense."""
    client.settimeout(PATIENCE)
    try:
        client.sendall(pack(Kind.SEND))
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_without_descriptors_it_waits_and_goes_on_when_there_are_some(tmp_path: Path) -> None:
    hub = started(str(tmp_path / "hub.sock"), LIMIT, LIMIT)
    clients = []
    try:
        assert "(ulimit -Hn) is 40" in hub.log.read_text()
        for _ in range(LIMIT + 10):
            client = socket.socket(socket.AF_UNIX)
            client.connect(hub.path)
            clients.append(client)
        deadline = time.monotonic() + PATIENCE
        while "cannot accept a client" not in hub.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        before = cpu(hub)
        time.sleep(2)  # it must do nothing all the time
        assert cpu(hub) - before < 0.25
        for client in clients[:-1]:
            client.close()
        assert is_answered(clients[-1])
    finally:
        for client in clients:
            client.close()
        hub.stop()


def test_the_limit_is_raised_for_as_many_clients_as_there_may_be(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hub = started(str(tmp_path / "hub.sock"), LIMIT, hard, "--connections", "100")
    try:
        assert hub.process is not None
        assert resource.prlimit(hub.process.pid, resource.RLIMIT_NOFILE) == (164, hard)
        assert hub.log.read_text() == ""
    finally:
        hub.stop()
