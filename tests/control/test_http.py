import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chansup.supervisor.api import http
from chansup.supervisor.api.connection import Limits
from chansup.supervisor.api.exchange import respond
from chansup.supervisor.api.http import Server
from chansup.supervisor.api.malformed import MalformedRequests

from .serving import Serving, answering, received, serving, tcp_listener, unix_listener

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def server():
    with serving(lambda listener: Server(answering(b"hello"), [listener]), tcp_listener()) as one:
        yield one


@pytest.fixture
def impatient():
    limits = Limits(request=0.3)
    build = lambda listener: Server(answering(b"hello"), [listener], limits=limits)  # noqa: E731
    with serving(build, tcp_listener()) as one:
        yield one


def still_answers(server: Serving) -> bool:
    with server.client() as client:
        return client.get("/").content == b"hello"


def test_answers_with_the_present_date_and_without_naming_itself(server):
    with server.client() as client:
        answer = client.get("/")
    assert answer.content == b"hello"
    assert abs(parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()) < 5
    assert "server" not in answer.headers


def test_several_requests_share_a_connection(server):
    with server.connect() as connection:
        connection.sendall(REQUEST * 3)
        data = b""
        while data.count(b"hello") < 3:
            data += connection.recv(65536)
        assert server.call(lambda: server.server.connections) == 1


def test_a_stranger_is_cut():
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        cut_a_stranger(Path(directory) / "socket")


def cut_a_stranger(path: Path) -> None:
    build = lambda listener: http.control_server(answering(b"secret"), listener)  # noqa: E731
    with serving(build, unix_listener(path)) as server:
        path.chmod(0o777)
        ask = (
            "import os, socket, sys; os.setgid(65534); os.setuid(65534)\n"
            "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
            "try: s.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); print(s.recv(999))\n"
            "except OSError: print(b'')\n"
        )
        command = [sys.executable, "-I", "-c", ask, str(path)]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert (answer.stdout, answer.stderr) == ("b''\n", "")
        with server.client() as client:
            assert client.get("/").content == b"secret"


def test_a_silent_connection_is_cut(impatient):
    with impatient.connect() as connection:
        assert received(connection) == b""
    assert still_answers(impatient)


def test_a_request_that_comes_in_drops_is_cut(impatient):
    with impatient.connect() as connection:
        begun = time.monotonic()
        connection.sendall(b"GET / HTTP/1.1\r\n")
        connection.settimeout(0.05)
        cut = False
        while not cut and time.monotonic() - begun < 30:
            try:
                connection.sendall(b"X-Slow: 1\r\n")
                cut = connection.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                cut = True
        assert cut
        assert time.monotonic() - begun < 20
    assert still_answers(impatient)


def test_a_second_request_that_stays_unfinished_is_cut(impatient):
    with impatient.connect() as connection:
        connection.sendall(REQUEST)
        assert is_answered(connection)
        connection.sendall(b"GET / HT")
        begun = time.monotonic()
        assert b"hello" not in received(connection)
        assert time.monotonic() - begun < 20


def test_an_idle_connection_is_closed():
    def build(listener: socket.socket) -> Server:
        return Server(answering(b"hello"), [listener], limits=Limits(keep_alive=0.2))

    with serving(build, tcp_listener()) as server, server.connect() as connection:
        connection.sendall(REQUEST)
        assert received(connection).endswith(b"hello\r\n0\r\n\r\n")


def test_a_head_that_is_too_long_is_refused(server):
    with server.connect() as connection:
        with contextlib.suppress(OSError):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 100_000)
        assert b"hello" not in received(connection)
    assert still_answers(server)


@pytest.mark.parametrize("framing", [b"Content-Length: 100000000", b"Transfer-Encoding: chunked"])
def test_a_body_is_refused(server, framing):
    with server.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\n" + framing + b"\r\n\r\n")
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert still_answers(server)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.one_of(
        st.binary(min_size=1, max_size=400),
        st.builds(
            lambda method, target, rest: b"%b %b HTTP/1.1\r\n%b\r\n\r\n" % (method, target, rest),
            st.sampled_from([b"GET", b"POST", b"BREW"]),
            st.binary(min_size=1, max_size=40),
            st.binary(max_size=100),
        ),
    )
)
def test_garbage_harms_nobody(server, garbage):
    with server.connect() as connection:
        with contextlib.suppress(OSError):
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
        received(connection)
    assert still_answers(server)


def test_more_connections_than_allowed_are_closed_at_once(server):
    connections = [server.connect() for _ in range(100)]
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.sendall(REQUEST)
    answered = sum(map(is_answered, connections))
    assert answered == Limits.connections
    for connection in connections:
        connection.close()
    wait_for(lambda: server.call(lambda: server.server.connections) == 0)
    assert still_answers(server)


def test_a_response_that_nobody_reads_is_given_up():
    def build(listener: socket.socket) -> Server:
        return Server(answering(b"x" * 20_000_000), [listener], limits=Limits(stall=0.3))

    with serving(build, tcp_listener()) as server, server.connect() as connection:
        connection.sendall(REQUEST)
        connection.recv(10)
        wait_for(lambda: server.call(lambda: server.server.connections) == 0)


