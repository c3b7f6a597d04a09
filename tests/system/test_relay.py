"""Relay mode from outside: what is replaced, what stays, and that nobody notices."""

import os
import signal
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests import fetch
from tests.kit import everybody
from tests.load import FreshConnections, KeepAlive, WebSockets, in_background
from tests.running import Running, running, write_app
from tests.system.conftest import DIRECT

WEB = """
[workers.web]
serves = ["http", "websocket"]
processes = 2
"""
RELAY = DIRECT + WEB


def rewrite(run: Running, old: str, new: str) -> None:
    text = run.config.read_text()
    assert old in text
    run.config.write_text(text.replace(old, new))


def reload(run: Running, code: int = 0) -> str:
    done = run.command("reload", timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def answering(run: Running, requests: int = 20) -> set[int]:
    """Return the pids of those that answer, each request on a connection of its own."""
    with httpx.Client(limits=httpx.Limits(max_keepalive_connections=0)) as client:
        return {int(client.get(run.url).text.split()[1]) for _ in range(requests)}


def queue(run: Running) -> dict[str, float]:
    found: dict[str, float] = run.status()["pools"][0]["queue"]
    return found


def sockets(site: Path) -> list[Path]:
    return sorted((site / ".chansup").glob("w*.sock"))


@contextmanager
def unnoticed(run: Running, websockets: int = 10, kills: int = 0) -> Iterator[WebSockets]:
    """Run a load of which nothing may fail; the WebSockets are for the test to look at.

    Each kill may cost each WebSocket the message in hand, so that another echo comes first.
    """
    address = run.address
    fresh, kept = FreshConnections(address, 50), KeepAlive(address, 8)
    open_ones = WebSockets(address, websockets)
    with in_background(fresh, kept, open_ones):
        yield open_ones
        run.wait_for(lambda: min(fresh.result.succeeded, kept.result.succeeded) > 20, "requests")
    for load in (fresh, kept):
        assert not load.result.failures, load.result.summary()
        assert not load.result.cut_while_idle, load.result.summary()
    assert open_ones.result.disordered <= kills * websockets, open_ones.result.summary()


def test_app_workers_answer_and_everything_goes_at_the_end(site: Path) -> None:
    with running(site, RELAY) as run:
        run.wait_until_ready()
        assert answering(run) == set(run.pids("web"))
        assert [stat.S_IMODE(path.stat().st_mode) for path in sockets(site)] == [0o600, 0o600]
        status = run.status()
        assert {pool["name"]: pool["command"] for pool in status["pools"]} == {
            "web": "relay site_app:app",
            "interface": "uvicorn relay",
        }
        assert {pool["name"]: pool["queue"] is not None for pool in status["pools"]} == {
            "web": True,
            "interface": False,
        }
        assert run.stop() == 0
        assert not (site / ".chansup").exists()


def test_a_reload_replaces_app_workers_only_and_nobody_notices(site: Path) -> None:
    with running(site, RELAY) as run:
        run.wait_until_ready()
        interface, workers = run.pids(), run.pids("web")
        with unnoticed(run) as open_ones:
            write_app(site, "2")
            told = reload(run)
            assert "interface.0 is the same, it stays" in told
            assert "will be closed" not in told
            write_app(site, "3", before="broken = 1 / 0\n")
            assert "ZeroDivisionError" in reload(run, code=1)
        assert not open_ones.result.closes, open_ones.result.summary()
        assert run.pids() == interface
        assert not set(workers) & set(run.pids("web"))
        assert fetch.get(run.url).text.startswith("2 ")
        assert {slot["generation"] for slot in run.slots().values()} == {2}
        assert len(sockets(site)) == 2


@pytest.mark.thorough
def test_what_is_the_interfaces_own_replaces_it(site: Path) -> None:
    with running(site, RELAY) as run:
        run.wait_until_ready()
        interface = run.pids()
        rewrite(run, "processes = 2", "processes = 3")  # of both pools
        reload(run)
        assert run.pids()[:2] == interface and len(run.pids()) == 3
        with unnoticed(run):
            rewrite(run, 'bind = "127.0.0.1:0"', 'bind = "127.0.0.1:0"\nhealth_path = "/up"')
            told = reload(run)
            changes = told.index("the interface itself changes (its settings are others), so its")
            assert changes < told.index("interface.0: starting")
        assert not set(run.pids()) & set(interface)
        assert fetch.get(f"{run.url}/up").status_code == 200


@pytest.mark.thorough
def test_restart_leaves_the_interface_alone_unless_it_is_named(site: Path) -> None:
    with running(site, RELAY) as run:
        run.wait_until_ready()
        interface, workers = run.pids(), run.pids("web")
        done = run.command("restart")
        assert done.returncode == 0
        assert "2 processes were replaced; interface stayed" in done.stdout
        assert run.pids() == interface and not set(workers) & set(run.pids("web"))
        assert run.command("restart", "interface").returncode == 0
        assert not set(interface) & set(run.pids())


def test_from_direct_to_relay_and_back_loses_no_request(site: Path) -> None:
    with running(site, DIRECT) as run:
        run.wait_until_ready()
        with unnoticed(run):
            run.config.write_text(run.config.read_text() + WEB)
            told = reload(run)
            assert told.index("web: new pool") < told.index("interface.0: ")
            assert answering(run) <= set(run.pids("web"))
            rewrite(run, WEB, "")
            told = reload(run)
            assert told.index("interface.1: replaced") < told.index("web: stopping")
        assert answering(run) <= set(run.pids())
        assert sockets(site) == []


@pytest.mark.thorough
def test_a_pool_that_no_longer_serves_goes_after_the_interface(site: Path) -> None:
    with running(site, RELAY) as run:
        run.wait_until_ready()
        with unnoticed(run):
            rewrite(run, 'serves = ["http", "websocket"]', 'command = "sleep 600"')
            reload(run)
            assert answering(run) <= set(run.pids())
            rewrite(run, 'command = "sleep 600"', 'serves = ["http", "websocket"]')
            reload(run)
            assert answering(run) <= set(run.pids("web"))


@pytest.mark.thorough
def test_routes_move_to_a_new_pool_unnoticed(site: Path) -> None:
    with running(site, RELAY) as run:
        run.wait_until_ready()
        interface = run.pids()
        with unnoticed(run):
            rewrite(run, 'serves = ["http", "websocket"]', 'serves = ["websocket"]')
            run.config.write_text(
                run.config.read_text() + '[workers.pages]\nserves = ["http"]\nprocesses = 1\n'
            )
            reload(run)
            assert answering(run) == set(run.pids("pages"))
            rewrite(run, '[workers.pages]\nserves = ["http"]\nprocesses = 1\n', "")
            rewrite(run, 'serves = ["websocket"]', 'serves = ["http", "websocket"]')
            reload(run)
            assert answering(run) <= set(run.pids("web"))
        assert run.pids() == interface


def test_killed_workers_come_back_and_their_sockets_go(site: Path) -> None:
    with running(site, RELAY) as run:
        run.wait_until_ready()
        interface = run.pids()
        with unnoticed(run, kills=2) as open_ones:
            for slot in ("web.0", "web.1"):
                pid = run.slots()[slot]["pid"]
                os.kill(pid, signal.SIGKILL)
                run.wait_for_successor(slot, pid)
                run.wait_until_ready()
        assert not open_ones.result.closes, open_ones.result.summary()
        assert run.pids() == interface
        assert len(sockets(site)) == 2


@pytest.mark.thorough
def test_requests_wait_while_a_pool_has_no_process(site: Path) -> None:
    with running(site, RELAY) as run:
        run.wait_until_ready()
        assert run.command("scale", "web=0").returncode == 0
        assert sockets(site) == []
        with ThreadPoolExecutor() as threads:
            waiting = [threads.submit(httpx.get, run.url, timeout=20) for _ in range(5)]
            run.wait_for(lambda: queue(run)["waiting"] == 5)
            assert run.command("scale", "web=3").returncode == 0
            assert {one.result().status_code for one in waiting} == {200}
        assert len(run.pids("web")) == 3
        assert queue(run) | {"at_most": 0} == {"waiting": 0, "waited": 5, "at_most": 0}


@pytest.mark.thorough
def test_readiness_names_the_app_workers(site: Path) -> None:
    write_app(site, before="import sys; sys.exit('not today')\n")
    with running(site, RELAY) as run:
        run.wait_for(lambda: "web: 0 of 2 processes ready" in run.status()["reasons"])
        run.wait_for(lambda: run.slots()["interface.1"]["state"] == "READY")
        left = "generation 1 still tries to start: web 0/2, interface 2/2 ready"
        assert left in reload(run, code=1)
        write_app(site)
        run.wait_until_ready()


@pytest.mark.thorough
def test_a_killed_supervisor_s_sockets_are_cleared(site: Path) -> None:
    with running(site, RELAY) as run:
        run.wait_until_ready()
        left = sockets(site)
        run.process.kill()
        run.process.wait()
        assert sockets(site) == left
        run.wait_for(lambda: True)
    with running(site, RELAY) as run:
        run.wait_until_ready()
        assert sockets(site) == left  # the same names, new ones
        assert answering(run) == set(run.pids("web"))


def test_metrics_of_both_sides(site: Path) -> None:
    with running(site, RELAY + '\n[admin]\nbind = "127.0.0.1:0"\n') as run:
        run.wait_until_ready()
        answering(run, 10)
        admin = run.status()["admin"]

        def lines() -> dict[str, float]:
            text = fetch.get(f"http://{admin}/metrics").text
            pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
            return {name: float(value) for name, value in pairs}

        def total(found: dict[str, float], pool: str) -> float:
            return sum(
                number
                for name, number in found.items()
                if name.startswith("chansup_requests_total{") and f'pool="{pool}"' in name
            )

        found = lines()
        assert total(found, "interface") == total(found, "web") == 10
        assert found['chansup_relay_queue_wait_seconds_count{pool="web"}'] == 10
        for pid in run.pids():
            os.kill(pid, signal.SIGKILL)
        run.wait_for(lambda: all(one["restarts"] for n, one in run.slots().items() if "int" in n))
        run.wait_until_ready()
        run.wait_for(lambda: lines()['chansup_relay_queue_wait_seconds_count{pool="web"}'] == 10)


@pytest.mark.skipif(everybody.reason() is not None, reason=str(everybody.reason()))
@pytest.mark.thorough
def test_the_interface_may_run_as_another_user() -> None:
    config = RELAY.replace('bind = "127.0.0.1:0"', 'bind = "127.0.0.1:0"\nuser = "nobody"')
    with everybody.directory() as site:
        environ = everybody.environment(site)
        program = everybody.program()
        write_app(site)
        with running(site, config, environ, program=program) as run:
            run.wait_until_ready()
            assert answering(run) == set(run.pids("web"))
            assert stat.S_IMODE((site / ".chansup").stat().st_mode) == 0o711
            reload(run)
            assert answering(run) == set(run.pids("web"))
            with unnoticed(run, websockets=0):
                rewrite(run, 'user = "nobody"\n', "")
                reload(run)
            assert answering(run) == set(run.pids("web"))
