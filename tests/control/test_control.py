import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chansup.errors import ChansupError
from chansup.protocol.status import Consumption, Event, LogLine, Status
from chansup.supervisor.api.control import BUFFERED_LINES, Control
from chansup.supervisor.api.http import control_server
from chansup.supervisor.errors import StartFailedError

from . import consumed
from .fake import TRACEBACK, FakeCommands
from .serving import received, serving, unix_listener


@pytest.fixture
def fake():
    return FakeCommands()


@pytest.fixture
def server(fake: FakeCommands, tmp_path: Path):
    with serving(
        lambda listener: control_server(Control(fake), listener), unix_listener(tmp_path / "s")
    ) as one:
        yield one


@pytest.fixture
def client(server):
    with server.client() as one:
        yield one


def events(answer: Any) -> list[Event]:
    return [msgspec.json.decode(line, type=Event) for line in answer.content.splitlines()]


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_status_and_version(client, fake):
    assert msgspec.json.decode(client.get("/status").content, type=Status) == fake.current
    assert set(client.get("/version").json()) == {"version", "pid"}


def test_what_channel_workers_consume(client, fake):
    fake.consumed = consumed.busy()
    body = client.get("/consumption").content
    assert msgspec.json.decode(body, type=Consumption) == fake.consumed


@pytest.mark.parametrize(
    ("request_line", "call"),
    [
        ("/reload", ["reload"]),
        ("/restart", ["restart", None]),
        ("/restart?target=interface.1", ["restart", "interface.1"]),
        ("/scale?pool=interface&processes=0", ["scale", "interface", 0]),
        ("/move?mark=a1", ["move", "a1"]),
        ("/stop", ["stop"]),
    ],
)
def test_commands_stream_their_events_up_to_the_result(client, fake, request_line, call):
    answer = client.post(request_line)
    assert answer.status_code == 200
    assert events(answer) == fake.events
    assert [list(one) for one in fake.called] == [call]


def test_events_come_as_they_happen(server, fake):
    server.call(fake.gate.clear)
    with server.client() as client, client.stream("POST", "/reload") as answer:
        lines = answer.iter_lines()
        seen = [msgspec.json.decode(next(lines), type=Event) for _ in fake.events[:-1]]
        assert seen == fake.events[:-1]
        server.call(fake.gate.set)
        assert json.loads(next(lines))["type"] == "result"


def test_without_waiting_only_the_first_event_comes_and_the_command_goes_on(server, client, fake):
    server.call(fake.gate.clear)
    answer = client.post("/reload?wait=0")
    assert answer.status_code == 202
    assert events(answer) == fake.events[:1]
    server.call(fake.gate.set)
    wait_for(lambda: fake.completed == 1)


