"""Programs and tasks: order, readiness, and what a reload does to them."""

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from tests import fetch
from tests.running import Running, running, wait_for, write_app
from tests.system.conftest import DIRECT

pytestmark = pytest.mark.slow


def program(name: str, code: str, *keys: str) -> str:
    lines = "\n".join(keys)
    return f'\n[programs.{name}]\ncommand = ["{sys.executable}", "-c", """{code}"""]\n{lines}\n'


NOTIFIES = """
import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
a = os.environ['NOTIFY_SOCKET']
while not os.path.exists('gate'): time.sleep(0.01)
s.sendto(b'READY=1\\\\nSTATUS=all is well', a)
time.sleep(99)
"""


def test_a_pool_starts_after_what_it_waits_for(site: Path) -> None:
    config = DIRECT.replace("processes = 2", 'processes = 2\nafter = ["gated"]')
    config += program("gated", NOTIFIES, 'ready = "notify"')
    with running(site, config) as run:
        run.wait_for(lambda: run.slots()["gated.0"]["state"] == "STARTING")
        assert "interface.0" not in run.slots()
        assert not run.status()["ready"]
        (site / "gate").touch()
        run.wait_until_ready()
        assert run.slots()["gated.0"]["status"] == "all is well"


def test_readiness_by_a_socket(site: Path) -> None:
    listens = """
import os, socket, time
while not os.path.exists('gate'): time.sleep(0.01)
u = socket.socket(socket.AF_UNIX); u.bind('ready.sock'); u.listen()
time.sleep(99)
"""
    with running(site, program("one", listens, 'ready = "unix:ready.sock"')) as run:
        run.wait_for(lambda: run.slots()["one.0"]["state"] == "STARTING")
        (site / "gate").touch()
        run.wait_until_ready()


def test_a_task_must_succeed_before_a_pool_starts(site: Path) -> None:
    code = "import os, sys; print('task ran', flush=True); sys.exit(0 if os.path.exists('gate') else 4)"
    config = (
        DIRECT
        + f'\n[tasks.migrate]\ncommand = ["{sys.executable}", "-c", "{code}"]\nbefore = ["interface"]\n'
    )
    with running(site, config) as run:
        run.wait_for_output("task migrate: failed (exit code 4)")
        assert "interface.0" not in run.slots()
        assert run.status()["tasks"][0]["output"] == ["task ran"]
        (site / "gate").touch()
        run.wait_until_ready()
        write_app(site, "2")
        (site / "gate").unlink()
        done = run.command("reload")
        assert done.returncode == 1
        assert "task ran" in done.stdout + done.stderr
        assert fetch.get(run.url).text.startswith("1 ")
        assert run.status()["ready"]
        (site / "gate").touch()
        assert run.command("reload").returncode == 0
        assert fetch.get(run.url).text.startswith("2 ")


def test_a_task_that_runs_again_still_shows_how_it_failed(site: Path) -> None:
    (site / "migrate.py").write_text(
        "import pathlib, time\n"
        "gate, tried = pathlib.Path('gate'), pathlib.Path('tried')\n"
        "if not tried.exists():\n"
        "    tried.touch()\n"
        "    raise SystemExit('no database')\n"
        "while not gate.exists():\n"
        "    time.sleep(0.01)\n"
    )
    task = (
        f'\n[tasks.migrate]\ncommand = ["{sys.executable}", "migrate.py"]\nbefore = ["interface"]\n'
    )
    with running(site, DIRECT + task) as run:
        run.wait_for_output("task migrate: failed (exit code 1)")
        wait_for(lambda: run.status()["tasks"][0]["state"] == "running")
        (shown,) = run.status()["tasks"]
        assert shown["last_exit"] == "exit code 1"
        assert shown["output"] == ["no database"]
        assert "with exit code 1" in run.command("status").stdout
        (site / "gate").touch()
        run.wait_until_ready()
        (shown,) = run.status()["tasks"]
        assert (shown["state"], shown["output"]) == ("succeeded", [])


def test_a_failed_reload_does_not_stop_the_first_start(site: Path) -> None:
    code = "import os, sys; sys.exit(0 if os.path.exists('gate') else 4)"
    config = (
        DIRECT
        + f'\n[tasks.migrate]\ncommand = ["{sys.executable}", "-c", "{code}"]\nbefore = ["interface"]\n'
    )
    with running(site, config) as run:
        run.wait_for_output("task migrate: failed")
        assert run.command("reload").returncode == 1
        (site / "gate").touch()
        run.wait_until_ready()


