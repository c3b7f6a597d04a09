"""Every server, on TCP and on a Unix socket: it serves, is measured, and retires without loss."""

import http.client
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
)

from chansup.protocol import scoreboard
from chansup.protocol.launch import Drain

from . import client, harness
from .harness import Process, Supervisor, eventually

SERVERS = ["uvicorn", "granian", "hypercorn", "daphne", "gunicorn"]
HAS_LIFESPAN = {"uvicorn", "granian", "hypercorn", "gunicorn"}
SETTLED = Drain(settle=0.1, spread=0.2, keep_alive=0.8, timeout=8.0)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    return str(request.param)


def test_headers_and_cookies_of_accept_reach_the_client(
    supervisor: Supervisor, server: str
) -> None:
    process = supervisor.start(server).wait_ready()
    with client.websocket(process.address, "/headers") as websocket:
        assert websocket.response is not None
        headers = websocket.response.headers
        has_some = server != "granian"  # as docs/servers.md says
        assert headers.get_all("set-cookie") == (["a=1", "b=2"] if has_some else [])
        assert headers.get("x-name") == ("Zoë".encode().decode("latin-1") if has_some else None)
    if server != "granian":
        with pytest.raises((InvalidHandshake, InvalidMessage, EOFError)):
            client.websocket(process.address, "/split").close()


