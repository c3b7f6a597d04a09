"""Under load, a reload and a rolling restart fail no request, whatever server carries the app."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.load import Failure, FreshConnections, KeepAlive, WebSockets, in_background
from tests.running import Running, running, write_app
from tests.system.conftest import DIRECT

SERVERS = ("uvicorn", "granian", "hypercorn", "daphne", "gunicorn")


def config(server: str, bind: str = "127.0.0.1:0", processes: int = 2, more: str = "") -> str:
    text = DIRECT.replace('"127.0.0.1:0"', f'"{bind}"').replace(
        "processes = 2", f'processes = {processes}\nserver = "{server}"\n{more}'
    )
    if server == "gunicorn":
        text += '\n[interface.options]\nworker_class = "asgi"\n'
    return text


@contextmanager
def loaded(
    run: Running, server: str = "uvicorn"
) -> Iterator[tuple[FreshConnections, KeepAlive, WebSockets]]:
    """Run the load; afterwards no request may have failed."""
    address = run.address
    loads = (FreshConnections(address, 60), KeepAlive(address, 10), WebSockets(address, 20))
    fresh, kept, sockets = loads[0].result, loads[1].result, loads[2].result
    with in_background(*loads):
        yield loads
        run.wait_for(lambda: fresh.succeeded > 30 and kept.succeeded > 30, "enough requests")
    assert not fresh.failures, fresh.summary()
    assert not kept.failures, kept.summary()
    assert not kept.cut_while_idle, kept.summary()
    assert not sockets.disordered, sockets.summary()
    if server == "granian":  # it closes right behind its close frame: a send may find that first
        sockets.closes[1006] -= sockets.cut_while_sending
    assert set(+sockets.closes) <= {1000, 1012}, sockets.summary()


@pytest.mark.parametrize("server", SERVERS)
def test_reload_under_load(site: Path, server: str) -> None:
    with running(site, config(server)) as run:
        run.wait_until_ready()
        with loaded(run, server) as (fresh, _, _):
            write_app(site, "2")
            done = run.command("reload", timeout=60)
            assert done.returncode == 0, done.stdout + done.stderr
            write_app(site, "3", before="broken = 1 / 0\n")
            assert run.command("reload", timeout=60).returncode == 1
        versions = {body.split()[0] for body in fresh.result.bodies}
        assert versions == {b"1", b"2"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("server", "kind"),
    [
        *((server, "unix") for server in SERVERS),
        *((server, kind) for server in ("uvicorn", "granian") for kind in ("one slot", "shared")),
        *(
            pytest.param(server, kind, marks=pytest.mark.thorough)
            for server in ("hypercorn", "daphne", "gunicorn")
            for kind in ("one slot", "shared")
        ),
    ],
)
def test_reload_under_load_on_a_shared_socket(site: Path, server: str, kind: str) -> None:
    text = {
        "unix": lambda: config(server, "unix:web.sock"),
        "one slot": lambda: config(server, processes=1),
        "shared": lambda: config(server, more='steering = "off"'),
    }[kind]()
    with running(site, text) as run:
        run.wait_until_ready()
        with loaded(run, server):
            write_app(site, "2")
            done = run.command("reload", timeout=60)
            assert done.returncode == 0, done.stdout + done.stderr


def test_rolling_sigterm_under_load(site: Path) -> None:
    """An operator's kill of one process after the other is a crash no client sees."""
    with running(site, config("uvicorn")) as run:
        run.wait_until_ready()
        with loaded(run):
            for slot in ("interface.0", "interface.1"):
                pid = run.slots()[slot]["pid"]
                os.kill(pid, signal.SIGTERM)
                run.wait_for_successor(slot, pid)
                run.wait_until_ready()


def test_a_crash_fails_only_what_the_process_held(site: Path) -> None:
    with running(site, config("uvicorn")) as run:
        run.wait_until_ready()
        address = run.address
        fresh = FreshConnections(address, 100)
        with in_background(fresh):
            victim = run.pids()[0]
            os.kill(victim, signal.SIGKILL)
            run.wait_for(lambda: run.slots()["interface.0"]["pid"] not in (None, victim))
            run.wait_until_ready()
            run.wait_for(lambda: fresh.result.succeeded > 50, "enough requests")
        assert set(fresh.result.failures) <= {Failure.RESET, Failure.EOF, Failure.SHORT}
        assert fresh.result.failed <= 3, fresh.result.summary()


WEBSOCKETS_SCRIPT = """
import asyncio, os, signal, socket, sys
import websockets

async def echo(connection):
    async for message in connection:
        await connection.send(message)

async def main():
    fd = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    assert os.environ["LISTEN_PID"] == str(os.getpid()) and os.environ["LISTEN_FDS"] == "1"
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with websockets.serve(echo, sock=socket.socket(fileno=fd)):
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
        await stop.wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("argument", ["{fd}", ""])
@pytest.mark.thorough
def test_a_foreign_server_takes_the_socket(site: Path, argument: str) -> None:
    (site / "server.py").write_text(WEBSOCKETS_SCRIPT)
    text = f"""
[interface]
bind = "127.0.0.1:0"
processes = 2
command = "{sys.executable} server.py {argument}"
ready = "notify"
"""
    with running(site, text) as run:
        run.wait_until_ready()
        sockets = WebSockets(run.address, 10)
        with in_background(sockets):
            assert run.command("reload").returncode == 0
        assert sockets.result.echoed > 10
        assert not sockets.result.handshake_failures, sockets.result.summary()
        assert set(sockets.result.closes) <= {1000, 1001}, sockets.result.summary()


RUDE_SERVER = r"""
import asyncio, os, socket, sys

async def answer(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(0.02)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    await writer.drain()
    writer.close()

async def main():
    server = await asyncio.start_server(answer, sock=socket.socket(fileno=3))
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    await server.serve_forever()

asyncio.run(main())
"""


def test_a_foreign_server_that_dies_at_once_loses_nothing(site: Path) -> None:
    """New connections are kept away from it before its SIGTERM."""
    (site / "server.py").write_text(RUDE_SERVER)
    text = f"""
[interface]
bind = "127.0.0.1:0"
processes = 3
command = "{sys.executable} server.py"
ready = "notify"
"""
    with running(site, text) as run:
        run.wait_until_ready()
        fresh = FreshConnections(run.address, 100)
        with in_background(fresh):
            for _ in range(2):
                assert run.command("reload").returncode == 0
            assert run.command("scale", "interface=1").returncode == 0
            run.wait_for(lambda: fresh.result.succeeded > 100, "enough requests")
        assert not fresh.result.failures, fresh.result.summary()


@pytest.mark.thorough
def test_nothing_waits_at_a_slot_that_was_scaled_away(site: Path) -> None:
    write_app(site, before="import time; time.sleep(0.5)\n")
    with running(site, config("uvicorn", processes=4)) as run:
        run.wait_until_ready()
        assert run.command("scale", "interface=1").returncode == 0
        address = run.address
        os.kill(run.pids()[0], signal.SIGKILL)
        fresh = FreshConnections(address, 40, timeout=10)
        with in_background(fresh):
            run.wait_until_ready()
            run.wait_for(lambda: fresh.result.succeeded > 5, "enough requests")
        assert not fresh.result.failures, fresh.result.summary()