@pytest.mark.thorough
def test_what_a_reload_does_to_programs(site: Path) -> None:
    (site / "own.sh").write_text("#!/bin/sh\nexec sleep 99\n")
    (site / "own.sh").chmod(0o755)
    config = DIRECT + '\n[programs.other]\ncommand = "sleep 98"\n'
    config += '\n[programs.ours]\ncommand = "./own.sh"\n'
    config += '\n[programs.kept]\ncommand = "./own.sh"\non_reload = "keep"\n'
    with running(site, config) as run:
        run.wait_until_ready()
        before = run.slots()
        assert run.command("reload").returncode == 0
        after = run.slots()
        changed = {name for name in after if after[name]["pid"] != before[name]["pid"]}
        assert changed == {"interface.0", "interface.1", "ours.0"}
        assert {slot["generation"] for slot in after.values()} == {2}
        run.config.write_text(run.config.read_text().replace("sleep 98", "sleep 97"))
        assert run.command("reload").returncode == 0
        assert run.slots()["other.0"]["pid"] != after["other.0"]["pid"]
        assert run.slots()["kept.0"]["pid"] == before["kept.0"]["pid"]


@pytest.mark.thorough
def test_programs_stop_last_and_in_reverse_order(site: Path) -> None:
    code = "import signal, sys, time; signal.signal(15, lambda *a: (print('stopped', flush=True), sys.exit()));"
    code += " print('up', flush=True); time.sleep(99)"
    config = DIRECT + program("first", code) + program("second", code, 'after = ["first"]')
    config += f'\n[workers.work]\ncommand = ["{sys.executable}", "-c", "{code}"]\n'
    with running(site, config) as run:
        run.wait_until_ready()
        assert run.stop() == 0
        output = run.output()
        order = [
            output.index(text)
            for text in (
                "interface.0[",
                "work.0 | stopped",
                "second.0 | stopped",
                "first.0 | stopped",
            )
        ]
        last_of_interface = output.rindex("interface.1[")
        assert order[1:] == sorted(order[1:])
        assert last_of_interface < order[1]


def test_a_program_that_does_not_end_takes_no_time_from_the_others(site: Path) -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(99)"
    slow = """
import signal, sys, time
def end(*_):
    time.sleep(1); print('stopped', flush=True); sys.exit()
signal.signal(15, end)
print('up', flush=True); time.sleep(99)
"""
    config = program("base", slow) + program("deaf", deaf, 'after = ["base"]')
    config += program("alone", deaf) + program("calm", slow) + "\n[rollout]\nstop_timeout = 6\n"
    with running(site, config) as run:
        run.wait_until_ready()
        wait_for(lambda: run.output().count("| up") == 4)
        began = time.monotonic()
        assert run.stop() == 0
        assert time.monotonic() - began < 12
        order = re.findall(r"(\w+)\.0(?: \| stopped|.*did not end in time)", run.output())
        assert order in (["calm", "deaf", "base", "alone"], ["calm", "deaf", "alone", "base"])


@pytest.mark.thorough
def test_restart_and_scale(site: Path) -> None:
    with running(
        site, DIRECT + '\n[workers.work]\ncommand = "sleep 99"\nready = "after:0s"\n'
    ) as run:
        run.wait_until_ready()
        before = run.slots()
        done = run.command("restart", "interface.1")
        assert done.returncode == 0, done.stderr
        after = run.slots()
        assert [name for name in after if after[name]["pid"] != before[name]["pid"]] == [
            "interface.1"
        ]
        assert after["interface.1"]["restarts"] == {"command": 1}
        assert run.command("restart").returncode == 0
        assert not {slot["pid"] for slot in after.values()} & {
            slot["pid"] for slot in run.slots().values()
        }
        assert run.command("scale", "work=3").returncode == 0
        assert len(run.pids("work")) == 3
        assert run.command("scale", "interface=3").returncode == 0
        answered = {fetch.get(run.url).text.split()[1] for _ in range(80)}
        assert answered == {str(pid) for pid in run.pids()}
        assert run.command("reload").returncode == 0
        assert len(run.pids("work")) == 3 and len(run.pids()) == 3
        assert run.command("scale", "interface=1").returncode == 0
        assert len(run.pids()) == 1
        for _ in range(20):
            assert fetch.get(run.url).status_code == 200
        unknown = run.command("restart", "nobody")
        assert unknown.returncode == 1 and "nobody" in unknown.stderr


def test_stop_command(site: Path) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        assert run.command("stop").returncode == 0
        assert run.wait() == 0


def test_logs(site: Path) -> None:
    with running(
        site,
        DIRECT
        + program("talks", "import time; print('one'); print('two', flush=True); time.sleep(99)"),
    ) as run:
        run.wait_until_ready()
        shown = run.command("logs", "talks")
        assert shown.returncode == 0
        assert "one" in shown.stdout and "two" in shown.stdout
        assert run.command("logs", "nobody").returncode == 1


