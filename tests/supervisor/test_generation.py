"""What each pool of relay mode runs, and what its processes are told."""

import os
import socket
import sys
from pathlib import Path

import pytest

from chansup.config import load
from chansup.protocol.launch import Launch
from chansup.supervisor.errors import SpawnError
from chansup.supervisor.plan import installed
from chansup.supervisor.plan.building import build
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.process.notify_sockets import NotifySockets
from chansup.supervisor.process.processes import _launch
from chansup.supervisor.process.resources import FIRST_DESCRIPTOR, Inheritance, ProcessResources
from chansup.supervisor.sockets.worker_sockets import WorkerSockets

RELAY = """
[app]
asgi = "site_app:app"
directory = "release"
environment = { OF_THE_APP = "1" }
[interface]
bind = "127.0.0.1:0"
health_path = "/up"
environment = { OF_THE_INTERFACE = "1" }
[interface.options]
http = "h11"
[workers.web]
serves = ["http", "websocket"]
concurrency = 9
environment = { OF_THE_POOL = "1" }
[workers.admin]
serves = ["http:/admin/*"]
wsgi = "admin:application"
"""
INHERITED = {"PATH": "/bin", "NOTIFY_SOCKET": "@systemd"}


def generation(directory: Path, config: str = RELAY, number: int = 1) -> Generation:
    (directory / "release").mkdir(exist_ok=True)
    path = directory / "chansup.toml"
    path.write_text(config)
    return build(number, load.load(path, INHERITED), INHERITED)


def document(
    made: Generation, pool: str, directory: Path, listeners: list[Inheritance]
) -> tuple[Launch, ProcessResources]:
    specification = made.pools[pool]
    sockets = WorkerSockets(directory, lambda: None, print)
    notify = NotifySockets(directory, lambda: None, print)
    with ProcessResources(specification, listeners, sockets, {os.geteuid()}, notify) as resources:
        told = _launch(0, specification, made, resources, {os.geteuid()})
        places = dict(enumerate(resources.others, FIRST_DESCRIPTOR + len(resources.listeners)))
        for descriptor in places.values():
            os.fstat(descriptor)  # they are open until the process is spawned
    return told, resources


def test_the_interface_runs_nothing_of_the_app(tmp_path: Path) -> None:
    interface = generation(tmp_path).pools["interface"]
    assert interface.relays
    assert interface.label == "uvicorn relay"
    assert interface.command.argv == (sys.executable, "-m", "chansup.launch", "uvicorn", "relay")
    assert interface.command.directory == str(tmp_path)
    environment = interface.command.environment
    assert environment["OF_THE_INTERFACE"] == "1"
    assert environment["PATH"] == "/bin"
    assert not {"OF_THE_APP", "NOTIFY_SOCKET"} & environment.keys()
    assert (interface.ready, interface.launcher, interface.on_reload) == ("notify", True, "overlap")
    assert "nofile" in interface.command.limits


def test_app_workers_run_the_app_of_their_pool(tmp_path: Path) -> None:
    made = generation(tmp_path)
    web, admin = made.pools["web"], made.pools["admin"]
    assert web.serves
    assert web.label == "relay site_app:app"
    assert web.command.argv == (sys.executable, "-m", "chansup.launch", "relay", "site_app:app")
    assert web.command.directory == str(tmp_path / "release")
    assert web.command.environment["OF_THE_APP"] == web.command.environment["OF_THE_POOL"] == "1"
    assert (web.ready, web.launcher, web.on_reload) == ("notify", True, "overlap")
    assert admin.command.argv[-1] == "admin:application"
    assert not made.pools["interface"].serves


def test_a_pool_may_have_an_interpreter_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "release" / "venv").mkdir(parents=True)
    python = tmp_path / "release" / "venv" / "python"
    python.symlink_to(sys.executable)
    config = RELAY.replace("concurrency = 9", 'python = "venv/python"')
    web = generation(tmp_path, config).pools["web"]
    assert web.command.argv[0] == str(python)
    assert web.command.environment["PATH"].split(":")[0] == str(python.parent)


