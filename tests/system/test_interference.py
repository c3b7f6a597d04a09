"""Commands that get into each other's way, and children that misbehave while they do."""

import os
import signal
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests import fetch
from tests.running import Running, running, wait_for, write_app
from tests.system.conftest import DIRECT
from tests.system.test_reload import Background

SLOW = "import time; time.sleep(0.7)\n"
THREE = DIRECT.replace("processes = 2", "processes = 3")


def coloured(config: str, colour: str) -> str:
    return config.replace("[app]", f'[app]\nenvironment = {{ COLOUR = "{colour}" }}')


def launchers(run: Running) -> int:
    """Return how many processes of the interface there really are."""
    found = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            found += b"chansup.launch" in line and int(parent) == run.pid
    return found


def wait_for_launchers(run: Running, count: int) -> None:
    wait_for(lambda: launchers(run) == count)


@pytest.mark.thorough
def test_scale_down_during_a_rollout(site: Path) -> None:
    write_app(site, before=SLOW)
    for moment, size in (
        ("rollout {}: interface.0: ready", 2),
        ("rollout {}: interface.0: replaced", 1),
    ):
        with running(site, THREE) as run:
            run.wait_until_ready()
            reload = Background(run, "reload")
            run.wait_for_output(moment.format(2))
            assert run.command("scale", f"interface={size}").returncode == 0
            assert reload.code() == 0, reload.output
            wait_for_launchers(run, size)
            slots = run.slots()
            assert len(slots) == size
            assert {slot["generation"] for slot in slots.values()} == {2}
            assert run.status()["generation"] == 2


@pytest.mark.thorough
def test_scale_up_during_a_rollout(site: Path) -> None:
    write_app(site, before=SLOW)
    config = DIRECT + '\n[workers.work]\ncommand = "sleep 99"\nready = "after:0s"\n'
    with running(site, coloured(config, "red")) as run:
        run.wait_until_ready()
        run.config.write_text(run.config.read_text().replace("red", "blue"))
        reload = Background(run, "reload")
        run.wait_for_output("rollout 2: interface.1: starting")
        assert run.command("scale", "work=3").returncode == 0
        assert reload.code() == 0, reload.output
        assert {slot["generation"] for slot in run.slots().values()} == {2}
        assert len(run.pids("work")) == 3


@pytest.mark.thorough
def test_restart_during_a_rollout_keeps_the_new_generation(site: Path) -> None:
    write_app(site, before=SLOW)
    with running(site, coloured(DIRECT, "red")) as run:
        run.wait_until_ready()
        run.config.write_text(run.config.read_text().replace("red", "blue"))
        reload = Background(run, "reload")
        run.wait_for_output("rollout 2: interface.1: starting")
        assert run.command("restart", "interface.1").returncode == 0
        assert reload.code() == 0, reload.output
        assert {slot["generation"] for slot in run.slots().values()} == {2}
        assert {fetch.get(run.url).text.split()[2] for _ in range(20)} == {"blue"}


@pytest.mark.thorough
def test_a_process_that_leaves_again_and_again_is_slowed_down(site: Path) -> None:
    code = """
import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b'READY=1\\\\nSTOPPING=1', os.environ['NOTIFY_SOCKET'])
time.sleep(60)
"""
    config = f'[programs.leaves]\ncommand = ["{sys.executable}", "-c", """{code}"""]\nready = "notify"\non_reload = "overlap"\nstop_timeout = 2\nmax_restarts = 4\non_max_restarts = "exit"\n'
    with running(site, config) as run:
        assert run.wait(60) == 5
        assert run.output().count("leaves by itself") == 5


def test_a_stop_waits_for_a_task(site: Path) -> None:
    script = (
        "trap 'sleep 1; echo finished; exit 1' TERM; echo begun; while true; do sleep 0.05; done"
    )
    config = (
        DIRECT + f'\n[tasks.migrate]\ncommand = ["sh", "-c", "{script}"]\nbefore = ["interface"]\n'
    )
    with running(site, config) as run:
        run.wait_for_output("migrate | begun")
        assert run.stop() == 0
        assert "migrate | finished" in run.output()


