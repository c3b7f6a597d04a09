"""Processes that are ready and accept nobody: told in the log, by status, `/readyz`, metrics."""

import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.running import Running, running, write_app

pytestmark = pytest.mark.slow  # the interpreter makes no difference

ADMIN = '\n[admin]\nbind = "127.0.0.1:0"\n'
SERVER = """
[app]
asgi = "site_app:app"

[interface]
bind = "127.0.0.1:0"
limits = {{ nofile = 60 }}
{relay}
"""
RELAY = 'processes = 2\n\n[workers.web]\nserves = ["http"]'


def crowd(run: Running, stack: ExitStack, count: int) -> None:
    host, _, port = run.address.rpartition(":")
    for _ in range(count):
        client = stack.enter_context(socket.socket())
        client.setblocking(False)
        client.connect_ex((host, int(port)))


def readiness(run: Running) -> httpx.Response:
    return httpx.get(f"http://{run.status()['admin']}/readyz")


@pytest.mark.parametrize("relay", ["", RELAY], ids=["direct", "relay"])
@pytest.mark.thorough
def test_descriptors_that_are_used_up_are_told_while_it_lasts(tmp_path: Path, relay: str) -> None:
    write_app(tmp_path)
    with running(tmp_path, SERVER.format(relay=relay) + ADMIN) as run:
        run.wait_until_ready()
        assert readiness(run).status_code == 200
        with ExitStack() as stack:
            crowd(run, stack, 200)
            run.wait_for(lambda: not run.status()["ready"])
            answer = readiness(run)
            assert answer.status_code == 503
            assert "interface.0: no file descriptors left" in answer.json()["reasons"]
            assert "no file descriptors left" in run.command("status").stdout
            assert "no file descriptors are left (it may have 60)" in run.output()
            page = httpx.get(f"http://{run.status()['admin']}/metrics").text
            counted = 'chansup_process_out_of_descriptors_total{pool="interface",slot='
            assert f'{counted}"interface.0"}} 0.0' not in page
        run.wait_for(lambda: run.status()["ready"])
        assert httpx.get(run.url).status_code == 200
        assert "Traceback" not in run.output()


@pytest.mark.thorough
def test_a_program_without_descriptors_is_told_by_its_queue(tmp_path: Path) -> None:
    (tmp_path / "hoarder.py").write_text(
        "import resource, socket, time\n"
        "listener = socket.socket(fileno=3)\n"
        "listener.setblocking(True)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))\n"
        "held = []\n"
        "while True:\n"
        "    try:\n"
        "        held.append(listener.accept()[0])\n"
        "    except OSError:\n"
        "        time.sleep(0.1)\n"
    )
    command = f'command = ["{sys.executable}", "hoarder.py", "{{fd}}"]'
    config = f'[interface]\nbind = "127.0.0.1:0"\n{command}\nready = "after:0s"\n{ADMIN}'
    with running(tmp_path, config) as run, ExitStack() as stack:
        run.wait_until_ready()
        crowd(run, stack, 40)
        run.wait_for(lambda: not run.status()["ready"])
        assert readiness(run).json()["reasons"] == ["interface.0: accepts no connections"]
        run.wait_for_output("No file descriptors are left (it may have 16)")
        page = httpx.get(f"http://{run.status()['admin']}/metrics").text
        stalls = 'chansup_process_accept_stalls_total{pool="interface",slot="interface.0"} 1.0'
        assert stalls in page
        assert run.slots()["interface.0"]["state"] == "READY"


@pytest.mark.thorough
def test_a_program_is_ready_when_it_accepts(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(
        "import socket, time\n"
        "listener = socket.socket(fileno=3)\n"
        "listener.setblocking(True)\n"
        "while True:\n"
        "    listener.accept()[0].close()\n"
    )
    (tmp_path / "deaf.py").write_text("import time\ntime.sleep(99)\n")
    config = (
        '[interface]\nbind = "127.0.0.1:0"\nprocesses = 2\n'
        f'command = ["{sys.executable}", "NAME.py", "{{fd}}"]\n'
        "[rollout]\nstart_timeout = 5\n"
    )
    with running(tmp_path, config.replace("NAME", "server")) as run:
        run.wait_until_ready()
        assert "ready after 2" not in run.output()
        assert run.command("restart").returncode == 0
    with running(tmp_path, config.replace("NAME", "deaf")) as run:
        run.wait_for_output("accepts no connections: it must take its socket from descriptor 3")
        assert not run.status()["ready"]


# How a program may take connections, from the descriptor that it is told
ACCEPTS = {
    "closes at once": "l.setblocking(True)\nwhile True: l.accept()[0].close()",
    "holds": "l.setblocking(True)\nheld = []\nwhile True: held.append(l.accept()[0])",
    "selects": "import select\nheld = []\nwhile True:\n"
    "    select.select([l], [], [])\n"
    "    try: held.append(l.accept()[0])\n"
    "    except BlockingIOError: pass",
    "asyncio": "import asyncio\n"
    "async def main():\n"
    "    await asyncio.start_server(lambda r, w: None, sock=l)\n"
    "    await asyncio.sleep(99)\n"
    "asyncio.run(main())",
    "in a child": "import os\nl.setblocking(True)\nheld = []\nif os.fork(): os.wait()\n"
    "while True: held.append(l.accept()[0])",
}


TCP, UNIX = "127.0.0.1:0", "unix:web.sock"
QUICK = (("holds", TCP), ("selects", UNIX))


@pytest.mark.parametrize(
    ("how", "bind"),
    [
        pytest.param(how, bind, marks=() if (how, bind) in QUICK else pytest.mark.thorough)
        for how in ACCEPTS
        for bind in (TCP, UNIX)
    ],
)
def test_at_a_reload_the_new_program_must_accept_beside_the_old_one(
    tmp_path: Path, how: str, bind: str
) -> None:
    server = tmp_path / "server.py"
    server.write_text(f"import socket, sys\nl = socket.socket(fileno=3)\n{ACCEPTS[how]}\n")
    config = (
        f'[app]\n[interface]\nbind = "{bind}"\n'
        f'command = ["{sys.executable}", "server.py", "{{fd}}"]\n'
        "[rollout]\nstart_timeout = 6\nsettle = 0.05\nstop_timeout = 5\n"
    )
    with running(tmp_path, config) as run:
        before = run.wait_until_ready().pids()
        done = run.command("reload")
        assert done.returncode == 0, done.stdout + done.stderr
        after = run.pids()
        assert after != before
        server.write_text("import time\ntime.sleep(99)\n")
        done = run.command("reload")
        assert done.returncode == 1
        assert "accepts no connections: it must take its socket" in done.stdout + done.stderr
        assert run.pids() == after