def test_what_an_interface_process_is_told(tmp_path: Path) -> None:
    made = generation(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as one, socket.socket() as other:
        listeners = [
            Inheritance(sock.fileno(), f"127.0.0.1:{place}", steered=True)
            for place, sock in enumerate((one, other))
        ]
        told, resources = document(made, "interface", tmp_path, listeners)
    assert (told.server, told.application, told.gateway) == ("uvicorn", "", "asgi")
    assert (told.options, told.health_path) == ({"http": "h11"}, "/up")
    assert told.directory == str(tmp_path)
    assert [one.fd for one in told.listeners] == [3, 4]
    assert told.scoreboard_fd == 5
    assert told.relay is not None
    assert (told.relay.roster_fd, told.relay.board_fd) == (6, 7)
    assert told.app_worker is None
    resources.release()


def test_what_an_app_worker_is_told(tmp_path: Path) -> None:
    made = generation(tmp_path)
    web, resources = document(made, "web", tmp_path, [])
    (listener,) = web.listeners
    assert (listener.fd, listener.address) == (3, f"unix:{tmp_path}/w1.sock")
    assert not listener.steered
    assert (web.server, web.application, web.gateway) == ("relay", "site_app:app", "asgi")
    assert (web.scoreboard_fd, web.relay, web.health_path, web.options) == (4, None, None, {})
    assert web.app_worker is not None
    assert (web.app_worker.concurrency, web.app_worker.peers) == (9, [os.geteuid()])
    # The child has its own copy by now: without one, nobody listens.
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(str(tmp_path / "w1.sock"))
    resources.release()
    assert not (tmp_path / "w1.sock").exists()
    admin, resources = document(made, "admin", tmp_path, [])
    assert (admin.application, admin.gateway) == ("admin:application", "wsgi")
    assert admin.app_worker is not None
    assert admin.app_worker.threads == admin.app_worker.concurrency == 4
    resources.release()


def test_a_spawn_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    made = generation(tmp_path)
    before = sorted(os.listdir("/proc/self/fd"))
    sockets = WorkerSockets(tmp_path, lambda: None, print)
    notify = NotifySockets(tmp_path, lambda: None, print)
    for pool in ("web", "interface"):
        with (
            pytest.raises(SpawnError),
            ProcessResources(made.pools[pool], [], sockets, (), notify),
        ):
            raise SpawnError("no more processes")
    assert not list(tmp_path.glob("*.sock"))
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("concurrency = 9", "concurrency = 10", True),  # not the interface's
        ('environment = { OF_THE_APP = "1" }', "", True),
        ('bind = "127.0.0.1:0"', 'bind = "127.0.0.1:0"\nprocesses = 5', True),
        ('bind = "127.0.0.1:0"', 'bind = "127.0.0.1:0"\nmin_ready = 1', True),
        ('bind = "127.0.0.1:0"', 'bind = "127.0.0.1:0"\nmax_restarts = 1', True),
        ("[app]", "[rollout]\nsurge = 2\nstart_timeout = 5\nshutdown_delay = 1\n[app]", True),
        ('bind = "127.0.0.1:0"', 'bind = "127.0.0.1:0"\nbacklog = 5', False),
        ('OF_THE_INTERFACE = "1"', 'OF_THE_INTERFACE = "2"', False),
        ('http = "h11"', 'http = "httptools"', False),
        ('health_path = "/up"', "", False),
        ("[app]", "[rollout]\nkeep_alive = 2\n[app]", False),
        ("[app]", "[rollout]\nstop_timeout = 2\n[app]", False),
        ("[app]", "[supervisor]\nliveness_timeout = 3\n[app]", False),
    ],
)
def test_the_interface_stays_unless_its_own_changed(
    tmp_path: Path, old: str, new: str, same: bool
) -> None:
    before = generation(tmp_path).pools["interface"]
    assert old in RELAY
    after = generation(tmp_path, RELAY.replace(old, new), 2).pools["interface"]
    assert after.stays
    assert after.runs_the_same_as(before) is same


def test_an_interface_that_runs_the_app_is_never_the_same_as_one_that_relays(
    tmp_path: Path,
) -> None:
    relay = generation(tmp_path).pools["interface"]
    direct = generation(tmp_path, RELAY.partition("[workers.web]")[0]).pools["interface"]
    assert not direct.stays
    assert not direct.runs_the_same_as(relay)
    assert not relay.runs_the_same_as(direct)


def test_a_new_release_of_chansup_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "chansup"
    (package / "relay").mkdir(parents=True)
    for name in ("__init__.py", "relay/link.py", "relay/notes.txt"):
        (package / name).write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    first = installed.fingerprint("uvicorn")
    assert first == installed.fingerprint("uvicorn")
    assert first != installed.fingerprint("no-such-server")
    (package / "relay" / "notes.txt").write_text("more")
    assert first == installed.fingerprint("uvicorn")
    (package / "relay" / "link.py").write_text("more")
    second = installed.fingerprint("uvicorn")
    assert first != second
    os.utime(package / "relay" / "link.py", (1, 1))
    assert second == installed.fingerprint("uvicorn")  # the same code, installed anew
    (package / "relay" / "link.py").write_text("less")
    assert second != installed.fingerprint("uvicorn")