def test_a_task_never_runs_twice_at_a_time(site: Path) -> None:
    script = "trap '' TERM; echo begin; sleep 1.5; echo end; exit 0"
    config = (
        DIRECT + f'\n[tasks.migrate]\ncommand = ["sh", "-c", "{script}"]\nbefore = ["interface"]\n'
    )
    with running(site, config) as run:
        run.wait_for_output("migrate | begin")
        first = Background(run, "reload")
        run.wait_for_output("rollout 2: task migrate runs")
        assert run.command("reload").returncode == 0
        assert first.code() == 1
        words = [
            line.split()[-1] for line in run.output().splitlines() if line.startswith("migrate |")
        ]
        assert words == ["begin", "end"] * (len(words) // 2)


@pytest.mark.thorough
def test_a_task_of_a_reload_finds_the_new_program_it_needs(site: Path) -> None:
    database = "import os, socket, time; s = socket.socket(socket.AF_UNIX); s.bind('db.sock'); s.listen(); time.sleep(99)"
    asks = "import socket; socket.socket(socket.AF_UNIX).connect('db.sock')"
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        more = f'\n[programs.db]\ncommand = ["{sys.executable}", "-c", "{database}"]\nready = "unix:db.sock"\n'
        more += f'\n[tasks.ask]\ncommand = ["{sys.executable}", "-c", "{asks}"]\nafter = ["db"]\nbefore = ["interface"]\n'
        run.config.write_text(run.config.read_text() + more)
        done = run.command("reload")
        assert done.returncode == 0, done.stdout + done.stderr
        assert run.slots()["db.0"]["state"] == "READY"


def test_exit_code_78_of_a_process_that_was_ready_is_a_crash(site: Path) -> None:
    source = (site / "site_app.py").read_text().replace("os._exit(7)", "os._exit(78)")
    (site / "site_app.py").write_text(source)
    with running(site, DIRECT.replace("processes = 2", "processes = 1")) as run:
        run.wait_until_ready()
        pid = run.pids()[0]
        try:
            fetch.get(f"{run.url}/exit")
        except httpx.HTTPError:
            pass
        run.wait_for(lambda: run.pids()[0] not in (None, pid))
        run.wait_until_ready()


def test_a_storm_of_signals_and_commands(site: Path) -> None:
    with running(site, THREE) as run:
        run.wait_until_ready()
        for _ in range(10):
            run.send(signal.SIGHUP)
        commands = [
            Background(run, *words) for words in (["restart"], ["scale", "interface=2"], ["reload"])
        ]
        for pid in run.pids():
            if pid:
                os.kill(pid, signal.SIGKILL)
        for one in commands:
            one.code()
        assert run.command("reload").returncode == 0
        run.wait_until_ready()
        wait_for(lambda: launchers(run) == len(run.pids()) == 2)
        assert run.stop() == 0


def test_forty_reloads_at_once_end_in_one_generation(site: Path) -> None:
    config = DIRECT + '\n[tasks.quick]\ncommand = "true"\nbefore = ["interface"]\n'
    with running(site, config) as run:
        run.wait_until_ready()
        for _ in range(40):
            run.send(signal.SIGHUP)
            time.sleep(0.01)  # a storm, not a queue: signals of one kind are merged
        assert run.command("reload", timeout=90).returncode == 0
        generation = run.status()["generation"]
        assert {slot["generation"] for slot in run.slots().values()} == {generation}
        wait_for(lambda: launchers(run) == 2)


def test_a_reload_that_failed_leaves_the_site_ready(site: Path) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        good = run.config.read_text()
        run.config.write_text(good + '\n[tasks.new]\ncommand = "false"\nbefore = ["interface"]\n')
        assert run.command("reload").returncode == 1
        assert run.status()["ready"], run.status()["reasons"]
        assert run.status()["tasks"] == []


@pytest.mark.thorough
def test_a_restart_ends_with_the_stop_that_crosses_it(site: Path) -> None:
    write_app(site, before=SLOW)
    with running(site, THREE) as run:
        run.wait_until_ready()
        restart = Background(run, "restart")
        run.wait_for(lambda: any(slot["restarts"] for slot in run.slots().values()))
        assert run.stop() == 0
        assert restart.code() == 1


@pytest.mark.thorough
def test_slots_that_leave_in_a_superseded_rollout_are_gone(site: Path) -> None:
    write_app(site, before=SLOW)
    goodbye = "trap 'sleep 1; exit 0' TERM; while true; do sleep 0.1; done"
    config = (
        DIRECT
        + f'\n[workers.work]\ncommand = ["sh", "-c", "{goodbye}"]\nready = "after:0s"\nprocesses = 3\n'
    )
    with running(site, config) as run:
        run.wait_until_ready()
        before = run.pids("work")
        run.config.write_text(run.config.read_text().replace("processes = 3", "processes = 1"))
        first = Background(run, "reload")
        run.wait_for_output("rollout 2: work.0: the old process drains")
        assert run.command("reload").returncode == 0
        assert first.code() == 1
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before))


@pytest.mark.thorough
def test_two_reloads_that_arrive_together_both_get_a_result(site: Path) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        run.send(signal.SIGSTOP)
        both = [Background(run, "reload"), Background(run, "reload")]
        time.sleep(0.6)  # both have asked by now; a frozen supervisor cannot tell
        run.send(signal.SIGCONT)
        assert sorted(one.code() for one in both) == [0, 1]


@pytest.mark.thorough
def test_a_pool_that_is_being_removed_ends_gracefully(site: Path) -> None:
    goodbye = "trap 'sleep 2; echo goodbye; exit 0' TERM; while true; do sleep 0.1; done"
    worker = f'\n[workers.work]\ncommand = ["sh", "-c", "{goodbye}"]\nready = "after:0s"\n'
    with running(site, DIRECT + worker) as run:
        run.wait_until_ready()
        run.config.write_text(run.config.read_text().replace(worker, ""))
        reload = Background(run, "reload")
        run.wait_for_output("work: stopping")
        assert run.stop() == 0
        assert "work.0 | goodbye" in run.output()
        reload.code()


def test_a_child_cannot_harm_the_supervisor_through_its_scoreboard(site: Path) -> None:
    vandal = """
import json, mmap, os, struct
fd = json.loads(os.environ["CHANSUP_LAUNCH"])["scoreboard_fd"] if "CHANSUP_LAUNCH" in os.environ else 4
try:
    os.ftruncate(fd, 0)
except OSError as error:
    print("refused:", error, flush=True)
memory = mmap.mmap(fd, 0)
memory[:] = struct.pack("d", float("nan")) * (len(memory) // 8)
"""
    write_app(site, before=vandal)
    with running(site, DIRECT + '\n[admin]\nbind = "127.0.0.1:0"\n') as run:
        run.wait_for_output("refused:")
        run.wait_until_ready()
        status = run.status()
        assert fetch.get(f"http://{status['admin']}/metrics").status_code == 200
        assert fetch.get(run.url).status_code == 200
