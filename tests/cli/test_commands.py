import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from chansup import __version__

from .conftest import Site, command, environment, interrupt

pytestmark = pytest.mark.slow  # the interpreter makes no difference

CLIENT_COMMANDS = [
    ["status"], ["reload"], ["restart"], ["stop"], ["scale", "web=2"], ["logs"], ["logs", "-f"],
    ["status", "--json"], ["status", "--watch"], ["reload", "--no-wait"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", CLIENT_COMMANDS, ids=" ".join)
def test_when_none_runs_they_say_so(site: Site, arguments: list[str]):
    answer = site.chansup(*arguments)
    assert answer.returncode == 3
    assert answer.stdout == ""
    assert str(site.config) in answer.stderr
    assert "run`" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_a_socket_that_a_killed_supervisor_left_is_none(site: Site):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(site.socket))
    assert site.chansup("status").returncode == 3


def test_without_a_config_file(site: Site, tmp_path: Path):
    answer = site.chansup("-c", str(tmp_path / "none.toml"), "status")
    assert answer.returncode == 3
    assert "no such file" in answer.stderr
    answer = site.chansup("run", "-c", str(tmp_path / "none.toml"))
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr


def test_the_config_is_found_before_and_after_the_command_and_in_the_environment(site: Site):
    elsewhere = Path("/")
    with site.supervisor():
        for arguments in (["-c", str(site.config), "status"], ["status", "-c", str(site.config)]):
            assert site.chansup(*arguments, cwd=elsewhere).returncode == 0
        named = {"CHANSUP_CONFIG": str(site.config)}
        assert site.chansup("status", environ=named, cwd=elsewhere).returncode == 0
        assert site.chansup("status", cwd=elsewhere).returncode == 3
        other = ["-c", "/nowhere.toml", "status", "-c", str(site.config)]
        assert site.chansup(*other, cwd=elsewhere).returncode == 0


def test_the_supervisor_is_found_while_its_config_is_broken(site: Site):
    with site.supervisor():
        site.config.write_text('[supervisor]\nruntime_directory = "run"\n[[[ broken\n')
        assert site.chansup("status").returncode == 0
        site.config.write_text('[supervisor]\nruntime_directory = "run"\nnope = 1\n')
        assert site.chansup("status").returncode == 0
        site.config.write_text('[supervisor]\nruntime_directory = "${WHERE:-run}"\nnope = 1\n')
        assert site.chansup("status").returncode == 0


def test_status(site: Site):
    with site.supervisor():
        answer = site.chansup("status")
        assert answer.returncode == 0
        assert "\x1b" not in answer.stdout
        assert not re.search(r"[^\x00-\x7f]", answer.stdout)
        for expected in (
            r"chansup running, not ready +generation 3 +up 2d 4h",
            r"interface +2/2 ready",
            r"interface\.0 +ready +\d+ +3 +2h 3m +1 +3 +1204 +killed by SIGKILL",
            r"replaced +draining +4242",
            r"thumbnails\.0 +backoff, retry in \ds",
            r"ModuleNotFoundError: No module named 'nothere'",
            r"rollout to generation 4: running, 1 of 5 replaced",
            r"task migrate +succeeded",
            r"queue +thumbnails: 7 waiting for a worker; of 1234 .* 95 % waited at most 2\.5 ms",
        ):
            assert re.search(expected, answer.stdout), expected
        document = json.loads(site.chansup("status", "--json").stdout)
        assert document["pools"][1]["slots"][0]["state"] == "BACKOFF"


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 100, 140])
def test_status_fits_the_terminal(site: Site, columns: int):
    with site.supervisor():
        code, shown = site.on_terminal("status", columns=columns)
    assert code == 0
    assert "\x1b[" in shown  # colours
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert max(map(len, text.split("\r\n"))) <= columns
    assert "interface.0" in text
    assert "\x1b[31mmodels" not in shown  # a process cannot colour our table


