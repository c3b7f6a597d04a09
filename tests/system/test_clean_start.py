"""What whoever started chansup leaves in a process: signals, descriptors, a terminal, a locale."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from chansup.entry import command
from chansup.supervisor.pool.liveness import TICK
from tests import fetch
from tests.running import Running, running, wait_for

SLEEPS = '\n[programs.sleeps]\ncommand = "sleep 99"\nready = "after:0s"\n'
EXEC = "import os, sys; os.execv(sys.executable, [sys.executable, '-m', 'chansup', *sys.argv[1:]])"


def started_by(code: str) -> tuple[str, ...]:
    """Return how a Python program starts chansup that does `code` first."""
    return "-c", f"import os, signal, sys, time\n{code}\n{EXEC}"


def program_of(run: Running) -> int:
    """Return the pid of the program, once it runs."""
    pid = run.pids("sleeps")[0]
    wait_for(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
    return pid


def signals_of(pid: int) -> dict[str, int]:
    """Return which signals a process ignores, blocks and catches, as bits.

    Signals 32 and 33 are left out: the C library keeps them, and nobody else can reset them.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    pairs = (line.split(":\t") for line in lines if line.startswith("Sig"))
    own = 0b11 << 31
    return {name: int(value, 16) & ~own for name, value in pairs if name != "SigQ"}


def test_signals_without_a_meaning_do_nothing_but_say_so(tmp_path: Path) -> None:
    with running(tmp_path, SLEEPS) as run:
        run.wait_until_ready()
        meaningless = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM]
        meaningless += [signal.SIGPROF, signal.SIGIO, signal.SIGRTMIN, signal.SIGRTMAX]
        for number in meaningless:
            run.send(number)
            run.wait_for_output(f"(sent by process {os.getpid()}, ")
        run.wait_for_output("SIGUSR1: chansup does nothing on this signal")
        run.wait_for_output("it has no log file to reopen")
        run.wait_for_output("SIGRTMAX: chansup does nothing")
        assert run.status()["ready"]
        assert run.slots()["sleeps.0"]["restarts"] == {}
        run.send(signal.SIGQUIT)
        assert run.wait() == 0
        assert "SIGQUIT" in run.output() and "stopped" in run.output()


def test_signals_that_come_while_it_imports_wait_for_it(tmp_path: Path) -> None:
    early = (
        "-c",
        (
            "import os, runpy, signal, sys\n"
            "class Early:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name == 'click':\n"
            "            os.kill(os.getpid(), signal.SIGUSR1)\n"
            "sys.meta_path.insert(0, Early())\n"
            "runpy.run_module('chansup', run_name='__main__', alter_sys=True)\n"
        ),
    )
    with running(tmp_path, SLEEPS, program=early) as run:
        run.wait_for_output("SIGUSR1: chansup does nothing on this signal")
        run.wait_until_ready()
        assert run.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("run", "run"),
        ("-c run status", "status"),
        ("--config run status", "status"),
        ("--config=run logs run", "logs"),
        ("-crun run --watch", "run"),
        ("--help", ""),
        ("exec -- run", "exec"),
    ],
)
def test_only_run_holds_signals_back(arguments: str, expected: str) -> None:
    assert command(arguments.split()) == expected


def test_processes_start_with_default_signals(tmp_path: Path) -> None:
    ignoring = started_by(
        "for name in 'HUP INT QUIT TERM USR1 PIPE CHLD TSTP'.split():\n"
        "    signal.signal(getattr(signal, 'SIG' + name), signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR2, signal.SIGCHLD])"
    )
    config = SLEEPS + 'stop_signal = "QUIT"\nstop_timeout = 10\n'
    with running(tmp_path, config, program=ignoring) as run:
        run.wait_until_ready()
        found = signals_of(program_of(run))
        assert found == {"SigPnd": 0, "SigBlk": 0, "SigIgn": 0, "SigCgt": 0}
        assert run.stop() == 0
        assert "still there after stop_timeout" not in run.output()


def test_closed_standard_descriptors_are_not_taken_for_others(tmp_path: Path) -> None:
    closing = started_by("os.closerange(0, 3)")
    with running(tmp_path, SLEEPS, program=closing) as run:
        run.wait_until_ready()
        for number in range(3):
            assert os.readlink(f"/proc/{run.pid}/fd/{number}") == os.devnull
        program = program_of(run)
        assert os.readlink(f"/proc/{program}/fd/0") == os.devnull
        assert os.readlink(f"/proc/{program}/fd/1").startswith("pipe:")
        assert sorted(os.listdir(f"/proc/{program}/fd")) == ["0", "1", "2"]


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C"}, {"LANG": "xx_XX.latin1"}])
@pytest.mark.thorough
def test_any_text_passes_whatever_the_locale(tmp_path: Path, locale: dict[str, str]) -> None:
    without = started_by(
        "kept = {name: os.environ[name] for name in ('CHANSUP_TEST', 'PATH')}\n"
        f"os.environ.clear(); os.environ.update(kept, **{locale!r})"
    )
    code = (
        "import os, sys, time; print(sys.argv[1], os.environ['WORD'], flush=True); time.sleep(99)"
    )
    config = (
        f'\n[programs.talks]\ncommand = ["{sys.executable}", "-c", "{code}", "größer ≥"]\n'
        'environment = { WORD = "日本" }\n'
    )
    with running(tmp_path, config, program=without) as run:
        run.wait_for_output("größer ≥ 日本")
        assert "größer ≥ 日本" in run.command("logs", "talks").stdout


