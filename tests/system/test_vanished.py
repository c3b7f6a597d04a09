"""What the supervisor lives on is removed under a running site: nothing of it may matter for long."""

import os
import shutil
import signal
import socket
from pathlib import Path

import httpx
import psutil

from chansup.errors import ExitCode
from tests import fetch
from tests.running import Running, running, write_app
from tests.system.conftest import DIRECT
from tests.system.test_hub import put, taken

RELAY = """
[app]
asgi = "site_app:app"

[interface]
bind = "127.0.0.1:0"

[workers.web]
serves = ["http", "websocket"]

[channel_layer]
"""


def answer(path: Path) -> str:
    """Ask for a page over a Unix socket, each time by a connection of its own."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        return client.get("http://site/", timeout=10).text


def lives(pid: int) -> bool:
    """Whether `pid` runs; a zombie that nobody reaps does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def restored(run: Running) -> int:
    count: int = run.status()["files_restored"]
    return count


def test_a_runtime_directory_that_was_removed_is_made_again(site: Path) -> None:
    with running(site, RELAY) as run:
        run.wait_until_ready()
        before = {name: slot["pid"] for name, slot in run.slots().items()}
        put(run)
        shutil.rmtree(site / ".chansup")
        run.wait_for(lambda: restored(run) >= 7)  # directory, lock, control, hub, three that report
        for name in ("web.0", "hub.0"):
            run.wait_for_successor(name, before[name])
        run.wait_until_ready()
        after = run.slots()
        assert after["interface.0"]["pid"] == before["interface.0"]  # it holds the connections
        assert after["web.0"]["restarts"] == after["hub.0"]["restarts"] == {"socket": 1}
        assert taken(run) == [0]  # the hub handed over what it had
        assert "vanished, made again" in run.output()
        run.send_to(after["web.0"]["pid"], signal.SIGKILL)
        run.wait_for_successor("web.0", after["web.0"]["pid"])
        run.wait_until_ready()
        assert fetch.get(run.url).status_code == 200
        done = run.command("reload")
        assert done.returncode == 0, done.stdout + done.stderr
        again = run.command("run")
        assert again.returncode == ExitCode.ALREADY_RUNNING


def test_a_second_supervisor_is_refused_when_only_the_lock_was_removed(site: Path) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        lock, control = site / ".chansup" / "lock", site / ".chansup" / "control.sock"
        inode = control.stat().st_ino
        run.send(signal.SIGSTOP)  # so that it cannot make the lock again
        lock.unlink()
        second = run.command("run")
        run.send(signal.SIGCONT)
        assert second.returncode == ExitCode.ALREADY_RUNNING
        assert f"process {run.pid}" in second.stderr
        assert control.stat().st_ino == inode
        run.wait_for(lock.exists)
        assert lock.read_text() == f"{run.pid}\n"


def test_what_stands_in_the_place_of_the_control_socket_is_left_alone(site: Path) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        control = site / ".chansup" / "control.sock"
        control.unlink()
        control.write_text("precious")
        run.wait_for_output("something that chansup did not make")
        assert control.read_text() == "precious"
        control.unlink()
        run.wait_for(lambda: restored(run) == 1)


UNIX = DIRECT.replace('"127.0.0.1:0"', '"unix:pub/web.sock"')


def test_a_public_socket_gets_its_name_back(site: Path) -> None:
    public = site / "pub"
    public.mkdir()
    with running(site, UNIX) as run:
        run.wait_until_ready()
        before = run.pids()
        (public / "web.sock").unlink()
        run.wait_for(lambda: restored(run) == 1)
        assert answer(public / "web.sock")
        assert run.status()["ready"]
        assert run.pids() == before  # no process noticed
    assert os.listdir(public) == []


def test_a_public_socket_whose_directory_went_gets_new_processes(site: Path) -> None:
    public = site / "pub"
    public.mkdir(mode=0o750)
    with running(site, UNIX) as run:
        run.wait_until_ready()
        before = run.pids()
        run.send(signal.SIGSTOP)
        shutil.rmtree(public)
        run.send(signal.SIGCONT)
        status = run.wait_for(lambda: not (found := run.status())["ready"] and found)
        assert any("web.sock: " in reason for reason in status["reasons"])
        run.wait_until_ready()
        run.wait_for(lambda: not {*run.pids()} & {*before})
        assert public.stat().st_mode & 0o777 == 0o750
        assert answer(public / "web.sock")
        assert {
            name: slot["restarts"] for name, slot in run.slots().items()
        } == {"interface.0": {"socket": 1}, "interface.1": {"socket": 1}}  # fmt: skip


