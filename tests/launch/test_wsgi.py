"""WSGI apps: natively on gunicorn and granian, adapted on the others."""

import time
from typing import Any

import pytest

from chansup.protocol import scoreboard
from chansup.protocol.launch import Drain

from . import client
from .harness import Process, Supervisor, eventually
from .test_servers import Load

pytestmark = pytest.mark.slow  # the interpreter makes no difference

DRAIN = Drain(settle=0.1, spread=0.1, keep_alive=0.6, timeout=8.0)
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gthread": ("gunicorn", {}),
    "sync": ("gunicorn", {"worker_class": "sync"}),
    "granian": ("granian", {}),
    "uvicorn": ("uvicorn", {}),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(KINDS[request.param][0])
    if request.param == "uvicorn":
        pytest.importorskip("a2wsgi")
    return str(request.param)


def start(supervisor: Supervisor, kind: str, **keywords: Any) -> Process:
    server, options = KINDS[kind]
    return supervisor.start(
        server,
        application="wsgi_app:application",
        gateway="wsgi",
        options=options,
        drain=DRAIN,
        **keywords,
    )


def test_it_serves_and_counts(supervisor: Supervisor, kind: str) -> None:
    process = start(supervisor, kind).wait_ready()
    address = process.address
    assert client.get(address, "/-/health").body == b"ok\n"
    assert client.get(address, "/").status == 200
    assert client.get(address, "/missing").status == 404
    assert client.get(address, "/stream").body == b"chunk 0\nchunk 1\nchunk 2\n"
    assert client.get(address, "/fail").status == 500
    eventually(lambda: process.requests("GET", 200) == 2)
    assert process.requests("GET", 404) == 1
    assert process.requests("GET", 500) == 1
    eventually(lambda: process.cells(scoreboard.IN_PROGRESS) == [0])
    durations = process.cells(scoreboard.DURATIONS, len(scoreboard.DURATION_BOUNDS) + 1)
    assert sum(durations) == 4
    beats = process.board.cells[scoreboard.BEATS]
    eventually(lambda: process.board.cells[scoreboard.BEATS] > beats + 1)


def test_it_retires_without_loss(supervisor: Supervisor, kind: str) -> None:
    process = start(supervisor, kind).wait_ready()
    idle = None
    if kind != "sync":  # which keeps no connection
        idle = client.Connection(process.address)
        assert idle.get().connection != "close"
    slow = client.Connection(process.address)
    slow.ask("/slow?1")
    eventually(lambda: process.cells(scoreboard.IN_PROGRESS) == [1])
    process.terminate()
    told = time.monotonic()
    process.wait_stopping()
    if idle is not None:
        answer = idle.get("/-/health")
        assert (answer.status, answer.connection) == (503, "close")
        assert idle.is_closed_by_server(1)
    assert slow.answer().status == 200
    assert process.wait_exit() == 0, process.output()
    assert time.monotonic() - told < 4
    assert "Traceback" not in process.output()


def test_no_request_fails_while_processes_are_replaced(supervisor: Supervisor, kind: str) -> None:
    listener = supervisor.listen("unix")
    old, _other = (start(supervisor, kind, listeners=[listener]).wait_ready() for _ in range(2))
    load = Load(listener[1], keeps=kind != "sync")
    load.start()
    try:
        load.wait_for_progress()
        start(supervisor, kind, listeners=[listener]).wait_ready()
        old.terminate()
        assert old.wait_exit() == 0, old.output()
        load.wait_for_progress()
    finally:
        load.stop()
    assert load.failures == []
