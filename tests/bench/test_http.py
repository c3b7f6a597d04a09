"""What is counted of HTTP, and how long it took."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Handler, answering, bench, free_port, measured, request, uvicorn

pytestmark = pytest.mark.slow  # the interpreter makes no difference
Raw = Callable[[Handler], str]


def test_so_many_requests(server: str) -> None:
    found = measured(f"http://{server}/", "-n", "500", "-c", "5")
    assert found.code == 0
    assert found["answers"] == 500
    assert found["statuses"] == {"200": 500}
    assert found["failed"] == found["unfinished"] == 0
    assert found["connects"] == found["most_open"] == 5
    assert found["bytes_received"] > 500 * len("HTTP/1.1 200 OK hello")
    latency = found["latency"]
    shares = ["p50", "p90", "p99", "p99.9", "max"]
    assert sorted(latency[share] for share in shares) == [latency[share] for share in shares]
    assert found["connect_time"]["p50"] > 0


def test_so_long(server: str) -> None:
    found = measured(f"http://{server}/", "-s", "0.5")
    assert found.code == 0
    assert found["answers"] > 10
    assert 0.4 < found["seconds"] < 20


def test_who_sleeps_is_seen_to(server: str) -> None:
    found = measured(f"http://{server}/slow", "-n", "60", "-c", "10")
    assert found.code == 0
    assert 0.049 <= found["latency"]["p50"] < 10
    assert found["per_second"] < 205  # ten at a time, 50 ms each


@pytest.mark.parametrize("path", ["/chunked", "/empty"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_answers_end_where_they_end(server: str, path: str, method: str) -> None:
    found = measured(f"http://{server}{path}", "-n", "50", "-c", "3", "--method", method)
    assert found.code == 0
    assert found["statuses"] == {"204" if path == "/empty" else "200": 50}
    assert found["connects"] == 3


@pytest.mark.parametrize("from_file", [False, True])
def test_a_request_with_a_body(server: str, tmp_path: Path, from_file: bool) -> None:
    (tmp_path / "form").write_text("name=value")
    data = f"@{tmp_path}/form" if from_file else "name=value"
    found = measured(f"http://{server}/post", "-n", "20", "--data", data, "-H", "X-One: 1")
    assert found["statuses"] == {"200": 20}


def test_refusals_are_failures_by_their_status(server: str) -> None:
    found = measured(f"http://{server}/missing", "-n", "20")
    assert found.code == 1
    assert found["failed_by_kind"] == {"status 404": 20}
    assert found["answers"] == 20
    found = measured(f"http://{server}/sometimes", "-n", "40")
    assert found["failed_by_kind"] == {"status 503": 10}


def test_whoever_closes_after_each_answer_and_says_so() -> None:
    with uvicorn("--header", "connection:close") as address:
        found = measured(f"http://{address}/", "-n", "40", "-c", "4")
    assert found.code == 0
    assert found["answers"] == 40
    assert 40 <= found["connects"] <= 44


def test_a_connection_for_each_request(server: str) -> None:
    found = measured(f"http://{server}/", "-n", "40", "-c", "4", "-H", "Connection: close")
    assert found.code == 0
    assert found["connects"] >= 40


def test_an_answer_that_ends_with_the_connection(raw: Raw) -> None:
    address = raw(answering(b"HTTP/1.1 200 OK\r\n\r\nhello", close=True))
    found = measured(f"http://{address}/", "-n", "10", "-c", "2")
    assert found.code == 0
    assert found["statuses"] == {"200": 10}


def test_what_comes_before_the_answer_is_none(raw: Raw) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    address = raw(answering(hints + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"))
    found = measured(f"http://{address}/", "-n", "10", "-c", "2")
    assert found["statuses"] == {"200": 10}
    assert found["connects"] == 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"hello\r\n\r\n", "malformed answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "malformed answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", "closed inside the answer"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", "closed inside the answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-", "closed inside the answer"),
        (b"", "closed before the answer"),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "malformed answer"),
        (2 * b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "malformed answer"),
        (b"HTTP/1.1 200 OK\r\nx: " + 300_000 * b"x", "malformed answer"),
    ],
)  # fmt: skip
def test_broken_answers(raw: Raw, answer: bytes, kind: str) -> None:
    address = raw(answering(answer, close=True))
    found = measured(f"http://{address}/", "-n", "6", "-c", "3")
    assert found.code == 1
    assert found["failed_by_kind"] == {kind: 6}
    assert found["answers"] == 0


def test_data_that_nobody_asked_for(raw: Raw) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await reader.read()

    found = measured(f"http://{raw(handle)}/", "-n", "4", "-c", "2")
    assert found.code == 1
    assert set(found["failed_by_kind"]) == {"malformed answer"}


def test_whoever_closes_at_once(raw: Raw) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pass

    found = measured(f"http://{raw(handle)}/", "-n", "4", "-c", "2")
    assert found.code == 1
    assert found["answers"] == 0
    assert found["failed"] == 4


def test_a_body_where_head_has_none(raw: Raw) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")

    found = measured(f"http://{raw(handle)}/", "-n", "4", "-c", "2", "--method", "HEAD")
    assert found["failed_by_kind"] == {"malformed answer": 4}


def test_who_does_not_answer(raw: Raw) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    found = measured(f"http://{raw(handle)}/", "-n", "3", "-c", "3", "--timeout", "0.3")
    assert found.code == 1
    assert found["failed_by_kind"] == {"timeout": 3}


def test_what_is_under_way_at_the_end(server: str) -> None:
    found = measured(f"http://{server}/slow?8", "-s", "0.2", "-c", "4")
    assert found["unfinished"] == 4
    assert found["answers"] == found["failed"] == 0


def test_whoever_closes_without_a_word(raw: Raw) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(20):
            await request(reader)
            if number == 19:
                return
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    found = measured(f"http://{raw(handle)}/", "-n", "60", "-c", "1")
    assert found.code == 1
    assert found["failed_by_kind"] == {"closed before the answer": 3}
    assert found["answers"] == 57
    assert found["connects"] == 3


def test_nothing_listens() -> None:
    port = free_port()
    done = bench(f"http://127.0.0.1:{port}/")
    assert done.code == 1
    assert f"refused: nothing listens on port {port} of 127.0.0.1" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_host() -> None:
    done = bench("http://host.invalid/")
    assert done.code == 1
    assert "'host.invalid'" in done.stderr


def test_tls(certificate: tuple[Path, Path]) -> None:
    names = ("--ssl-certfile", "--ssl-keyfile")
    options = [each for pair in zip(names, map(str, certificate), strict=True) for each in pair]
    with uvicorn(*options) as address:
        found = measured(f"https://{address}/", "-n", "100", "-c", "4", "--insecure")
        assert found.code == 0
        assert found["statuses"] == {"200": 100}
        echoed = measured(f"wss://{address}/", "-n", "100", "-c", "4", "--insecure")
        assert echoed["answers"] == 100
        for scheme in ("https", "wss"):
            done = bench(f"{scheme}://{address}/")
            assert done.code == 1
            assert "certificate is not trusted" in done.stderr
            assert "--insecure" in done.stderr
        assert bench(f"http://{address}/", "-n", "2").code == 1  # TLS is spoken there


def test_tls_where_none_is_spoken(server: str) -> None:
    done = bench(f"https://{server}/", "--insecure")
    assert done.code == 1
    assert "does it speak TLS there?" in done.stderr


def test_the_path_the_query_and_the_host(raw: Raw) -> None:
    heads: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append(await request(reader))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    address = raw(handle)
    assert measured(f"http://{address}/ä b?q=%20ü&x#part", "-n", "1", "-c", "1").code == 0
    lines = heads[0].split(b"\r\n")
    assert lines[0] == b"GET /%C3%A4%20b?q=%20%C3%BC&x HTTP/1.1"
    assert f"Host: {address}".encode() in lines
    assert measured(f"http://{address}", "-n", "1", "-H", "host: example.org").code == 0
    assert b"host: example.org\r\n" in heads[-1]
    assert heads[-1].lower().count(b"host:") == 1


def test_a_server_that_never_answers_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        found = measured(f"http://{address}/", "-s", "0.3", "-c", "2")
    assert found.code == 1
    assert (found["answers"], found["failed"], found["unfinished"]) == (0, 0, 2)
    assert "No answer came" in found.stderr
