"""Apps and clients that do things at moments when nobody expects them."""

import asyncio
import socket
from typing import Any

import pytest

from tests.relay.both_sides import Interface, Receive, Scope, Send, relayed, until
from tests.relay.clients import Request, WebSocket
from tests.relay.echo_app import app as echo
from tests.relay.strangers import Stranger, hello
from tests.relay.test_broken_peers import Others, messages, run

CHUNKED = {"method": "POST", "headers": [(b"transfer-encoding", b"chunked")]}


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_tasks_that_an_app_left_behind_disturb_nobody(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    left: list[asyncio.Task[Any]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/untidy":
            await echo(scope, receive, send)
            return

        async def sends() -> None:
            event: dict[str, Any] = {"type": "websocket.send", "text": "x" * 5000}
            if kind == "http":
                event = {"type": "http.response.body", "body": b"x" * 5000, "more_body": True}
            while True:
                await asyncio.sleep(0.0005)
                await send(event)

        async def receives() -> None:
            while "disconnect" not in (await receive())["type"]:
                await asyncio.sleep(0.0005)

        if kind == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        else:
            await receive()
            await send({"type": "websocket.accept"})
        left.extend(asyncio.create_task(task()) for task in (sends, receives))
        await asyncio.sleep(0.005)

    async def scenario() -> None:
        async with relayed(app) as both:
            others = Others(both)
            await others.are_well()
            if kind == "http":
                one = Request(both, *[b"x" * 9000] * 20, complete=False, path="/untidy", **CHUNKED)
                await one.end()
            else:
                two = WebSocket(both, path="/untidy")
                for _ in range(20):
                    two.say("x" * 20_000)
                await two.end()
                assert two.close_code == 1000
            sending, receiving = await asyncio.gather(*left, return_exceptions=True)
            assert isinstance(sending, OSError)
            assert receiving is None
            await others.are_well()
            await others.leave()

    run(scenario)
    assert not any("given up" in line for line in messages(caplog))


def test_messages_that_come_before_the_app_accepts_are_not_forgotten() -> None:
    async def scenario() -> None:
        async with relayed(echo) as both:
            connected = WebSocket(both)
            for text in "abc":
                connected.say(text)
            await connected.until("websocket.send", 3)
            texts = [one.get("text") for one in connected.sent]
            assert texts == [None, "a", "b", "c"]
            connected.leave()
            await connected.end()

    run(scenario)


@pytest.mark.parametrize("size", [0, 10, 16_384, 16_385, 20_000, 500_000])
def test_the_last_words_of_a_client_arrive_before_its_end(size: int) -> None:
    heard: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            event = await receive()
            heard.append(len(event["text"]) if "text" in event else event["type"])
            if event["type"] == "websocket.disconnect":
                return

    async def scenario() -> None:
        async with relayed(app) as both:
            connected = WebSocket(both)
            await connected.until("websocket.accept")
            connected.say("hello")
            connected.say("x" * size)
            connected.leave()
            await connected.end()
            await until(lambda: "websocket.disconnect" in heard)
            assert heard == [5, size, "websocket.disconnect"]

    run(scenario)


def test_uploads_to_a_worker_that_neither_reads_nor_lives_freeze_nobody() -> None:
    async def scenario() -> None:
        interface = Interface(worker_timeout=0.1)
        ours, theirs = socket.socketpair()
        stranger, worker = Stranger(theirs), interface.adopt(ours)
        await stranger.say(hello(), b"\0\0\3\0\0\0\0\0\0\0\0\x64")  # GRANT 100
        await until(lambda: worker.has_permit)
        uploads = [
            Request(interface, *[b"x" * 60_000] * 3, complete=False, **CHUNKED) for _ in range(30)
        ]
        await until(lambda: worker.link is not None and worker.link.crowded)
        stranger.leave()
        await until(lambda: worker.is_closed)
        for upload in uploads:
            await upload.end()
            assert upload.status in (502, 503)
        interface.close()

    run(scenario)


def test_a_response_that_nobody_reads_costs_the_worker_a_window() -> None:
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
            sent += 10_000

    async def scenario() -> None:
        async with relayed(app) as both:
            unread = asyncio.Event()

            async def send(event: Any) -> None:
                await unread.wait()

            queue: asyncio.Queue[Any] = asyncio.Queue()
            scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": "/"}
            task = asyncio.create_task(both({**scope, "headers": []}, queue.get, send))
            await asyncio.sleep(0.1)
            assert 30_000 < sent < 256 * 1024
            queue.put_nowait({"type": "http.disconnect"})
            await until(lambda: not any(worker.streams for worker in both.app_workers))
            unread.set()
            assert list(await asyncio.gather(task, return_exceptions=True)) == [None]

    run(scenario)