@pytest.fixture(params=["tcp", "unix"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_serves_and_counts(supervisor: Supervisor, server: str, family: str) -> None:
    process = supervisor.start(server, family).wait_ready()
    address = process.address
    assert client.get(address, "/-/health").body == b"ok\n"
    assert client.get(address, "/").status == 200
    assert client.get(address, "/missing").status == 404
    assert client.get(address, "/slow?0.03").status == 200
    connection = client.Connection(address)
    connection.request("POST", "/body", body=b"x" * 100_000)
    assert connection.answer().body == b"100000"
    connection.request("PROPFIND", "/")
    connection.answer()
    connection.close()
    if server != "daphne":  # which answers an exception only at its next look around
        assert client.get(address, "/fail").status == 500
        assert process.requests("GET", 500) == 1
    eventually(lambda: process.requests("GET", 200) == 2)
    assert process.requests("GET", 404) == 1
    assert process.requests("POST", 201) == 1
    assert process.requests("PROPFIND", 200) == 1  # as OTHER
    durations = process.cells(scoreboard.DURATIONS, len(scoreboard.DURATION_BOUNDS) + 1)
    assert sum(durations) == (5 if server == "daphne" else 6)
    assert sum(durations[:4]) < sum(durations)  # the slow one took more than 10 ms
    assert process.cells(scoreboard.DURATION_SUM)[0] >= 0.025

    with client.websocket(address) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"
        assert process.cells(scoreboard.WEBSOCKETS_OPEN) == [1]
        websocket.close(3456)
    code = 1006 if server == "hypercorn" else 3456  # hypercorn does not tell the app
    eventually(lambda: process.closed(code) == 1, what=process.output)
    with client.websocket(address) as websocket:
        websocket.send("close 4001")
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4001
    eventually(lambda: process.closed(4001) == 1)
    with pytest.raises(InvalidStatus):
        client.websocket(address, "/rejected").close()
    eventually(lambda: process.board.cells[scoreboard.REJECTED_CELL] == 1)
    assert process.cells(scoreboard.WEBSOCKETS_OPEN) == [0]
    assert process.cells(scoreboard.WEBSOCKETS_OPENED) == [2]

    beats = process.board.cells[scoreboard.BEATS]
    eventually(lambda: process.board.cells[scoreboard.BEATS] > beats + 2)
    if family == "tcp":
        assert backlog(process.listeners[0][0]) == 512


def backlog(listener: socket.socket) -> int:
    """Return the length that a TCP listener's queue may have: tcpi_sacked of tcp_info."""
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int(struct.unpack_from("I", info, 28)[0])


def test_it_retires_without_loss(supervisor: Supervisor, server: str, family: str) -> None:
    process = supervisor.start(server, family, drain=SETTLED).wait_ready()
    address = process.address
    idle = client.Connection(address)
    assert idle.get().connection != "close"
    quiet = client.Connection(address)
    assert quiet.get().status == 200
    silent = client.open_socket(address)
    slow = client.Connection(address)
    slow.ask("/slow?1.2")
    slow_began = time.monotonic()
    open_websocket = client.websocket(address, "/talkative")
    late_codes: list[int] = []
    late = threading.Thread(target=connect_late, args=(address, late_codes))
    late.start()
    process.wait_for_output("late connect")
    eventually(lambda: process.board.cells[scoreboard.IN_PROGRESS] == 1)

    process.terminate()
    told = time.monotonic()
    process.wait_stopping()
    health = idle.get("/-/health")
    assert (health.status, health.body, health.connection) == (503, b"draining\n", "close")
    assert idle.is_closed_by_server(1)

    with pytest.raises(ConnectionClosed) as closed:
        open_websocket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert time.monotonic() - told < 6
    process.wait_for_output("disconnect 1012")
    process.wait_for_output("sent on")  # what the app sends afterwards is dropped, and no error

    answer = slow.answer()
    assert answer.status == 200
    assert answer.connection == "close"
    assert time.monotonic() - slow_began >= 1.19  # the app's clock may tick differently
    late.join(harness.PATIENCE)
    assert late_codes == [1012]

    # Neither of these brought a request: they stay for keep_alive seconds, then they are closed.
    assert process.wait_exit() == 0, process.output()
    assert time.monotonic() - told >= SETTLED.keep_alive
    assert quiet.is_closed_by_server(1)
    assert silent.recv(1) == b""
    assert process.closed(1012) == 2
    assert process.cells(scoreboard.WEBSOCKETS_OPEN) == [0]
    assert process.cells(scoreboard.IN_PROGRESS) == [0]
    output = process.output()
    assert output.count("websocket ended") == 2
    assert ("lifespan shutdown" in output) == (server in HAS_LIFESPAN)
    assert "Traceback" not in output
    if family == "unix":
        assert Path(address[5:]).exists()
    silent.close()
    slow.close()


def connect_late(address: str, codes: list[int]) -> None:
    """Open a WebSocket that the app accepts only when the drain has begun."""
    with client.websocket(address, "/late?0.3") as websocket:
        try:
            websocket.recv()
        except ConnectionClosed as closed:
            codes.append(closed.rcvd.code if closed.rcvd else 1006)


def test_idle_connections_may_bring_one_more_request(
    supervisor: Supervisor, server: str, family: str
) -> None:
    drain = Drain(settle=0.0, spread=0.0, keep_alive=5.0, timeout=10.0)
    process = supervisor.start(server, family, drain=drain).wait_ready()
    connections = [client.Connection(process.address) for _ in range(3)]
    for connection in connections:
        connection.get()
    process.terminate()
    told = time.monotonic()
    process.wait_stopping()
    for connection in connections:
        answer = connection.get()
        assert answer.status == 200
        assert answer.connection == "close"
        assert connection.is_closed_by_server(1)
    assert process.wait_exit() == 0
    assert time.monotonic() - told < 4  # nothing was left to wait for


def test_what_never_ends_is_ended_in_time(supervisor: Supervisor, server: str, family: str) -> None:
    drain = Drain(settle=0.05, spread=0.1, keep_alive=0.2, timeout=3.5)
    process = supervisor.start(server, family, drain=drain).wait_ready()
    events = client.Connection(process.address)
    events.ask("/events")
    stream = events.getresponse()
    assert stream.read(5) == b"data:"
    endless = client.Connection(process.address)
    endless.ask("/forever")
    broken = endless.getresponse()
    assert broken.read(5) == b"data:"
    hanging = client.Connection(process.address)
    hanging.ask("/wait")
    process.wait_for_output("waiting")
    process.terminate()
    told = time.monotonic()
    stream.read()  # ends as a complete response
    assert process.wait_exit() == 0, process.output()
    assert time.monotonic() - told < drain.timeout
    assert process.output().count("events ended") == 2
    answer = hanging.answer()
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        broken.read()
    assert ("lifespan shutdown" in process.output()) == (server in HAS_LIFESPAN)


def test_no_request_fails_while_processes_are_replaced(
    supervisor: Supervisor, server: str, family: str
) -> None:
    drain = Drain(settle=0.15, spread=0.1, keep_alive=1.0, timeout=8.0)
    listener = supervisor.listen(family)
    first, second = (supervisor.start(server, listeners=[listener], drain=drain) for _ in range(2))
    first.wait_ready()
    second.wait_ready()
    load = Load(listener[1])
    load.start()
    try:
        for old in (first, second):
            load.wait_for_progress()
            new = supervisor.start(server, listeners=[listener], drain=drain).wait_ready()
            load.wait_for_progress()
            old.terminate()
            assert old.wait_exit() == 0, old.output()
            load.wait_for_progress()
    finally:
        load.stop()
    assert load.failures == []
    assert len(load.pids) == 4
    assert new.popen.poll() is None


class Load:
    """Clients that ask without pause, on fresh and on kept connections, and note each failure."""

    def __init__(self, address: str, keeps: bool = True) -> None:
        self._address = address
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._fresh) for _ in range(3)]
        if keeps:
            self._threads += [threading.Thread(target=self._kept) for _ in range(2)]
        self.answered = 0
        self.pids: set[bytes] = set()
        self.failures: list[str] = []

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(harness.PATIENCE)

    def wait_for_progress(self) -> None:
        goal = self.answered + 100
        eventually(lambda: self.answered >= goal or self.failures, what=lambda: self.failures)

    def _fresh(self) -> None:
        while not self._stopping.is_set():
            self._ask(client.Connection, {"Connection": "close"})

    def _kept(self) -> None:
        connection: client.Connection | None = None
        while not self._stopping.is_set():
            kept = connection or client.Connection(self._address)
            answer = self._ask(lambda _, kept=kept: kept, {})
            connection = None if answer is None or answer.connection == "close" else kept

    def _ask(self, connect: object, headers: dict[str, str]) -> client.Answer | None:
        try:
            connection = connect(self._address)  # type: ignore[operator]
            answer = connection.get("/", **headers)
            assert answer.status == 200
        except Exception as error:
            self.failures.append(repr(error))
            return None
        if headers:
            connection.close()
        self.answered += 1
        self.pids.add(answer.body)
        return answer


