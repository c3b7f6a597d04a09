"""Processes that hang are found from inside their loop, and nobody is blamed wrongly."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests import fetch
from tests.running import running
from tests.system.conftest import DIRECT

pytestmark = pytest.mark.slow

QUICK = DIRECT.replace("processes = 2", "processes = 2\nliveness_timeout = 2")


def test_a_blocked_loop_shows_its_stack_and_is_replaced(site: Path) -> None:
    with running(site, QUICK) as run:
        run.wait_until_ready()

        def block() -> None:
            with suppress(httpx.HTTPError):
                fetch.get(f"{run.url}/block", timeout=30)

        thread = threading.Thread(target=block)
        thread.start()
        run.wait_for_output("liveness_timeout = 2 s")
        run.wait_for_output("site_app.py")  # the line that blocks
        run.wait_for(lambda: any(slot["restarts"] == {"hang": 1} for slot in run.slots().values()))
        run.wait_until_ready()
        thread.join()


@pytest.mark.thorough
def test_a_stopped_process_is_replaced(site: Path) -> None:
    with running(site, QUICK) as run:
        run.wait_until_ready()
        frozen = run.pids()[0]
        os.kill(frozen, signal.SIGSTOP)
        run.wait_for(lambda: frozen not in run.pids())
        assert run.slots()["interface.0"]["restarts"] == {"hang": 1}


@pytest.mark.thorough
def test_a_frozen_supervisor_blames_nobody(site: Path) -> None:
    with running(site, QUICK) as run:
        run.wait_until_ready()
        before = run.pids()
        run.send(signal.SIGSTOP)
        time.sleep(4)  # twice the liveness timeout: nothing can tell us, it is frozen
        run.send(signal.SIGCONT)
        time.sleep(2.5)  # time enough to blame somebody
        assert run.pids() == before
        assert "liveness" not in run.output()


def test_a_foreign_program_is_watched_once_it_beats(site: Path) -> None:
    code = """
import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
a = os.environ['NOTIFY_SOCKET']
s.sendto(b'READY=1', a)
for _ in range(5):
    s.sendto(b'WATCHDOG=1', a)
    time.sleep(0.1)
time.sleep(99)
"""
    config = f'[programs.beats]\ncommand = ["{sys.executable}", "-c", """{code}"""]\nready = "notify"\nliveness_timeout = 1.5\n'
    config += '\n[programs.silent]\ncommand = "sleep 99"\nliveness_timeout = 1.5\n'
    with running(site, config) as run:
        run.wait_for(lambda: run.slots()["beats.0"]["restarts"].get("hang"))
        assert run.slots()["silent.0"]["restarts"] == {}


@pytest.mark.thorough
def test_a_frozen_supervisor_gives_a_booting_program_its_time(site: Path) -> None:
    code = "import os, socket, time; time.sleep(1); s = socket.socket(socket.AF_UNIX); s.bind('up.sock'); s.listen(); time.sleep(99)"
    config = f'[programs.boots]\ncommand = ["{sys.executable}", "-c", "{code}"]\nready = "unix:up.sock"\nstart_timeout = 3\n'
    with running(site, config) as run:
        run.wait_for(lambda: run.slots()["boots.0"]["pid"])
        run.send(signal.SIGSTOP)
        time.sleep(4)  # longer than start_timeout: nothing can tell us, it is frozen
        run.send(signal.SIGCONT)
        run.wait_until_ready()
        assert run.slots()["boots.0"]["restarts"] == {}


def test_a_program_whose_queue_was_full_is_not_blamed(site: Path) -> None:
    """A helper of its own fills the queue while the supervisor stands still."""
    code = """
import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ['NOTIFY_SOCKET'])
s.send(b'READY=1')
s.send(b'WATCHDOG=1')
while True: s.send(b'STATUS=chatter')
"""
    config = f'[programs.talks]\ncommand = ["{sys.executable}", "-c", """{code}"""]\nready = "notify"\nliveness_timeout = 1.5\n'
    with running(site, config) as run:
        run.wait_until_ready()
        time.sleep(4)  # more than twice the liveness timeout, without a single WATCHDOG=1
        assert run.slots()["talks.0"]["restarts"] == {}
