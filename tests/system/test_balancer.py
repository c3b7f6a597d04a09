"""What load balancers and platforms see: health, readiness, and a delay before the end."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fetch
from tests.running import command, running, survivors, wait_for
from tests.system.conftest import DIRECT

WATCHED = (
    DIRECT.replace("processes = 2", 'processes = 2\nhealth_path = "/-/health"')
    + '\n[admin]\nbind = "127.0.0.1:0"\n'
)


def test_health_and_readiness_turn_red_before_anything_is_refused(site: Path) -> None:
    config = WATCHED.replace("stop_timeout = 10", "stop_timeout = 20\nshutdown_delay = 8")
    with running(site, config) as run:
        run.wait_until_ready()
        url, admin = run.url, f"http://{run.status()['admin']}"
        assert fetch.get(f"{url}/-/health").status_code == 200
        assert fetch.get(f"{admin}/readyz").status_code == 200
        run.send(signal.SIGTERM)
        wait_for(lambda: fetch.get(f"{admin}/readyz").status_code == 503)
        assert fetch.get(f"{url}/-/health").status_code == 503
        for _ in range(10):
            assert fetch.get(url).status_code == 200
        assert fetch.get(f"{admin}/livez").status_code == 200
        run.send(signal.SIGTERM)
        assert run.wait() == 0


@pytest.mark.thorough
def test_new_connections_are_refused_while_the_last_requests_finish(site: Path) -> None:
    with running(site, WATCHED) as run:
        run.wait_until_ready()
        host, port = run.address.rsplit(":", 1)
        slow = socket.create_connection((host, int(port)))
        slow.sendall(b"GET /slow?3 HTTP/1.1\r\nHost: x\r\n\r\n")
        run.wait_for(lambda: any(slot["requests_in_progress"] for slot in run.slots().values()))
        run.send(signal.SIGTERM)

        def refused() -> bool:
            try:
                socket.create_connection((host, int(port)), timeout=2).close()
            except ConnectionRefusedError:
                return True
            return False

        wait_for(refused)
        assert run.process.poll() is None
        slow.settimeout(20)
        assert slow.recv(1000).startswith(b"HTTP/1.1 200")
        assert run.wait() == 0


@pytest.mark.thorough
def test_admin_moves_with_a_reload(site: Path) -> None:
    with running(site, WATCHED) as run:
        run.wait_until_ready()
        first = run.status()["admin"]
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        run.config.write_text(
            run.config.read_text().replace(
                '[admin]\nbind = "127.0.0.1:0"', f'[admin]\nbind = "127.0.0.1:{port}"'
            )
        )
        assert run.command("reload").returncode == 0
        assert run.status()["admin"] == f"127.0.0.1:{port}" != first
        assert fetch.get(f"http://127.0.0.1:{port}/livez").status_code == 200


@pytest.mark.thorough
def test_a_socket_of_systemd_is_kept_for_the_next_start(site: Path) -> None:
    """As under a .socket unit: the queue outlives the service, and nobody is refused."""
    (site / "chansup.toml").write_text(
        DIRECT.replace('"127.0.0.1:0"', '"systemd"')
        + f'\n[admin]\nbind = ""\n[supervisor]\nruntime_directory = "{site}/.chansup"\n'
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        start = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); os.execv(sys.executable, [sys.executable, '-m', 'chansup', 'run', '-c', sys.argv[2]])"
        arguments = [
            sys.executable,
            "-c",
            start,
            str(listener.fileno()),
            str(site / "chansup.toml"),
        ]
        marker = {"CHANSUP_TEST": str(site)}
        address = listener.getsockname()
        for _ in range(2):
            process = subprocess.Popen(
                arguments,
                pass_fds=[listener.fileno()],
                env={**os.environ, **marker},
                stdout=subprocess.DEVNULL,
            )
            try:
                waiting = socket.create_connection(address)
                waiting.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                waiting.settimeout(20)
                assert waiting.recv(1000).startswith(b"HTTP/1.1 200")
                wait_for(
                    lambda: command("status", "-c", str(site / "chansup.toml")).returncode == 0
                )
            finally:
                process.terminate()
                assert process.wait(20) == 0
            assert survivors(marker) == []