@pytest.mark.parametrize("family", ["tcp"])
def test_a_second_signal_hurries(supervisor: Supervisor, server: str, family: str) -> None:
    drain = Drain(settle=5.0, spread=5.0, keep_alive=20.0, timeout=30.0)
    process = supervisor.start(server, family, drain=drain).wait_ready()
    idle = client.Connection(process.address)
    idle.get()
    websocket = client.websocket(process.address)
    slow = client.Connection(process.address)
    slow.ask("/slow?0.7")
    process.terminate()
    process.wait_stopping()
    process.terminate()
    told = time.monotonic()
    with pytest.raises(ConnectionClosed) as closed:
        websocket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert slow.answer().status == 200  # work in hand is finished even so
    assert process.wait_exit() == 0, process.output()
    assert time.monotonic() - told < 5


def test_a_client_that_does_not_answer_the_close_is_not_waited_for(
    supervisor: Supervisor, server: str
) -> None:
    drain = Drain(settle=0.0, spread=0.0, keep_alive=0.3, timeout=10.0)
    process = supervisor.start(server, drain=drain).wait_ready()
    deaf = client.open_socket(process.address)
    deaf.sendall(
        b"GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert b"101" in deaf.recv(1000)
    eventually(lambda: process.board.cells[scoreboard.WEBSOCKETS_OPEN] == 1)
    process.terminate()
    told = time.monotonic()
    assert process.wait_exit() == 0, process.output()
    assert time.monotonic() - told < 6
    assert "disconnect 1012" in process.output()
    deaf.close()


def test_a_blocked_loop_shows_where(supervisor: Supervisor, server: str) -> None:
    from chansup.protocol.launch import STACK_DUMP_SIGNAL

    process = supervisor.start(server).wait_ready()
    blocked = client.Connection(process.address)
    eventually(lambda: process.board.cells[scoreboard.BEATS] > 2)
    blocked.ask("/block?1.0")
    beats = still_since(process)
    process.popen.send_signal(STACK_DUMP_SIGNAL)
    output = process.wait_for_output("in block_here")
    assert "site_app.py" in output
    assert blocked.answer().status == 200  # the dump changes nothing
    eventually(lambda: process.board.cells[scoreboard.BEATS] > beats)
    assert process.popen.poll() is None


def still_since(process: Process) -> float:
    """Wait until no beat has come for four of their intervals; return how many there were."""
    beats, since = -1.0, time.monotonic()
    while time.monotonic() - since < 0.2:
        now = process.board.cells[scoreboard.BEATS]
        if now != beats:
            beats, since = now, time.monotonic()
        time.sleep(0.005)
    return beats


def test_a_signal_before_it_is_ready_ends_it_at_once(supervisor: Supervisor, server: str) -> None:
    process = supervisor.start(server, application="slow_boot:application")
    process.wait_for_output("importing")
    process.terminate()
    assert process.wait_exit(2) == -15


def test_a_channels_consumer_says_goodbye(supervisor: Supervisor, server: str) -> None:
    pytest.importorskip("channels")
    drain = Drain(settle=0.05, spread=0.1, keep_alive=0.2, timeout=8.0)
    process = supervisor.start(server, application="channels_app:application", drain=drain)
    process.wait_ready()  # though it knows no lifespan
    sockets = [client.websocket(process.address, "/") for _ in range(3)]
    sockets[0].send("hello")
    assert [websocket.recv() for websocket in sockets] == ["hello"] * 3
    assert client.get(process.address, "/nothing").status == 404
    process.terminate()
    for websocket in sockets:
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    assert process.wait_exit() == 0, process.output()
    assert process.output().count("consumer left with 1012") == 3