@pytest.mark.thorough
def test_a_child_that_floods_or_closes_its_stdout(site: Path) -> None:
    flood = "import sys\nwhile True: sys.stdout.write('x' * 1000 + chr(10))"
    closed = "import os, time; os.close(1); os.close(2); time.sleep(99)"
    config = DIRECT + program("flood", flood) + program("closed", closed)
    with running(site, config) as run:
        run.wait_until_ready()
        begun = time.monotonic()
        assert run.status()["pools"]
        assert fetch.get(run.url).status_code == 200
        assert time.monotonic() - begun < 20
        assert run.slots()["closed.0"]["state"] == "READY"
        assert run.stop() == 0


@pytest.mark.thorough
def test_a_stuck_stdout_blocks_nobody(site: Path) -> None:
    reader, writer = os.pipe()
    talk = """
import sys, time
for _ in range(10_000):
    sys.stdout.write('x' * 1000 + chr(10))
open('said', 'w').close()
time.sleep(99)
"""
    try:
        with running(site, DIRECT + program("talks", talk), stdout=writer) as run:
            run.wait_until_ready()
            wait_for(lambda: (site / "said").exists())
            assert fetch.get(run.url).status_code == 200
            wait_for(lambda: run.status()["log_lines_dropped"] > 0)
            assert run.stop() == 0
    finally:
        os.close(reader)
        os.close(writer)


def wait_for_last_exit(run: Running, text: str) -> None:
    run.wait_for(lambda: run.slots()["ends.0"]["last_exit"] == text)


def test_every_exit_code_and_signal_is_told(site: Path) -> None:
    code = "import os, signal; n = int(open('how').read()); os.kill(os.getpid(), -n) if n < 0 else os._exit(n)"
    (site / "how").write_text("7")
    with running(site, program("ends", code, 'ready = "after:0s"')) as run:
        for number, text in (
            (7, "exit code 7"),
            (255, "exit code 255"),
            (-9, "killed by SIGKILL"),
            (-11, "killed by SIGSEGV"),
        ):
            (site / "how").write_text(str(number))
            run.command("restart", "ends")
            wait_for_last_exit(run, text)
            assert run.slots()["ends.0"]["last_exit_code"] == number


def test_what_only_a_shell_would_fill_in_is_said_at_the_start_and_by_a_reload(site: Path) -> None:
    config = '[programs.idle]\ncommand = ["sleep", "10000"]\n[programs.b]\n'
    with running(site, config + 'command = "sleep $LONG"\n', {"LONG": "10000"}) as run:
        run.wait_for_output('programs.b.command: "$LONG" is passed as it stands')
        text = run.config.read_text()
        run.config.write_text(text.replace("$LONG", "${LONG}").replace('"10000"]', '"~/x"]'))
        run.command("reload")
        run.wait_for_output('programs.idle.command: "~/x" is passed as it stands')
        assert run.output().count("is passed as it stands") == 2


def test_what_keeps_a_process_from_starting_is_said_once(site: Path) -> None:
    (site / "tool").write_text("no first line\n")
    (site / "tool").chmod(0o755)
    config = '[programs.absent]\ncommand = "./gone/bin/python"\n[programs.refused]\n'
    with running(site, config + 'command = "./tool"\n[programs.absent.environment]\n') as run:
        run.wait_for(
            lambda: all(sum(one["restarts"].values()) >= 3 for one in run.slots().values())
        )
        said = run.output()
        assert said.count("there is no gone in") == 1
        assert said.count("is not a program of this machine") == 1
        assert "is not a program of this machine" in " ".join(run.slots()["refused.0"]["output"])


def test_a_program_that_does_not_exist(site: Path) -> None:
    with running(
        site, DIRECT + '\n[programs.missing]\ncommand = "no-such-program-anywhere --flag"\n'
    ) as run:
        run.wait_for(
            lambda: "no-such-program-anywhere" in " ".join(run.slots()["missing.0"]["output"])
        )
        assert fetch.get(run.url).status_code == 200
        run.send(signal.SIGTERM)
        assert run.wait() == 0


@pytest.mark.parametrize("workers", ["", '[workers.web]\nserves = ["http"]\n'])
def test_options_that_the_server_refuses_fail_a_reload_before_its_tasks(
    site: Path, workers: str
) -> None:
    code = "open('ran', 'a').write('x')"
    task = (
        f'\n[tasks.migrate]\ncommand = ["{sys.executable}", "-c", "{code}"]\n'
        'before = ["interface", "workers"]\n'
    )
    with running(site, DIRECT + task + workers) as run:
        run.wait_until_ready()
        assert (site / "ran").read_text() == "x"
        good = run.config.read_text()
        run.config.write_text(good + "[interface.options]\nws_pnig_interval = 3\n")
        done = run.command("reload")
        assert done.returncode == 1
        said = done.stdout + done.stderr
        assert "interface: the server does not take its options" in said
        assert 'did you mean "ws_ping_interval"?' in said
        assert (site / "ran").read_text() == "x"
        assert fetch.get(run.url).text.startswith("1 ")
        run.config.write_text(good)
        assert run.command("reload").returncode == 0
        assert (site / "ran").read_text() == "xx"