def test_stopping_lets_a_response_finish_and_cuts_what_takes_longer(caplog):
    begun, go_on = threading.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await (go_on.wait() if scope["path"] == "/soon" else asyncio.Event().wait())
        await respond(send, 200, b"done")

    with serving(lambda listener: Server(app, [listener]), tcp_listener()) as server:
        for path in ("soon", "never"):
            connection = server.connect()
            connection.sendall(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert begun.wait(10)
            begun.clear()
            if path == "soon":
                first = connection
        stopping = threading.Thread(target=server.stop, args=(1.0,))
        stopping.start()
        server.call(go_on.set)
        assert received(first).endswith(b"done")
        assert b"done" not in received(connection)
        stopping.join()
        assert caplog.records == []  # no traceback of what was cut
        with pytest.raises(ConnectionRefusedError):
            server.connect()


def is_answered(connection: socket.socket) -> bool:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while not data.endswith(b"0\r\n\r\n") and (piece := connection.recv(65536)):
            data += piece
    return b"hello" in data


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def raw(server: Serving, *parts: bytes) -> bytes:
    """Send `parts`, and return all that comes back until the server ends the connection."""
    with server.connect() as connection:
        for part in parts:
            connection.sendall(part)
        return received(connection)


CHUNKED = b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
CLOSING = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
UPGRADE = REQUEST[:-2] + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "statuses", "malformed"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", [400], 1),  # TLS
        (b"GET / HTTP/1.1\r\n\r\n", [400], 1),  # no host
        (CHUNKED + b"ZZ\r\n", [413], 1),
        (CHUNKED + b"5\r\nabcdefgh\r\n", [413], 1),
        (REQUEST + b"\x00\x01garbage\r\n\r\n", [200, 400], 1),
        (REQUEST[:-2] + b"Content-Length: 2\r\n\r\nab\x00cd\r\n\r\n", [413], 0),
        (CLOSING * 3, [200], 0),
        (CLOSING + b"\x00\x00\r\n\r\n", [200], 0),
        (OLD * 3, [200], 0),
        (OLD + b"\x00\r\n\r\n", [200], 0),
        (REQUEST + CLOSING + REQUEST, [200, 200], 0),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", [405], 0),
        (UPGRADE + CLOSING, [200, 200], 0),
        (b"HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde", [413], 0),
    ],
)
@pytest.mark.parametrize("in_one", [True, False])
def test_malformed_requests_are_answered_and_counted_without_a_traceback(
    server: Serving, caplog: Any, sent: bytes, statuses: list[int], malformed: int, in_one: bool
) -> None:
    before = server.server.malformed.count
    halves = (sent,) if in_one else (sent[: len(sent) // 2], sent[len(sent) // 2 :])
    found = raw(server, *halves).split(b"HTTP/1.1 ")[1:]
    assert [int(one[:3]) for one in found] == statuses
    assert server.server.malformed.count - before == malformed
    assert not caplog.records
    assert still_answers(server)


def test_malformed_requests_are_said_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    said: list[str] = []
    malformed = MalformedRequests(said.append)
    for _ in range(1000):
        malformed.take("192.0.2.7")
    now += 61
    malformed.take("192.0.2.8")
    assert malformed.count == 1001
    assert ["1 malformed request, the last from 192.0.2.7" in said[0]] == [True]
    assert ["1000 malformed requests, the last from 192.0.2.8" in said[1]] == [True]
    assert len(said) == 2


def test_connections_without_a_request_keep_nobody_else_out(server: Serving) -> None:
    halves = []
    for _ in range(3 * Limits.connections):
        connection = server.connect()
        connection.sendall(b"GET / HTTP/1.1\r\nHost: ")
        halves.append(connection)
    started = time.monotonic()
    for _ in range(10):
        assert still_answers(server)
    assert time.monotonic() - started < Limits.request / 2
    assert server.call(lambda: server.server.connections) <= Limits.connections
    for connection in halves:
        connection.close()


def test_a_client_that_sends_nothing_more_gets_its_response() -> None:
    begun, go_on = threading.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await go_on.wait()
        await respond(send, 200, b"late")

    with (
        serving(lambda listener: Server(app, [listener]), tcp_listener()) as server,
        server.connect() as connection,
    ):
        connection.sendall(REQUEST)
        assert begun.wait(10)
        connection.shutdown(socket.SHUT_WR)
        server.call(go_on.set)
        assert received(connection).endswith(b"late")
        wait_for(lambda: server.call(lambda: server.server.connections) == 0)


@pytest.mark.parametrize("head", [REQUEST, CLOSING])
def test_an_endless_response_is_streamed_and_ends_with_its_reader(head: bytes) -> None:
    ended = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        ended.set()

    with serving(lambda listener: Server(app, [listener]), tcp_listener()) as server:
        with server.connect() as connection:
            connection.sendall(head)
            data = b""
            while not data.endswith(b"5\r\nfirst\r\n"):
                data += connection.recv(65536)
            assert not ended.is_set()
        assert ended.wait(10)
        wait_for(lambda: server.call(lambda: server.server.connections) == 0)


def test_head_has_the_headers_alone_and_the_connection_stays(server: Serving) -> None:
    answer = raw(server, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" + CLOSING)
    first, _, rest = answer.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert rest.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("begins", [False, True])
def test_an_app_that_fails_is_said_in_the_log_and_to_the_client(
    caplog: pytest.LogCaptureFixture, begins: bool
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise LookupError("a defect")

    with serving(lambda listener: Server(app, [listener]), tcp_listener()) as server:
        answer = raw(server, REQUEST)
    assert answer.endswith(b"4\r\nhalf\r\n" if begins else b"Internal Server Error")
    assert [record.getMessage() for record in caplog.records] == ["Exception in GET /"]