def test_watching_goes_on_until_interrupted(site: Site):
    with site.supervisor():
        process = site.started("status", "--watch", "--json")
        assert process.stdout is not None
        for _ in range(2):
            assert json.loads(process.stdout.readline())["generation"] == 3
        interrupt(process)
        assert process.wait(10) == 130
        assert "Traceback" not in process.communicate()[1]


def test_reload_shows_its_progress(site: Site):
    with site.supervisor():
        answer = site.chansup("reload")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.splitlines() == [
        "[0/2] Checked the config",
        "[1/2] interface.0 is ready",
        "[2/2] interface.1 is ready",
        "Generation 4 runs.",
    ]


def test_reload_shows_a_bar_on_a_terminal(site: Site):
    with site.supervisor():
        code, shown = site.on_terminal("reload")
    assert code == 0
    assert "2/2" in shown
    assert "Generation 4 runs." in shown


def test_reload_of_broken_code(site: Site):
    with site.supervisor("broken"):
        answer = site.chansup("reload")
        assert answer.returncode == 1
        assert "ModuleNotFoundError: No module named 'nothere'" in answer.stderr
        assert "Generation 3 still serves." in answer.stderr
        code, shown = site.on_terminal("reload")
        assert code == 1
        assert "ModuleNotFoundError" in shown
        answer = site.chansup("reload", "--json")
        assert answer.returncode == 1
        last = json.loads(answer.stdout.splitlines()[-1])
        assert (last["type"], last["exit_code"]) == ("result", 1)


def test_reload_without_waiting(site: Site):
    with site.supervisor("held") as supervisor:
        answer = site.chansup("reload", "--no-wait")
        assert answer.returncode == 0
        assert "status --watch" in answer.stdout
        supervisor.terminate()
        assert supervisor.communicate()[0] == '["reload"]\n'


def test_an_interrupted_reload_says_that_it_goes_on(site: Site):
    with site.supervisor("held"):
        process = site.started("reload")
        assert process.stdout is not None
        assert "Checked" in process.stdout.readline()
        interrupt(process)
        assert process.wait(10) == 130
        error = process.communicate()[1]
        assert "continues" in error
        assert "status --watch" in error
        assert "Traceback" not in error


def test_a_command_whose_supervisor_dies_fails(site: Site):
    with site.supervisor("dies"):
        answer = site.chansup("reload")
        assert answer.returncode == 1
        assert "ended before the command was done" in answer.stderr
    with site.supervisor("held") as supervisor:
        process = site.started("reload")
        assert process.stdout is not None
        assert "Checked" in process.stdout.readline()
        supervisor.kill()
        assert process.wait(10) == 1
        error = process.communicate()[1]
        assert "Traceback" not in error
        assert "broke" in error or "ended" in error


def test_stop_waits_for_the_end_of_the_supervisor(site: Site):
    with site.supervisor() as supervisor:
        answer = site.chansup("stop")
        assert answer.returncode == 0
        # A zombie at most: whoever starts the next one finds the socket and the lock free.
        assert Path(f"/proc/{supervisor.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    assert site.chansup("stop").returncode == 3


def test_stop_of_a_supervisor_that_ends_without_a_word(site: Site):
    with site.supervisor("held") as supervisor:
        process = site.started("stop")
        assert process.stdout is not None
        assert "Checked" in process.stdout.readline()
        supervisor.kill()
        assert process.wait(15) == 0
        assert "has ended" in process.communicate()[0]


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        (["restart"], '["restart",null]'),
        (["restart", "interface"], '["restart","interface"]'),
        (["scale", "interface=4"], '["scale","interface",4]'),
        (["scale", "interface=0", "--no-wait"], '["scale","interface",0]'),
    ],
)
def test_commands_reach_the_supervisor(site: Site, arguments: list[str], call: str):
    with site.supervisor() as supervisor:
        assert site.chansup(*arguments).returncode == 0
        supervisor.terminate()
        assert supervisor.communicate()[0] == f"{call}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["restart", "nope"], 1, "unknown pool or slot 'nope'"),
        (["logs", "nope"], 1, "unknown pool or slot 'nope'"),
        (["logs", "-f", "nope"], 1, "unknown pool or slot 'nope'"),
        (["scale", "web"], 2, "POOL=N"),
        (["scale", "web=-1"], 2, "POOL=N"),
        (["scale", "web=two"], 2, "POOL=N"),
        (["scale", "=2"], 2, "POOL=N"),
        (["scale"], 2, "POOL=N"),
        (["logs", "-n", "-1"], 2, "-1"),
        (["nope"], 2, "nope"),
        (["status", "--nope"], 2, "--nope"),
        (["-c"], 2, "-c"),
    ],
)
def test_mistakes_are_explained(site: Site, arguments: list[str], code: int, said: str):
    with site.supervisor():
        answer = site.chansup(*arguments)
    assert answer.returncode == code
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


