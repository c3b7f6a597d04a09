"""What is counted of WebSockets."""

import asyncio
from collections.abc import Callable

import pytest
from websockets.utils import accept_key

from .conftest import Handler, answering, measured, request

pytestmark = pytest.mark.slow  # the interpreter makes no difference
Raw = Callable[[Handler], str]


async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await request(reader)
    key = next(line.split()[1] for line in head.split(b"\r\n") if b"-Key:" in line)
    answer = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    writer.write(f"{answer}sec-websocket-accept: {accept_key(key.decode())}\r\n\r\n".encode())


def test_echoes(server: str) -> None:
    found = measured(f"ws://{server}/", "-n", "300", "-c", "5")
    assert found.code == 0
    assert found["mode"] == "websocket, echo"
    assert found["answers"] == 300
    assert found["connects"] == 5
    assert found["closes"] == {}
    assert found["failed"] == found["unasked_messages"] == 0
    assert 0 < found["latency"]["p50"] <= found["latency"]["max"]


def test_numbers_in_messages(server: str) -> None:
    found = measured(f"ws://{server}/numbers", "-n", "50", "--message", "n={n}")
    assert found.code == 0
    found = measured(f"ws://{server}/numbers", "-n", "20", "--message", "none")
    assert found.code == 1
    assert set(found["failed_by_kind"]) == {"closed with 4002"}


def test_a_long_message(server: str) -> None:
    message = 100_000 * "x"
    found = measured(f"ws://{server}/", "-n", "10", "-c", "2", "--message", message)
    assert found["answers"] == 10
    assert found["bytes_received"] > 10 * len(message)


def test_a_rate(server: str) -> None:
    found = measured(f"ws://{server}/", "-n", "50", "-c", "5", "--rate", "200")
    assert found.code == 0
    assert found["answers"] == 50
    assert found["per_second"] < 230


def test_only_held_open(server: str) -> None:
    found = measured(f"ws://{server}/", "--idle", "-c", "200", "-s", "0.5")
    assert found.code == 0
    assert found["mode"] == "websocket, idle"
    assert found["connects"] == found["most_open"] == 200
    assert found["answers"] == found["failed"] == 0
    assert found["connect_time"]["p50"] > 0


def test_those_that_do_not_stay(server: str) -> None:
    found = measured(f"ws://{server}/leave", "--idle", "-c", "5", "-s", "0.5")
    assert found.code == 1
    (count,) = found["closes"].values()
    assert found["closes"] == {"4001": count}
    assert found["failed_by_kind"] == {"closed with 4001": count}
    assert count >= 5


def test_closed_with_a_message_under_way(server: str) -> None:
    found = measured(f"ws://{server}/deploy", "-n", "6", "-c", "3")
    assert found.code == 1
    assert found["failed_by_kind"] == {"closed with 1012": 6}
    assert found["closes"] == {"1012": 6}


def closing(code: int) -> Handler:
    """Answer a message and say goodbye, in one piece."""
    goodbye = b"\x88\x02" + code.to_bytes(2, "big")

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        await reader.read(1)
        writer.write(b"\x81\x02ok" + goodbye)
        await writer.drain()
        await reader.read()

    return handle


def test_closed_between_messages_is_no_failure(raw: Raw) -> None:
    found = measured(f"ws://{raw(closing(1000))}/", "-n", "20", "-c", "2")
    assert found.code == 0
    assert found["answers"] == 20
    assert found["closes"]["1000"] >= 18


def test_closed_between_messages_with_another_code_is_one(raw: Raw) -> None:
    found = measured(f"ws://{raw(closing(1012))}/", "-n", "20", "-c", "2")
    assert found.code == 1
    assert found["answers"] == 20
    assert found["failed"] == found["closes"]["1012"] >= 18


def test_a_handshake_that_is_refused(server: str) -> None:
    found = measured(f"ws://{server}/denied", "-n", "6", "-c", "3")
    assert found.code == 1
    assert set(found["failed_by_kind"]) == {"handshake refused with 403"}
    assert found["connects"] == 0


def test_a_server_that_knows_no_websockets(raw: Raw) -> None:
    for answer, kind in (
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "handshake refused with 200"),
        (b"hello\r\n\r\n", "malformed answer"),
        (b"", "closed before the answer"),
    ):
        address = raw(answering(answer, close=True))
        found = measured(f"ws://{address}/", "-n", "3", "-c", "3")
        assert found.code == 1
        assert set(found["failed_by_kind"]) == {kind}


def test_a_handshake_without_answer(raw: Raw) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        await reader.read()

    address = raw(handle)
    found = measured(f"ws://{address}/", "-n", "2", "-c", "2", "--timeout", "0.3")
    assert set(found["failed_by_kind"]) == {"timeout"}


@pytest.mark.parametrize(
    ("frame", "kind"),
    [(b"\xff\xff", "malformed answer"), (b"\x81\x05hel", "closed with 1006"), (b"", "closed with 1006")],
)  # fmt: skip
def test_what_is_no_websocket_after_all(raw: Raw, frame: bytes, kind: str) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        await reader.read(1)
        writer.write(frame)
        await writer.drain()

    found = measured(f"ws://{raw(handle)}/", "-n", "4", "-c", "2")
    assert found.code == 1
    assert found["failed_by_kind"] == {kind: 4}


def test_other_messages(server: str) -> None:
    found = measured(f"ws://{server}/greeting", "-n", "20", "-c", "2")
    assert found["answers"] + found["unasked_messages"] >= 20
    assert found.code == 0


def test_headers_and_subprotocols(server: str) -> None:
    options = ["-H", "Sec-WebSocket-Protocol: chat, other", "-H", "Cookie: a=b", "-n", "5"]
    assert measured(f"ws://{server}/", *options).code == 0
