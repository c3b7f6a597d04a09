"""A site of several users under a supervisor of root: what root makes, they can use."""

import pwd
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit import everybody
from tests.running import Running, running, write_app

pytestmark = pytest.mark.skipif(everybody.reason() is not None, reason=str(everybody.reason()))
NOBODY = pwd.getpwnam("nobody")
README = Path(__file__).parents[2] / "contrib" / "systemd" / "README.md"


def bounding_set() -> str:
    """Return what the unit's page says for a site of several users, as setpriv(1) takes it."""
    listed = re.search(r"`((?:CAP_[A-Z_]+ ?)+)`", README.read_text())
    assert listed
    names = [name.removeprefix("CAP_").lower() for name in listed[1].split()]
    return ",".join(["-all", *(f"+{name}" for name in names)])


SITE = """
[app]
asgi = "site_app:app"

[interface]
bind = "unix:run/web.sock"
user = "nobody"
{interface}

{workers}

[programs.prints]
command = ["sh", "-c", "echo home=$${{HOME}} > /dev/stdout; echo to-stderr > /dev/stderr; exec sleep 10000"]
ready = "after:0s"
user = "nobody"

[rollout]
settle = 0.05
drain_spread = 0.2
keep_alive = 0.3
stop_timeout = 10
"""
WORKERS = '[workers.web]\nserves = ["http", "websocket"]\nuser = "daemon"\n[channel_layer]\n'


@contextmanager
def site(interface: str = "", workers: str = "") -> Iterator[Running]:
    """Run a site with the capabilities of the unit in contrib/systemd alone."""
    python = everybody.interpreter()
    command = ["setpriv", f"--bounding-set={bounding_set()}", python, "-m", "chansup"]
    program = ("-c", f"import os, sys; os.execvp('setpriv', [*{command!r}, *sys.argv[1:]])")
    with everybody.directory() as directory:
        write_app(directory)
        environ = everybody.environment(directory)
        config = SITE.format(interface=interface, workers=workers)
        with running(directory, config, environ, program=program) as run:
            yield run.wait_until_ready()


def owner(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def answer(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return client.recv(65536)


@pytest.mark.parametrize("workers", ["", WORKERS], ids=["direct", "relay"])
def test_a_site_of_several_users_starts_with_the_rights_of_the_unit(workers: str) -> None:
    with site(workers=workers) as run:
        directory = run.config.parent
        path = directory / "run" / "web.sock"
        assert owner(path) == (0o660, NOBODY.pw_uid, NOBODY.pw_gid)
        assert owner(path.parent) == (0o755, NOBODY.pw_uid, NOBODY.pw_gid)
        assert b" 200 " in answer(path)
        run.wait_for_output(f"home={NOBODY.pw_dir}")
        run.wait_for_output("to-stderr")
        assert "denied" not in run.output()


def test_the_owner_of_a_socket_is_set_and_changed_by_a_reload() -> None:
    with site('unix_owner = "daemon"\nunix_group = "sys"\nunix_mode = "600"') as run:
        path = run.config.parent / "run" / "web.sock"
        daemon, group = pwd.getpwnam("daemon").pw_uid, 3
        assert owner(path) == (0o600, daemon, group)
        inode = path.stat().st_ino
        text = run.config.read_text()
        run.config.write_text(
            text.replace('unix_owner = "daemon"\nunix_group = "sys"\nunix_mode = "600"', "")
        )
        done = run.command("reload")
        assert done.returncode == 0, done.stderr
        assert owner(path) == (0o660, NOBODY.pw_uid, NOBODY.pw_gid)
        assert path.stat().st_ino == inode
        assert b" 200 " in answer(path)
