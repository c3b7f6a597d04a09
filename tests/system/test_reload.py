"""`chansup reload` is a deploy: it loses nothing, and code that does not boot never takes over."""

import json
import os
import shutil
import signal
import socket
import threading
from pathlib import Path

import pytest

from tests import fetch
from tests.running import PATIENCE, Running, running, write_app
from tests.system.conftest import DIRECT


def versions(run: Running, requests: int = 20) -> set[str]:
    return {fetch.get(run.url).text.split()[0] for _ in range(requests)}


def release(directory: Path, version: str, **code: str) -> None:
    """Write a release beside the others and point `current` to it."""
    target = directory / f"release-{version}"
    write_app(target, version, **code)
    link = directory / "current.new"
    link.symlink_to(target.name)
    link.rename(directory / "current")


RELEASES = DIRECT.replace("[app]", '[app]\ndirectory = "current"')


def test_good_code_replaces_the_old_everywhere(site: Path) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        before = run.pids()
        write_app(site, "2")
        done = run.command("reload")
        assert done.returncode == 0, done.stdout + done.stderr
        assert versions(run) == {"2"}
        assert not set(before) & set(run.pids())
        assert {slot["generation"] for slot in run.slots().values()} == {2}


BROKEN = {
    "does not import": {"before": "import no_such_module_anywhere\n"},
    "syntax error": {"before": "def broken(:\n"},
    "dies at boot": {"before": "import os, sys; print('dying words', flush=True); os._exit(3)\n"},
}


@pytest.mark.parametrize("how", BROKEN)
def test_code_that_does_not_boot_touches_nothing(site: Path, how: str) -> None:
    words = {
        "does not import": "no_such_module_anywhere",
        "syntax error": "SyntaxError",
        "dies at boot": "dying words",
    }
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        before = run.pids()
        write_app(site, "2", **BROKEN[how])
        done = run.command("reload")
        assert done.returncode == 1
        assert words[how] in done.stdout + done.stderr
        assert run.pids() == before
        assert versions(run) == {"1"}
        assert run.status()["ready"]
        rollout = run.status()["rollout"]
        assert rollout["outcome"] == "failed"
        assert rollout["message"].endswith("generation 1 still serves")


@pytest.mark.thorough
def test_code_that_is_not_ready_in_time_touches_nothing(site: Path) -> None:
    config = DIRECT.replace("settle =", "start_timeout = 1.5\nsettle =")
    with running(site, config) as run:
        run.wait_until_ready()
        before = run.pids()
        write_app(site, "2", before="import time; time.sleep(60)\n")
        done = run.command("reload")
        assert done.returncode == 1
        assert "1.5 s" in done.stdout + done.stderr
        assert "time.sleep(60)" not in done.stdout and run.pids() == before


def test_a_config_that_does_not_validate_touches_nothing(site: Path) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        before = run.pids()
        text = run.config.read_text()
        run.config.write_text(text.replace("processes", "proceses"))
        done = run.command("reload")
        assert done.returncode == 1
        assert "proceses" in done.stderr and "processes" in done.stderr
        assert run.pids() == before


@pytest.mark.thorough
def test_slots_go_back_to_the_old_release(tmp_path: Path) -> None:
    release(tmp_path, "1")
    with running(tmp_path, RELEASES) as run:
        run.wait_until_ready()
        # The first process boots, the second does not.
        once = f"import os; os.open({str(tmp_path / 'once')!r}, os.O_CREAT | os.O_EXCL)\n"
        release(tmp_path, "2", before=once)
        done = run.command("reload")
        assert done.returncode == 1
        assert "FileExistsError" in done.stdout + done.stderr
        assert versions(run) == {"1"}
        assert {slot["generation"] for slot in run.slots().values()} == {1}


@pytest.mark.thorough
def test_without_an_old_release_what_runs_stays(site: Path) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        once = f"import os; os.open({str(site / 'once')!r}, os.O_CREAT | os.O_EXCL)\n"
        write_app(site, "2", before=once)
        done = run.command("reload")
        assert done.returncode == 1
        assert sorted(slot["generation"] for slot in run.slots().values()) == [1, 2]
        assert versions(run, 40) == {"1", "2"}
        write_app(site, "3")
        assert run.command("reload").returncode == 0
        assert versions(run) == {"3"}


def test_sigterm_during_a_rollout(site: Path) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        write_app(site, "2", before="import time; time.sleep(60)\n")
        reload = Background(run, "reload")
        run.wait_for_output("rollout 2: interface.0: starting")
        assert run.stop() == 0
        assert reload.code() == 1


