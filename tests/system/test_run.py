"""`chansup run` starts everything, keeps it up, and takes everything down again."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests import fetch
from tests.running import command, running, survivors, wait_for, write_app
from tests.system.conftest import DIRECT


def listening_ports() -> list[str]:
    """Return the port of each TCP listener of this machine; see proc(5)."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [str(int(row[1].split(":")[1], 16)) for row in rows if row[3] == "0A"]


def test_serves_and_stops_with_exit_code_0(site: Path) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        assert fetch.get(run.url).text.startswith("1 ")
        assert run.stop() == 0


def test_every_slot_gets_connections(site: Path) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        answered = {fetch.get(run.url).text.split()[1] for _ in range(40)}
        assert answered == {str(pid) for pid in run.pids()}


def test_several_addresses_at_once(site: Path) -> None:
    config = DIRECT.replace('"127.0.0.1:0"', '["127.0.0.1:0", "[::1]:0", "unix:web.sock"]')
    with running(site, config) as run:
        run.wait_until_ready()
        addresses = run.status()["addresses"]
        assert len(addresses) == 3
        for address in addresses[:2]:
            assert fetch.get(f"http://{address}").status_code == 200
        transport = httpx.HTTPTransport(uds=str(site / "web.sock"))
        assert httpx.Client(transport=transport).get("http://site").status_code == 200
        assert run.stop() == 0
        assert not (site / "web.sock").exists()


def test_a_killed_process_is_replaced(site: Path) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        victim, other = run.pids()
        os.kill(victim, signal.SIGKILL)
        run.wait_for(lambda: victim not in run.pids() and all(run.pids()))
        run.wait_until_ready()
        slot = run.slots()["interface.0"]
        assert slot["restarts"] == {"crash": 1}
        assert slot["last_exit"] == "killed by SIGKILL"
        assert other in run.pids()


@pytest.mark.thorough
def test_a_pool_that_cannot_boot_is_retried_with_growing_pauses(site: Path) -> None:
    write_app(site, before="raise RuntimeError('no luck')\n")
    with running(site, DIRECT) as run:
        run.wait_for(lambda: run.slots()["interface.0"]["restarts"].get("boot", 0) >= 4)
        slot = run.slots()["interface.0"]
        assert any("no luck" in line for line in slot["output"])
        assert slot["state"] in ("BACKOFF", "STARTING")
        assert not run.status()["ready"]
        assert "interface: 0 of 2 processes ready" in run.status()["reasons"]
        write_app(site)
        run.wait_until_ready()
        assert run.stop() == 0


@pytest.mark.thorough
def test_too_many_restarts_end_the_supervisor_if_so_configured(site: Path) -> None:
    write_app(site, before="raise RuntimeError('no luck')\n")
    limits = 'max_restarts = 3\non_max_restarts = "exit"\n'
    config = DIRECT.replace("processes = 2\n", "processes = 1\n" + limits)
    with running(site, config) as run:
        assert run.wait() == 5
        assert "more than max_restarts = 3" in run.output()


def test_children_end_with_a_killed_supervisor_and_the_port_is_free(site: Path) -> None:
    forks = [
        sys.executable,
        "-c",
        "import os, time; os.setsid() if not os.fork() else 0; time.sleep(99)",
    ]
    config = DIRECT + f"\n[programs.forks]\ncommand = {forks!r}\n"
    with running(site, config) as run:
        run.wait_until_ready()
        port = run.address.rsplit(":", 1)[1]
        children = psutil.Process(run.pid).children(recursive=True)
        assert len(children) >= 4
        run.send(signal.SIGKILL)
        run.wait()
        left = survivors({"CHANSUP_TEST": str(run.config)}, patience=3.0)
        assert left == []
        # The kernel may need a moment more. Not a bind: it may meet a client of somebody else.
        wait_for(lambda: port not in listening_ports(), "a free port")


def test_grandchildren_do_not_survive_a_stop(site: Path) -> None:
    forks = [
        sys.executable,
        "-c",
        "import os, time; os.setsid() if not os.fork() else 0; time.sleep(99)",
    ]
    config = DIRECT + f"\n[programs.forks]\ncommand = {forks!r}\n"
    with running(site, config) as run:
        run.wait_until_ready()
        assert run.stop() == 0
        assert survivors({"CHANSUP_TEST": str(run.config)}, patience=0.5) == []


