"""What a process started and left behind: it is told, gets its time, and never piles up."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from chansup.config import foreground
from tests.running import Running, running, wait_for

# Appends a line to `told` for each SIGTERM, and ends as soon as there is a file `done`.
WORKER = """
import os, signal, sys, time

def note(word):
    with open("told", "a") as file:
        file.write(f"{word} {os.getpid()}\\n")

asked = []
signal.signal(signal.SIGTERM, lambda *a: (asked.append(1), note("TERM")))
note("began")
open("up", "w").close()
while True:
    time.sleep(0.01)
    if asked and os.path.exists("done"):
        note("ended")
        print("last words", flush=True)
        sys.exit(0)
"""
PYTHON = sys.executable


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "told").touch()
    return tmp_path


def shell(line: str, *keys: str) -> str:
    keys = ('ready = "after:0s"', *keys)
    command = f"""command = ["sh", "-c", '''{line}''']"""
    return "\n".join(["[programs.work]", command, *keys, ""])


def told(place: Path) -> list[str]:
    """Return the words that were noted."""
    return [line.split()[0] for line in (place / "told").read_text().splitlines()]


def living(place: Path) -> list[int]:
    """Return the pids that were noted and still run."""
    noted = {int(line.split()[1]) for line in (place / "told").read_text().splitlines()}
    return [pid for pid in noted if _runs(pid)]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def began(run: Running, place: Path, times: int = 1) -> None:
    run.wait_for(lambda: told(place).count("began") == times)


@pytest.mark.parametrize("line", [f"{PYTHON} worker.py; true", f"{PYTHON} worker.py & wait"])
def test_the_program_behind_a_shell_is_told_once_and_gets_its_time(place: Path, line: str) -> None:
    with running(place, shell(line, "stop_timeout = 20")) as run:
        began(run, place)
        run.send(signal.SIGTERM)
        run.wait_for_output("1 process that it had started still run")
        wait_for(lambda: told(place) == ["began", "TERM"])
        (place / "done").touch()
        assert run.wait() == 0
        assert told(place) == ["began", "TERM", "ended"]
        assert "work.0 | last words" in run.output()


def test_a_signal_to_the_group_reaches_each_process_once(place: Path) -> None:
    config = shell(f"{PYTHON} worker.py; true", 'stop_signal_to = "group"', "stop_timeout = 20")
    with running(place, config) as run:
        began(run, place)
        (place / "done").touch()
        assert run.stop() == 0
        assert told(place) == ["began", "TERM", "ended"]


@pytest.mark.thorough
def test_what_a_wrapper_told_itself_is_not_told_again_at_once(place: Path) -> None:
    line = f"trap 'kill $!; exit 0' TERM; {PYTHON} worker.py & wait"
    with running(place, shell(line, "stop_timeout = 20")) as run:
        began(run, place)
        run.send(signal.SIGTERM)
        run.wait_for_output("ended, exit code 0; 1 process")
        wait_for(lambda: "TERM" in told(place))
        (place / "done").touch()
        assert run.wait() == 0
        assert told(place) == ["began", "TERM", "ended"]


@pytest.mark.thorough
def test_a_wrapper_that_tells_nobody(place: Path) -> None:
    line = f"trap 'exit 0' TERM; {PYTHON} worker.py & wait"
    with running(place, shell(line, "stop_timeout = 2")) as run:
        began(run, place)
        (place / "done").touch()
        assert run.stop() == 0
        assert told(place) == ["began", "TERM", "ended"]


def test_what_does_not_end_is_killed_when_time_is_up(place: Path) -> None:
    with running(place, shell(f"{PYTHON} worker.py; true", "stop_timeout = 1")) as run:
        began(run, place)
        assert run.stop() == 0
        assert told(place) == ["began", "TERM"]
        assert not living(place)


@pytest.mark.thorough
def test_a_pool_has_its_own_time_at_the_stop_of_the_site(place: Path) -> None:
    """However short [rollout] stop_timeout is, and the pools that stop after it have theirs."""
    config = shell(f"{PYTHON} worker.py; true", "stop_timeout = 20")
    config += '[workers.first]\ncommand = ["sh", "-c", "trap \'sleep 2; exit 0\' TERM; while :; do sleep 0.1; done"]\n'
    config += 'ready = "after:0s"\nstop_timeout = 20\n\n[rollout]\nstop_timeout = 1\nsettle = 0\n'
    with running(place, config) as run:
        began(run, place)
        checked = run.command("check")
        assert "programs.work.stop_timeout: (20 s) is longer than" in checked.stdout
        run.send(signal.SIGTERM)
        wait_for(lambda: told(place) == ["began", "TERM"])
        time.sleep(2)  # past the end of [rollout] stop_timeout
        (place / "done").touch()
        assert run.wait() == 0
        assert told(place) == ["began", "TERM", "ended"]
        assert "did not end in time" not in run.output()


@pytest.mark.thorough
def test_a_crash_of_the_shell_gives_the_program_its_time_before_the_next_one(place: Path) -> None:
    with running(place, shell(f"{PYTHON} worker.py; true", "stop_timeout = 20")) as run:
        began(run, place)
        run.send_to(run.pids("work")[0], signal.SIGKILL)
        wait_for(lambda: told(place) == ["began", "TERM"])
        assert run.slots()["work.0"]["state"] == "BACKOFF"
        assert len(run.slots()["work.0"]["draining"]) == 1
        (place / "done").touch()
        began(run, place, 2)
        assert told(place)[:3] == ["began", "TERM", "ended"]


# Everything that leaves its process group: how it does, and whether its mark can be read
LEAVES = {
    "session": "setsid",
    "mark": "env -i setsid",
    "group": "",
}


@pytest.mark.parametrize("how", LEAVES)
def test_three_restarts_leave_nothing(place: Path, how: str) -> None:
    (place / "done").touch()
    line = f"{LEAVES[how]} {PYTHON} worker.py & exec sleep 99"
    with running(place, shell(line, "stop_timeout = 5")) as run:
        for number in range(1, 4):
            began(run, place, number)
            run.wait_until_ready()
            assert len(living(place)) == 1
            assert run.command("restart", "work").returncode == 0
        began(run, place, 4)
        assert told(place).count("ended") == 3
        assert len(living(place)) == 1
        assert run.stop() == 0


@pytest.mark.parametrize("how", LEAVES)
@pytest.mark.thorough
def test_a_program_in_the_background_does_not_pile_up(place: Path, how: str) -> None:
    (place / "done").touch()
    line = f"rm -f up; {LEAVES[how]} {PYTHON} worker.py & while [ ! -e up ]; do sleep 0.01; done"
    with running(place, shell(line, "stop_timeout = 5")) as run:
        run.wait_for(lambda: told(place).count("began") >= 4)
        turns = [word for word in told(place) if word in ("began", "ended")]
        assert turns == ["began", "ended"] * (len(turns) // 2) + ["began"] * (len(turns) % 2)
        assert "went into the background: run it in the foreground (without &" in run.output()


def test_what_a_worker_of_the_app_started_gets_time_and_holds_up_nobody(place: Path) -> None:
    (place / "site_app.py").write_text(
        "import os, subprocess, sys\n"
        "if os.environ['CHANSUP_GENERATION'] == '1':\n"
        "    subprocess.Popen([sys.executable, 'worker.py'], start_new_session=True)\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan':\n"
        "        while True:\n"
        "            message = await receive()\n"
        "            await send({'type': message['type'] + '.complete'})\n"
    )
    config = '[app]\nasgi = "site_app:app"\n[interface]\nbind = "127.0.0.1:0"\nstop_timeout = 20\n'
    with running(place, config) as run:
        began(run, place)
        run.wait_until_ready()
        first = run.pids()[0]
        run.send_to(first, signal.SIGKILL)
        run.wait_for_successor("interface.0", first)
        began(run, place, 2)
        assert "TERM" in told(place)
        assert "ended" not in told(place)
        run.wait_until_ready()
        (place / "done").touch()
        wait_for(lambda: told(place).count("ended") == 1)
        assert run.command("reload").returncode == 0
        wait_for(lambda: not living(place))
        assert not run.slots()["interface.0"]["draining"]


def test_a_task_may_leave_something_that_is_ended(place: Path) -> None:
    (place / "done").touch()
    config = '[programs.other]\ncommand = "sleep 99"\nready = "after:0s"\nstop_timeout = 5\n'
    config += f"""