def test_logs(site: Site):
    with site.supervisor():
        lines = site.chansup("logs", "-n", "2").stdout.splitlines()
        assert [line.split(" ", 1)[1] for line in lines] == [
            "interface.0[11] line 3", "interface.0[11] line 4",
        ]  # fmt: skip
        lines = site.chansup("logs", "--json").stdout.splitlines()
        assert [json.loads(line)["text"] for line in lines] == [f"line {n}" for n in range(5)]
        code, shown = site.on_terminal("logs", "-n", "1")
        assert code == 0
        assert "\x1b[" in shown
        assert "line 4" in shown


def test_a_reader_that_leaves_is_no_error(site: Site):
    with site.supervisor("flood"):
        for output in ("logs -n 20000", "logs -f -n 20000", "logs -n 20000 --json"):
            script = f"{' '.join(command())} {output} | head -n 1"
            answer = subprocess.run(
                ["bash", "-c", f'{script}; echo "${{PIPESTATUS[0]}}"'], cwd=site.directory,
                env=environment(), capture_output=True, text=True, timeout=30,
            )  # fmt: skip
            assert answer.stderr == ""
            assert answer.stdout.splitlines()[-1] == "141"


def test_version(site: Site):
    assert site.chansup("--version").stdout == f"chansup {__version__}\n"
    assert __version__ in site.chansup("version").stdout
    assert "supervisor" not in site.chansup("version").stdout
    with site.supervisor() as supervisor:
        assert f"(pid {supervisor.pid})" in site.chansup("version").stdout
        document = json.loads(site.chansup("version", "--json").stdout)
        assert document["supervisor"]["pid"] == supervisor.pid


def test_the_socket_of_a_stranger_is_not_trusted():
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        path = f"{directory}/control.sock"
        listen = [sys.executable, "-c", LISTEN, path]
        stranger = subprocess.Popen(listen, stdout=subprocess.PIPE, text=True)
        try:
            assert stranger.stdout is not None
            assert stranger.stdout.readline() == "ready\n"
            ask = [sys.executable, "-c", ASK, path]
            answer = subprocess.run(
                ask, capture_output=True, text=True, timeout=20, env=environment()
            )
        finally:
            stranger.kill()
            stranger.communicate()
        assert "belongs to" in answer.stdout
        assert "not to you" in answer.stdout


ASK = """
import sys; from pathlib import Path
from chansup.cli.client import Client, NotAnsweringError
try: Client(Path(sys.argv[1]), Path("chansup.toml")).status()
except NotAnsweringError as error: print(error)
"""
LISTEN = """
import os, socket, sys, time
os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); os.chmod(sys.argv[1], 0o777); s.listen()
print("ready", flush=True); time.sleep(60)
"""


@pytest.mark.thorough
def test_a_supervisor_that_is_frozen_is_not_waited_for_for_ever(site: Site):
    with site.supervisor() as supervisor:
        supervisor.send_signal(signal.SIGSTOP)
        try:
            begun = time.monotonic()
            answer = site.chansup("status")
            assert answer.returncode == 1
            assert "does not answer" in answer.stderr
            assert time.monotonic() - begun < 15
        finally:
            supervisor.send_signal(signal.SIGCONT)