def test_a_second_reload_supersedes_the_first(site: Path) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        write_app(site, "2", before="import time; time.sleep(60)\n")
        first = Background(run, "reload")
        run.wait_for_output("rollout 2: interface.0: starting")
        write_app(site, "3")
        done = run.command("reload")
        assert done.returncode == 0, done.stdout + done.stderr
        assert first.code() == 1
        assert "another reload" in first.output
        assert versions(run) == {"3"}


def test_crashes_and_status_during_a_rollout(site: Path) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        # The new code waits for us; the old code must stay what it is when it comes back.
        gate = site / "gate"
        wait = f"import os, time\nwhile os.environ.get('CHANSUP_GENERATION') == '2' and not os.path.exists({str(gate)!r}): time.sleep(0.02)\n"
        write_app(site, "2", before=wait)
        reload = Background(run, "reload")
        run.wait_for_output("rollout 2: interface.0: starting")
        assert run.status()["rollout"]["outcome"] == "running"
        victim = run.slots()["interface.1"]["pid"]
        os.kill(victim, signal.SIGKILL)
        run.wait_for(lambda: run.slots()["interface.1"]["pid"] not in (None, victim))
        assert run.slots()["interface.1"]["generation"] == 1
        gate.touch()
        assert reload.code() == 0
        assert {slot["generation"] for slot in run.slots().values()} == {2}


def test_config_changes_are_part_of_a_reload(site: Path) -> None:
    sleeper = '\n[programs.{}]\ncommand = "sleep 99"\nready = "after:0s"\n'
    with running(site, DIRECT + sleeper.format("one")) as run:
        run.wait_until_ready()
        sleeping = run.pids("one")
        first = run.address
        text = run.config.read_text()
        text = text.replace("processes = 2", "processes = 3").replace(
            '"127.0.0.1:0"', '["127.0.0.1:0", "[::1]:0"]'
        )
        run.config.write_text(text.replace("[programs.one]", "[programs.two]"))
        done = run.command("reload")
        assert done.returncode == 0, done.stdout + done.stderr
        assert set(run.slots()) == {"interface.0", "interface.1", "interface.2", "two.0"}
        assert not any(Path(f"/proc/{pid}").exists() for pid in sleeping)
        addresses = run.status()["addresses"]
        assert addresses[0] == first
        for address in addresses:
            assert fetch.get(f"http://{address}").status_code == 200
        run.config.write_text(
            text.replace('"127.0.0.1:0", ', "").replace("processes = 3", "processes = 1")
        )
        assert run.command("reload").returncode == 0
        assert run.status()["addresses"] == addresses[1:]
        assert fetch.get(f"http://{addresses[1]}").status_code == 200
        host, port = first.rsplit(":", 1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)))