[tasks.prepare]
command = ["sh", "-c", '''setsid {PYTHON} worker.py & while [ ! -s told ]; do sleep 0.01; done''']
before = ["other"]
"""
    with running(place, config) as run:
        run.wait_until_ready()
        wait_for(lambda: told(place) == ["began", "TERM", "ended"])
        assert run.status()["tasks"][0]["state"] == "succeeded"


@pytest.mark.parametrize(
    ("argv", "advice"),
    [
        (["nginx", "-c", "x.conf"], "nginx: -g 'daemon off;'"),
        (["/usr/sbin/php-fpm8.2"], "php-fpm: --nodaemonize"),
        (["sh", "-c", "cd /srv && exec redis-server x.conf"], "redis-server: --daemonize no"),
        (["sh", "-c", "./serve 'unbalanced &"], "without &"),
        (["./serve"], "--foreground, --nodaemon or -F"),
    ],
)
def test_how_a_program_stays_in_the_foreground(argv: list[str], advice: str) -> None:
    assert advice in foreground.remedy(argv)


@pytest.mark.parametrize(
    "argv",
    [
        ["nginx", "-c", "x.conf"],
        ["env", "A=b", "/usr/sbin/php-fpm8.2"],
        ["sh", "-c", "exec redis-server --daemonize yes"],
        ["redis-server", "x.conf", "--daemonize", "yes"],
        ["celery", "multi", "start", "w1"],
        ["gunicorn", "-D", "a:b"],
        ["sh", "-c", "./serve & "],
    ],
)
def test_what_goes_into_the_background_is_known_before(argv: list[str]) -> None:
    assert "goes into the background" in (foreground.daemon(argv) or "")


@pytest.mark.parametrize(
    "argv",
    [
        ["nginx", "-g", "daemon off;"],
        ["nginx", "-g", "error_log stderr; daemon off;"],
        ["php-fpm8.2", "--nodaemonize"],
        ["redis-server", "--daemonize", "no"],
        ["apache2ctl", "-D", "FOREGROUND"],
        ["memcached", "-m", "64"],
        ["celery", "-A", "proj", "worker"],
        ["sh", "-c", "./serve & wait"],
        ["sh", "-c", "a && b"],
        ["python", "nginx.py"],
        ["./serve"],
        ["env"],
    ],
)
def test_what_stays_is_not_blamed(argv: list[str]) -> None:
    assert foreground.daemon(argv) is None


def test_a_stopped_supervisor_has_no_children_left(place: Path) -> None:
    line = f"setsid {PYTHON} worker.py & {PYTHON} worker.py & wait"
    with running(place, shell(line, "stop_timeout = 1")) as run:
        began(run, place, 2)
        assert run.stop() == 0
        assert not living(place)
        assert os.path.exists(place / "told")