@pytest.mark.thorough
def test_a_child_that_ignores_sigterm_is_killed_in_time(site: Path) -> None:
    deaf = [
        sys.executable,
        "-c",
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(99)",
    ]
    config = DIRECT.replace("stop_timeout = 10", "stop_timeout = 2")
    config += f"\n[programs.deaf]\ncommand = {deaf!r}\n"
    with running(site, config) as run:
        run.wait_for_output("| deaf")
        run.wait_until_ready()
        assert run.stop() == 0
        assert "killing it" in run.output()


def test_a_second_signal_hurries(site: Path) -> None:
    deaf = [
        sys.executable,
        "-c",
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(99)",
    ]
    config = DIRECT.replace("stop_timeout = 10", "stop_timeout = 100")
    config += f"\n[programs.deaf]\ncommand = {deaf!r}\n"
    with running(site, config) as run:
        run.wait_for_output("| deaf")
        run.send(signal.SIGTERM)
        run.wait_for_output("SIGTERM: stopping")
        run.send(signal.SIGINT)
        assert run.wait(timeout=20) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_do_not_disturb_the_end(site: Path, number: signal.Signals) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        run.send(signal.SIGTERM)
        run.wait_for_output("SIGTERM: stopping")
        while run.process.poll() is None:
            run.send(number)
            time.sleep(0.001)  # a flood overruns the pipe that tells asyncio of signals
        assert run.process.returncode == 0
        assert "Traceback" not in run.output()
        assert not list((site / "run").glob("*"))


def test_two_supervisors_on_one_config(site: Path) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        second = run.command("run")
        assert second.returncode == 4
        assert str(run.pid) in second.stderr
        assert fetch.get(run.url).status_code == 200