# The terminal


class Terminal:
    """A terminal of its own for chansup, which a test can close."""

    def __init__(self) -> None:
        self.master, self._slave = os.openpty()
        self.name = os.ttyname(self._slave)

    @property
    def taken(self) -> str:
        """Code that makes it the controlling terminal of the process that runs it."""
        return f"os.setsid(); os.close(os.open({self.name!r}, os.O_RDWR))"

    def close(self) -> None:
        os.close(self._slave)
        os.close(self.master)


def test_a_closed_terminal_ends_the_run(tmp_path: Path) -> None:
    terminal = Terminal()
    with running(tmp_path, SLEEPS, program=started_by(terminal.taken)) as run:
        run.wait_until_ready()
        run.send(signal.SIGHUP)  # asked for by a person
        run.wait_for(lambda: run.status()["generation"] == 2)
        terminal.close()
        assert run.wait() == 0
        assert "the terminal was closed: stopping" in run.output()
        assert run.output().count("reloading") == 1


@pytest.mark.thorough
def test_a_run_that_ignored_hangups_outlives_its_terminal(tmp_path: Path) -> None:
    terminal = Terminal()
    as_nohup = f"{terminal.taken}; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    with running(tmp_path, SLEEPS, program=started_by(as_nohup)) as run:
        run.wait_until_ready()
        terminal.close()
        run.wait_for_output("the terminal was closed: running on")
        run.send(signal.SIGHUP)
        run.wait_for(lambda: run.status()["generation"] == 2)


SHELL = """
child = os.fork()
if child:
    while not os.path.exists("bye"):
        time.sleep(0.01)
    if os.path.exists("tells"):
        os.kill(child, signal.SIGHUP)
    os._exit(0)
os.setpgid(0, 0)  # a job in the background
"""


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.thorough
def test_a_shell_that_ends_before_its_jobs(
    tmp_path: Path, tells: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends them a SIGHUP of its own, or does not, and leaves them without a terminal."""
    monkeypatch.chdir(tmp_path)
    terminal = Terminal()
    job = started_by(f"{terminal.taken}\n{SHELL}")
    with running(tmp_path, SLEEPS, program=job) as run:
        run.wait_until_ready()
        chansup = run.status()["pid"]
        if tells:
            (tmp_path / "tells").touch()
        (tmp_path / "bye").touch()
        run.wait()  # of the shell
        if tells:
            run.wait_for_output("the terminal was closed: stopping")
        else:
            stat = Path(f"/proc/{chansup}/stat")
            wait_for(lambda: stat.read_text().rpartition(")")[2].split()[4] == "0")
            time.sleep(2 * TICK)  # it has looked again meanwhile
            os.kill(chansup, signal.SIGHUP)
            wait_for(lambda: run.status()["generation"] == 2)
            os.kill(chansup, signal.SIGTERM)
        wait_for(lambda: not Path(f"/proc/{chansup}").exists())
        assert "stopped" in run.output()
    terminal.close()


# Processes that the app forks

FORKS = """
import multiprocessing, os, signal, threading, time

child = None


def own(number, frame):
    os._exit(5)


signal.signal(signal.SIGUSR1, own)


def fork(how):
    global child
    begun = multiprocessing.get_context("fork").Event()
    work = lambda: (begun.set(), time.sleep(60))
    child = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    child.start()
    begun.wait(10)
    os.kill(child.pid, getattr(signal, how))
    child.join(10)
    return child.exitcode


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    how = scope["path"][1:]
    codes = []
    if how.startswith("thread-"):
        thread = threading.Thread(target=lambda: codes.append(fork(how[7:])))
        thread.start()
        thread.join()
    else:
        codes.append(fork(how))
    body = f"{codes[0]} {os.getpid()}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.mark.parametrize("kind", ["uvicorn", "granian", "hypercorn", "daphne", "gunicorn", "relay"])
def test_a_forked_child_has_the_default_signals(tmp_path: Path, kind: str) -> None:
    (tmp_path / "forks.py").write_text(FORKS)
    config = '[app]\nasgi = "forks:app"\n\n[interface]\nbind = "127.0.0.1:0"\n'
    config += '\n[workers.web]\nserves = ["http"]\n' if kind == "relay" else f'server = "{kind}"\n'
    with running(tmp_path, config) as run:
        run.wait_until_ready()
        pid = run.pids("web" if kind == "relay" else "interface")[0]
        expected = {"SIGTERM": -15, "thread-SIGTERM": -15, "SIGUSR1": 5, "SIGINT": 1}
        for how, code in expected.items():
            assert fetch.get(f"{run.url}/{how}").text == f"{code} {pid}", how