def test_a_caller_that_leaves_does_not_stop_the_command(server, fake):
    server.call(fake.gate.clear)
    with server.connect() as connection:
        connection.sendall(b"POST /reload HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(10)
    wait_for(lambda: server.call(lambda: server.server.connections) == 0)
    server.call(fake.gate.set)
    wait_for(lambda: fake.completed == 1)


def test_a_caller_that_does_not_read_holds_nobody_and_still_gets_the_result(server, fake):
    big = [Event("progress", f"{number} {'x' * 2000}") for number in range(5 * BUFFERED_LINES)]
    fake.events = [*big, Event("result", "done", outcome="succeeded")]
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"POST /reload HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        wait_for(lambda: fake.completed == 1)
        with server.client() as other:
            assert other.get("/status").status_code == 200
        data = received(connection)
    assert len(data) < 4 * BUFFERED_LINES * 2000
    assert b'"message":"done"' in data


@pytest.mark.parametrize(
    ("request_line", "status", "said"),
    [
        ("POST /restart?target=nope", 404, "unknown pool or slot 'nope'"),
        ("GET /logs?target=nope", 404, "unknown pool or slot 'nope'"),
        ("GET /logs?target=nope&follow=1", 404, "unknown pool or slot 'nope'"),
        ("GET /logs?target=nope&follow=1&lines=0", 404, "unknown pool or slot 'nope'"),
        ("GET /logs?lines=x", 400, "lines must be a number"),
        ("GET /logs?lines=-1", 400, "lines must be a number"),
        ("POST /scale?pool=interface", 400, "needs a pool and a number"),
        ("POST /scale?processes=1", 400, "needs a pool and a number"),
        ("POST /scale?pool=interface&processes=many", 400, "must be a number"),
        ("POST /scale?pool=interface&processes=99999999999999", 400, "must be a number"),
        ("GET /reload", 405, "POST"),
        ("POST /nope", 404, "no command /nope"),
        ("GET /%00", 404, "no command"),
    ],
)
def test_bad_requests_say_what_is_wrong(client, fake, request_line, status, said):
    answer = client.request(*request_line.split(" "))
    assert answer.status_code == status
    assert said in answer.json()["error"]
    assert answer.json()["exit_code"] in (1, 2)
    assert fake.called == []


def test_a_command_that_is_refused_says_why(client, fake):
    fake.failure = ChansupError("The supervisor is stopping.")
    answer = client.post("/reload")
    assert answer.status_code == 409
    assert answer.json() == {"error": "The supervisor is stopping.", "exit_code": 1, "lines": []}
    fake.failure = StartFailedError("interface.0 did not boot.", TRACEBACK)
    assert client.post("/reload").json()["lines"] == TRACEBACK


def test_a_command_that_breaks_off_still_ends_with_a_result(server, client, fake, caplog):
    class Late(Event, frozen=True):
        pass

    async def broken(error: Exception):
        yield Event("progress", "begun")
        raise error

    for error, said in ((ChansupError("no more room"), "no more room"), (KeyError("x"), "itself")):
        fake.reload = lambda error=error: broken(error)
        *_, last = events(client.post("/reload"))
        assert (last.type, last.exit_code) == ("result", 1)
        assert said in last.message

    async def empty():
        return
        yield

    fake.reload = empty
    assert events(client.post("/reload"))[-1].exit_code == 1


def test_recent_lines(client, fake):
    answer = client.get("/logs?lines=2").content.splitlines()
    assert [msgspec.json.decode(line, type=LogLine) for line in answer] == fake.lines[-2:]
    assert len(client.get("/logs").content.splitlines()) == 5
    assert client.get("/logs?lines=0").content == b""


def test_following_gives_the_past_and_what_comes(server, fake):
    with server.client() as client, client.stream("GET", "/logs?lines=1&follow=1") as answer:
        lines = answer.iter_lines()
        assert json.loads(next(lines))["text"] == "line 4"
        for number in range(3):
            server.call(fake.coming.put_nowait, LogLine(1.0, "web.0", 1, f"new {number}"))
            assert json.loads(next(lines))["text"] == f"new {number}"
        server.call(fake.coming.put_nowait, None)
        assert list(lines) == []


def test_a_slow_follower_misses_lines_and_is_told(server, fake):
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /logs?follow=1&lines=0 HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.recv(10)
        line = LogLine(1.0, "web.0", 1, "x" * 2000)

        def flood() -> None:
            for _ in range(20):
                fake.coming.put_nowait(line)

        for _ in range(5 * BUFFERED_LINES // 20):
            server.call(flood)
        server.call(fake.coming.put_nowait, None)
        wait_for(fake.coming.empty)
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            data += connection.recv(65536)
    assert b"lines left out: this reader is too slow" in data
    assert data.count(b"web.0") < 3 * BUFFERED_LINES


def test_a_follower_that_leaves_is_forgotten(server, fake):
    with server.connect() as connection:
        connection.sendall(b"GET /logs?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.recv(10)
    wait_for(lambda: server.call(lambda: server.server.connections) == 0)
    wait_for(lambda: server.call(lambda: len(fake.coming._getters)) == 0)


def test_followers_end_when_the_server_stops(server, fake):
    with server.connect() as connection:
        connection.sendall(b"GET /logs?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.recv(10)
        begun = time.monotonic()
        stopping = threading.Thread(target=server.stop, args=(60.0,))
        stopping.start()
        assert received(connection).endswith(b"0\r\n\r\n")
        stopping.join()
        assert time.monotonic() - begun < 30