FIRST_HANGS = """
import os, time
try:
    os.rename("slow", "hangs")
except OSError:
    pass
else:
    time.sleep(99)
"""


def test_a_slot_that_starts_slowly_does_not_keep_a_public_socket_dead(site: Path) -> None:
    write_app(site, before=FIRST_HANGS)
    (site / "pub").mkdir()
    with running(site, UNIX) as run:
        run.wait_until_ready()
        before = run.pids()
        (site / "slow").touch()
        shutil.rmtree(site / "pub")
        run.wait_for(lambda: {*run.pids()} - {*before})
        assert (site / "hangs").exists()
        assert answer(site / "pub" / "web.sock")
        assert {*run.pids()} & {*before}  # the other one still starts


def test_status_names_what_stands_in_the_place_of_the_runtime_directory(site: Path) -> None:
    with running(site, DIRECT) as run:
        pid = run.wait_until_ready().pids()[0]
        runtime = site / ".chansup"
        shutil.rmtree(runtime)
        runtime.write_text("precious")
        run.wait_for_output(f"error: {runtime} is not a directory: remove it")
        told = run.command("status")
        assert told.returncode == ExitCode.FAILED
        assert f"runs as process {run.pid} and cannot be asked: {runtime} is a file" in told.stderr
        assert "Remove it" in told.stderr
        run.send_to(pid, signal.SIGKILL)
        run.wait_for_output("still trying")
        assert runtime.read_text() == "precious"
        runtime.unlink()
        run.wait_for_output("vanished, made again")
        run.wait_until_ready()


def test_a_file_in_the_place_of_a_public_directory_is_named(site: Path) -> None:
    public = site / "pub"
    public.mkdir()
    with running(site, UNIX) as run:
        run.wait_until_ready()
        shutil.rmtree(public)
        public.touch()
        run.wait_for(
            lambda: f"{public} is not a directory. Remove it" in run.command("status").stdout
        )


def test_a_public_socket_that_somebody_else_replaced_is_said_and_left_alone(site: Path) -> None:
    (site / "pub").mkdir()
    path = site / "pub" / "web.sock"
    with running(site, UNIX) as run:
        run.wait_until_ready()
        path.unlink()
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.bind(str(path))
            run.wait_for(lambda: not run.status()["ready"])
            run.wait_for(lambda: run.status()["obstacles"])
            assert path.is_socket()
            path.unlink()
        run.wait_until_ready()
        assert answer(path)


def test_the_admin_address_comes_back(site: Path) -> None:
    (site / "pub").mkdir()
    path = site / "pub" / "admin.sock"
    config = DIRECT + '\n[admin]\nbind = "unix:pub/admin.sock"\n'
    with running(site, config) as run:
        run.wait_until_ready()
        shutil.rmtree(site / "pub")
        run.wait_for(lambda: restored(run) == 1)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            metrics = run.wait_for(lambda: client.get("http://localhost/metrics").text)
        assert "chansup_files_restored_total 1.0" in metrics
        assert "defect" not in run.output()


def test_what_outlived_supervisor_and_guard_is_ended_by_the_next_start(site: Path) -> None:
    script = "setsid sleep 1000 & echo left $!; exec sleep 1000"
    config = f'[programs.leaves]\ncommand = ["sh", "-c", "{script}"]\nready = "after:0s"\n'
    with running(site, config) as run:
        run.wait_until_ready()
        run.wait_for_output("leaves.0 | left ")
        left = int(run.output().split("left ")[1].split()[0])
        supervisor = psutil.Process(run.pid)
        (guard,) = [
            one for one in supervisor.children() if "guard_process" in " ".join(one.cmdline())
        ]
        run.send(signal.SIGSTOP)  # so that it starts no other guard
        guard.kill()
        run.send(signal.SIGKILL)
        run.wait()
        assert lives(left)
        with running(site, config) as second:
            second.wait_until_ready()
            assert not lives(left)
            second.wait_for_output("a supervisor was killed, and so was its guard")