@pytest.mark.thorough
def test_something_else_behind_the_socket(site: Site):
    def answer_with(listener: socket.socket, data: bytes) -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(data)
        connection.close()

    for data in (
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}",
        b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"version": 1}',
        b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\noh!",
        b'HTTP/1.1 400 Oh\r\nContent-Length: 13\r\n\r\n{"error": []}',
    ):
        site.socket.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(site.socket))
            listener.listen()
            thread = threading.Thread(target=answer_with, args=(listener, data))
            thread.start()
            answer = site.chansup("status")
            thread.join()
        assert answer.returncode == 1, data
        assert "Traceback" not in answer.stderr
        assert answer.stderr.startswith("chansup: ")


def test_check_names_every_problem(site: Site):
    site.config.write_text(
        '[app]\nasgi = "app:app"\n[interface]\nbnd = "x"\nprocesses = -1\n[nope]\n'
    )
    answer = site.chansup("check")
    assert answer.returncode == 1
    lines = answer.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines[:3]] == [
        f"{site.config}:{line}" for line in (4, 5, 6)
    ]
    document = json.loads(site.chansup("check", "--json").stdout)
    assert [problem["line"] for problem in document["problems"][:3]] == [4, 5, 6]


def test_run_of_a_bad_config(site: Site):
    site.config.write_text('[interface]\nbnd = "x"\n')
    answer = site.chansup("run")
    assert answer.returncode == 1
    assert f"{site.config}:2: interface.bnd" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_init_and_check(site: Site):
    site.config.unlink()
    (site.directory / "app.py").write_text("async def app(scope, receive, send): ...\n")
    answer = site.chansup("init", "--stdout")
    assert (answer.returncode, site.config.exists()) == (0, False)
    assert "app:app" in answer.stdout
    assert site.chansup("init").returncode == 0
    assert site.config.read_text() == answer.stdout
    again = site.chansup("init")
    assert again.returncode == 1
    assert "--force" in again.stderr
    assert site.chansup("init", "--force").returncode == 0


def test_completion_offers_pools_and_slots(site: Site):
    complete = {"_CHANSUP_COMPLETE": "bash_complete", "COMP_WORDS": "chansup restart th", "COMP_CWORD": "2"}  # fmt: skip
    with site.supervisor():
        answer = site.chansup(environ=complete)
    assert answer.stdout.split() == ["plain,thumbnails", "plain,thumbnails.0", "plain,thumbnails.1"]
    assert site.chansup(environ=complete).stdout.strip() == ""


SLOW_TO_LOAD = {
    "asyncio",
    "httptools",
    "prometheus_client",
    "psutil",
    "uvicorn",
    "uvloop",
    "websockets",
}


def test_status_loads_little(site: Site):
    """How quick it is, benchmarks/cost.py measures; what would make it slow is held here."""
    script = (
        "import sys\n"
        "from chansup.cli.main import main\n"
        "try: main(['status'])\n"
        "except SystemExit as end: assert not end.code\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    with site.supervisor():
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=site.directory, env=environment(),
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "chansup" in loaded
    assert not loaded & SLOW_TO_LOAD


def test_nothing_heavy_is_imported_to_run_or_to_ask():
    script = (
        "import sys; import chansup.cli.main, chansup.cli.client, chansup.supervisor.api.control, "
        "chansup.supervisor.api.admin\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'rich', 'psutil', 'prometheus_client', 'uvloop', 'httptools', 'websockets'}))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment()
    )
    assert answer.stdout == "[]\n", answer.stderr
    script = script.replace(", chansup.supervisor.api.control, chansup.supervisor.api.admin", "")
    script = script.replace("'rich'", "'asyncio', 'uvicorn', 'rich'")
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment()
    )
    assert answer.stdout == "[]\n", answer.stderr