def test_port_in_use(site: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running(site, DIRECT.replace(":0", f":{port}")) as run:
            assert run.wait() == 1
            assert f"127.0.0.1:{port}" in run.output()
            assert "Traceback" not in run.output()
            assert str(os.getpid()) in run.output()


def test_unwritable_runtime_directory(site: Path) -> None:
    (site / "file").write_text("")
    config = DIRECT + '\n[supervisor]\nruntime_directory = "file/x"\n'
    with running(site, config) as run:
        assert run.wait() == 1
        assert "runtime_directory" in run.output()
        assert "Traceback" not in run.output()


def test_commands_without_a_supervisor_exit_with_3(site: Path) -> None:
    (site / "chansup.toml").write_text(DIRECT)
    for arguments in (["status"], ["reload"], ["stop"], ["logs"], ["restart"], ["scale", "web=2"]):
        done = command(*arguments, "-c", str(site / "chansup.toml"))
        assert done.returncode == 3, arguments
        assert "chansup.toml" in done.stderr


@pytest.mark.parametrize("what", ["config", "env file", "option file"])
def test_a_named_pipe_where_a_file_belongs_blocks_no_command(site: Path, what: str) -> None:
    path = site / "chansup.toml"
    if what == "config":
        os.mkfifo(path)
    else:
        os.mkfifo(site / "pipe")
        app = '[app]\nasgi = "site_app:app"\n'
        rest = '[interface]\nbind = "127.0.0.1:0"\n[admin]\nbind = ""\n'
        if what == "env file":
            path.write_text(f'{app}env_file = "pipe"\n{rest}')
        else:
            path.write_text(f'{app}{rest}[interface.options]\nlog_config = "pipe"\n')
    for name in ("check", "run"):
        done = command(name, "-c", str(path))
        assert done.returncode == 1
        assert (done.stdout + done.stderr).count("is a named pipe, not a file") == 1
    assert command("status", "-c", str(path)).returncode == 3


def test_a_full_disk_as_stdout_harms_nobody(site: Path) -> None:
    with open("/dev/full", "wb") as full, running(site, DIRECT, stdout=full) as run:
        run.wait_until_ready()
        assert fetch.get(run.url).status_code == 200
        assert run.status()["log_lines_dropped"] > 0
        assert run.stop() == 0


def test_secrets_of_the_environment_show_nowhere(site: Path) -> None:
    config = DIRECT.replace("[interface]", 'environment = { TOKEN = "s3cr3t-one" }\n[interface]')
    config += '\n[admin]\nbind = "127.0.0.1:0"\n'
    config += '\n[programs.knows]\ncommand = ["sh", "-c", "exec sleep 99", "${PASSWORD}"]\n[programs.lacks]\ncommand = "no-such-${PASSWORD} x"\n'
    with running(site, config, environ={"PASSWORD": "s3cr3t-two"}) as run:
        run.wait_for(lambda: run.slots()["lacks.0"]["output"])
        run.wait_for(lambda: run.slots()["interface.0"]["state"] == "READY")
        admin = run.status()["admin"]
        pages = [fetch.get(f"http://{admin}{path}").text for path in ("/", "/healthz", "/metrics")]
        shown = "".join(pages) + run.command("status", "--json").stdout + run.output()
        assert "s3cr3t" not in shown


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_children_run_as_the_configured_user(site: Path) -> None:
    program = ["sh", "-c", "echo ids $(id -u) $(id -g) $(id -G) $(umask); exec sleep 99"]
    config = f'[programs.plain]\ncommand = {program!r}\nuser = "nobody"\ngroup = "nogroup"\numask = "027"\n'
    os.chmod(site, 0o755)
    with running(site, config) as run:
        run.wait_for_output("ids 65534 65534 65534 0027")


def test_as_pid_1_it_reaps_strangers(site: Path) -> None:
    probe = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True
    )
    if probe.returncode:
        pytest.skip("this machine gives no PID namespace")
    orphans = "for i in 1 2 3 4 5; do (sleep 0.01 &) ; done; while true; do sleep 1; done"
    (site / "chansup.toml").write_text(
        f'[programs.orphans]\ncommand = ["sh", "-c", "{orphans}"]\n'
        f'[admin]\nbind = ""\n[supervisor]\nruntime_directory = "{site}/.chansup"\n'
    )
    process = subprocess.Popen(
        [
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            sys.executable,
            "-m",
            "chansup",
            "run",
            "-c",
            str(site / "chansup.toml"),
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: command("status", "-c", str(site / "chansup.toml")).returncode == 0)
        supervisor = psutil.Process(process.pid).children()[0]

        def zombies() -> list[psutil.Process]:
            return [
                child for child in supervisor.children() if child.status() == psutil.STATUS_ZOMBIE
            ]

        wait_for(lambda: len(supervisor.children()) == 2 and not zombies())
        supervisor.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


STEPPING_CLOCK = """
import sys, time
real = time.time
time.time = lambda: real() + float(open('clock').read())
from chansup.cli.main import main
main(sys.argv[1:])
"""


def set_clock(site: Path, seconds: str) -> None:
    """Step the clock at once: who reads the file never finds it half written."""
    (site / "clock.new").write_text(seconds)
    (site / "clock.new").replace(site / "clock")


@pytest.mark.thorough
def test_a_clock_that_steps_harms_nothing(site: Path) -> None:
    """The clock itself is the one thing here that a test cannot have for real."""
    set_clock(site, "0")
    program = ("-c", f"import os; os.chdir({str(site)!r})\n{STEPPING_CLOCK}")
    with running(site, DIRECT, program=program) as run:
        run.wait_until_ready()
        for step in ("-7200", "90000"):
            victim = run.pids()[0]
            os.kill(victim, signal.SIGKILL)
            set_clock(site, step)
            run.wait_for_successor("interface.0", victim)
            run.wait_until_ready()
        write_app(site, "2")
        assert run.command("reload").returncode == 0
        assert run.stop() == 0


@pytest.mark.thorough
def test_a_large_pool_of_workers_opens_no_listeners(site: Path) -> None:
    config = DIRECT.replace("processes = 2", "processes = 1")
    config += '\n[workers.many]\ncommand = "sleep 99"\nready = "after:0s"\nprocesses = 6\nafter = ["interface"]\n'
    with running(site, config) as run:
        run.wait_until_ready()
        port = int(run.address.rsplit(":", 1)[1])
        assert listening_ports().count(str(port)) == 1
        assert run.command("scale", "many=5000").returncode == 1


@pytest.mark.thorough
def test_a_small_limit_of_descriptors_is_told_in_one_line(site: Path) -> None:
    (site / "chansup.toml").write_text(
        DIRECT + f'\n[supervisor]\nruntime_directory = "{site}/.chansup"\n'
    )
    shell = f'ulimit -n 9; exec "{sys.executable}" -m chansup run -c "{site}/chansup.toml"'
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert "ulimit -n" in done.stderr + done.stdout
