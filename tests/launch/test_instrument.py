"""The instrument around an app, without a server."""

import asyncio
import functools
from typing import Any

import pytest

from chansup.launch.in_flight import InFlight
from chansup.launch.instrument import closing_headers, instrument
from chansup.protocol import scoreboard


def new_cells() -> "memoryview[float]":
    return memoryview(bytearray(scoreboard.SIZE)).cast("d")


def in_loop(test: Any) -> Any:
    """Run a test coroutine in a loop of its own."""

    @functools.wraps(test)
    def run(**keywords: Any) -> None:
        asyncio.run(test(**keywords))

    return run


HTTP = {"type": "http", "http_version": "1.1", "method": "GET", "path": "/", "headers": []}


class Server:
    """What a server gives to an app."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def receive(self) -> dict[str, Any]:
        return await self.inbox.get()

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))


async def answer(send: Any, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


@in_loop
async def test_an_answer_says_close_only_while_draining() -> None:
    in_flight, server = InFlight(), Server()
    headers = [(b"Connection", b"keep-alive"), (b"x", b"y")]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, headers)

    instrumented = instrument(app, in_flight, new_cells())
    await instrumented(HTTP, server.receive, server.send)
    assert server.sent[0]["headers"] == headers
    in_flight.draining = True
    await instrumented(HTTP, server.receive, server.send)
    assert server.sent[2]["headers"] == [(b"x", b"y"), (b"connection", b"close")]
    assert headers[0] == (b"Connection", b"keep-alive")  # the app's own list is left alone
    await instrumented({**HTTP, "http_version": "2"}, server.receive, server.send)
    assert server.sent[4]["headers"] == headers


@in_loop
async def test_an_exception_passes_and_counts_as_500() -> None:
    cells, in_flight = new_cells(), InFlight()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("as asked")

    with pytest.raises(LookupError, match="as asked"):
        await instrument(app, in_flight, cells)(HTTP, Server().receive, Server().send)
    assert cells[scoreboard.request_cell("GET", 500)] == 1
    assert in_flight.requests == 0


@in_loop
async def test_work_after_the_response_is_not_counted_as_its_duration() -> None:
    cells, server = new_cells(), Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, [])
        await asyncio.sleep(0.05)

    await instrument(app, InFlight(), cells)(HTTP, server.receive, server.send)
    assert cells[scoreboard.DURATION_SUM] < 0.04


@in_loop
async def test_unknown_scopes_and_methods_pass() -> None:
    cells, server, seen = new_cells(), Server(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])
        if scope["type"] == "http":
            await answer(send, [])

    instrumented = instrument(app, InFlight(), cells, "/-/health")
    await instrumented({"type": "webtransport"}, server.receive, server.send)
    await instrumented({**HTTP, "method": "BREW"}, server.receive, server.send)
    await instrumented({**HTTP, "path": "/-/health", "method": "POST"}, server.receive, server.send)
    assert seen == ["webtransport", "http", "http"]
    assert cells[scoreboard.request_cell("OTHER", 200)] == 1


@in_loop
async def test_cut_cancels_requests_and_websockets_but_not_the_lifespan() -> None:
    in_flight, ended = InFlight(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(scope["type"])

    instrumented = instrument(app, in_flight, new_cells())
    servers = {kind: Server() for kind in ("lifespan", "http", "websocket")}
    tasks = {
        kind: asyncio.ensure_future(
            instrumented({**HTTP, "type": kind}, server.receive, server.send)
        )
        for kind, server in servers.items()
    }
    await asyncio.sleep(0)
    in_flight.cut()
    await asyncio.wait([tasks["http"], tasks["websocket"]], timeout=5)
    assert sorted(ended) == ["http", "websocket"]
    assert servers["http"].sent[0]["status"] == 503
    assert not tasks["lifespan"].done()
    tasks["lifespan"].cancel()


async def websocket_app(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    await send({"type": "websocket.accept"})
    while True:
        heard.append(await receive())
        if heard[-1]["type"] == "websocket.disconnect":
            return


@pytest.mark.parametrize("receive_blocks_close", [True, False])
@in_loop
async def test_a_close_reaches_an_app_whose_server_says_nothing(
    receive_blocks_close: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chansup.launch.instrument._CLOSE_PATIENCE", 0.01)
    in_flight, server, heard = InFlight(), Server(), list[Any]()
    in_flight.receive_blocks_close = receive_blocks_close

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await websocket_app(scope, receive, send, heard)

    cells = new_cells()
    instrumented = instrument(app, in_flight, cells)
    task = asyncio.ensure_future(instrumented({"type": "websocket"}, server.receive, server.send))
    await asyncio.sleep(0)
    (websocket,) = in_flight.websockets
    websocket.close()
    await asyncio.wait_for(task, 5)
    assert server.sent[-1]["code"] == 1012
    assert heard[-1]["code"] == 1012
    assert cells[scoreboard.close_cell(1012)] == 1


@in_loop
async def test_what_an_app_says_to_chansup_is_kept_from_the_client() -> None:
    server = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = ((b"x-mine", b"1"), (b"chansup-handover", b"close"))
        await send({"type": "websocket.accept", "headers": headers})

    await instrument(app, InFlight(), new_cells())(
        {"type": "websocket"}, server.receive, server.send
    )
    assert server.sent[0]["headers"] == [(b"x-mine", b"1")]


@in_loop
async def test_receive_survives_cancellation() -> None:
    """Channels cancels a receive() that lost the race against a channel message."""
    in_flight, server, heard = InFlight(), Server(), list[Any]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        for _ in range(3):
            waiting = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await server.inbox.put({"type": "websocket.receive", "text": "kept"})
        await server.inbox.put({"type": "websocket.disconnect", "code": 3000})
        await websocket_app(scope, receive, send, heard)

    instrumented = instrument(app, in_flight, new_cells())
    task = asyncio.ensure_future(instrumented({"type": "websocket"}, server.receive, server.send))
    await asyncio.wait_for(task, 5)
    assert [message["type"] for message in heard] == ["websocket.receive", "websocket.disconnect"]


@in_loop
async def test_a_cancelled_app_stays_cancelled_though_it_is_being_closed() -> None:
    in_flight, server = InFlight(), Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await websocket_app(scope, receive, send, [])

    instrumented = instrument(app, in_flight, new_cells())
    task = asyncio.ensure_future(instrumented({"type": "websocket"}, server.receive, server.send))
    await asyncio.sleep(0)
    task.cancel()
    (websocket,) = in_flight.websockets
    websocket.close()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_closing_headers() -> None:
    assert closing_headers([(b"CONNECTION", b"upgrade, keep-alive")]) == [(b"connection", b"close")]