def test_an_address_that_cannot_be_opened_touches_nothing(site: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, running(site, DIRECT) as run:
        run.wait_until_ready()
        before = run.pids()
        port = taken.getsockname()[1]
        text = run.config.read_text()
        run.config.write_text(text.replace('"127.0.0.1:0"', f'["127.0.0.1:0", "127.0.0.1:{port}"]'))
        done = run.command("reload")
        assert done.returncode == 1
        assert f"127.0.0.1:{port}" in done.stderr + done.stdout
        assert run.pids() == before


def test_sighup_is_a_reload(site: Path) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        write_app(site, "2")
        run.send(signal.SIGHUP)
        run.wait_for_output("rollout 2: succeeded")
        assert versions(run) == {"2"}


def test_no_wait_returns_at_once(site: Path) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        write_app(site, "2")
        assert run.command("reload", "--no-wait").returncode == 0
        run.wait_for_output("rollout 2: succeeded")


def test_progress_as_json(site: Path) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        done = run.command("reload", "--json")
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert events[-1]["type"] == "result" and events[-1]["outcome"] == "succeeded"
        assert [event["slot"] for event in events if event.get("step") == "replaced"] == [
            "interface.0",
            "interface.1",
        ]


def test_a_silent_connection_lives_through_a_reload(site: Path) -> None:
    """Accepted, nothing sent yet: the request that comes at last must be answered."""
    with running(site, DIRECT.replace("keep_alive = 0.3", "keep_alive = 4")) as run:
        run.wait_until_ready()
        host, port = run.address.rsplit(":", 1)
        connections = [socket.create_connection((host, int(port))) for _ in range(6)]
        write_app(site, "2")
        reload = Background(run, "reload")
        run.wait_for_output("interface.0[")
        run.wait_for(lambda: any(slot["draining"] for slot in run.slots().values()))
        for connection in connections:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for connection in connections:
            connection.settimeout(PATIENCE)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            connection.close()
        assert reload.code() == 0


@pytest.mark.slow
@pytest.mark.thorough
def test_repeated_reloads_leak_no_descriptors(site: Path) -> None:
    config = DIRECT.replace("settle = 0.05", "settle = 0").replace("processes = 2", "processes = 1")
    with running(site, config) as run:
        run.wait_until_ready()

        def descriptors() -> list[str]:
            links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{run.pid}/fd")]
            return sorted(link.split(":")[0] for link in links)

        assert run.command("reload").returncode == 0
        before = run.wait_for(descriptors)
        for _ in range(15):
            done = run.command("reload")
            assert done.returncode == 0, done.stderr + done.stdout
        run.wait_for(lambda: descriptors() == before, f"{before} but {descriptors()}")


@pytest.mark.thorough
def test_worker_k_of_n_failing_stops_the_rollout(tmp_path: Path) -> None:
    release(tmp_path, "1")
    with running(tmp_path, RELEASES.replace("processes = 2", "processes = 4")) as run:
        run.wait_until_ready()
        counter = tmp_path / "boots"
        third = f"import os\nwith open({str(counter)!r}, 'a+') as f:\n    f.write('x'); f.flush(); f.seek(0)\n    assert len(f.read()) < 3, 'the third fails'\n"
        release(tmp_path, "2", before=third)
        done = run.command("reload")
        assert done.returncode == 1
        assert "the third fails" in done.stdout + done.stderr
        assert versions(run, 40) == {"1"}
        shutil.rmtree(tmp_path / "release-2")


@pytest.mark.thorough
def test_slots_that_a_failed_rollout_added_are_gone(tmp_path: Path) -> None:
    release(tmp_path, "1")
    with running(tmp_path, RELEASES) as run:
        run.wait_until_ready()
        release(
            tmp_path, "2", before="import os\nassert os.environ['CHANSUP_SLOT'] != 'interface.3'\n"
        )
        run.config.write_text(run.config.read_text().replace("processes = 2", "processes = 4"))
        assert run.command("reload").returncode == 1
        slots = run.slots()
        assert {name: slot["generation"] for name, slot in slots.items()} == {
            "interface.0": 1,
            "interface.1": 1,
        }
        assert versions(run, 30) == {"1"}


@pytest.mark.thorough
def test_what_an_open_socket_can_take_over(site: Path) -> None:
    with running(site, DIRECT.replace("127.0.0.1:0", "unix:web.sock")) as run:
        run.wait_until_ready()
        assert (site / "web.sock").stat().st_mode & 0o777 == 0o660
        run.config.write_text(
            run.config.read_text().replace("processes = 2", 'processes = 2\nunix_mode = "600"')
        )
        assert run.command("reload").returncode == 0
        assert (site / "web.sock").stat().st_mode & 0o777 == 0o600


@pytest.mark.thorough
def test_an_address_that_overlaps_with_a_present_one_says_what_to_do(site: Path) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        port = run.address.rsplit(":", 1)[1]
        run.config.write_text(run.config.read_text().replace("127.0.0.1:0", f"0.0.0.0:{port}"))
        done = run.command("reload")
        assert done.returncode == 1
        assert "chansup stop" in done.stdout + done.stderr
        assert fetch.get(run.url).status_code == 200


@pytest.mark.thorough
def test_a_program_can_become_a_worker(site: Path) -> None:
    with running(site, DIRECT + '\n[programs.moves]\ncommand = "sleep 99"\n') as run:
        run.wait_until_ready()
        run.config.write_text(run.config.read_text().replace("programs.moves", "workers.moves"))
        assert run.command("reload").returncode == 0
        kinds = {pool["name"]: pool["kind"] for pool in run.status()["pools"]}
        assert kinds["moves"] == "workers"


class Background:
    """A command that runs while the test does something else."""

    def __init__(self, run: Running, *arguments: str) -> None:
        self._result: list[int] = []
        self.output = ""
        self._thread = threading.Thread(target=self._run, args=(run, arguments))
        self._thread.start()

    def _run(self, run: Running, arguments: tuple[str, ...]) -> None:
        done = run.command(*arguments, timeout=60)
        self.output = done.stdout + done.stderr
        self._result.append(done.returncode)

    def code(self) -> int:
        self._thread.join(60)
        return self._result[0]


@pytest.mark.thorough
def test_a_kept_program_belongs_to_no_release(tmp_path: Path) -> None:
    release(tmp_path, "1")
    with running(tmp_path, RELEASES + '\n[programs.kept]\ncommand = "sleep 98"\n') as run:
        run.wait_until_ready()
        before = run.slots()["kept.0"]["pid"]
        release(tmp_path, "2")
        assert run.command("reload").returncode == 0
        assert run.slots()["kept.0"]["pid"] == before
        assert versions(run) == {"2"}
