"""What the app's context says of the WebSocket, for the channel layer."""

import asyncio
import re

import msgspec
import pytest

from chansup.protocol import relay_board as board
from chansup.protocol import roster
from chansup.protocol.connection import Connection, connection
from chansup.relay import scopes
from tests.relay.both_sides import BothSides, Receive, Scope, Send, relayed, until
from tests.relay.clients import Request, WebSocket
from tests.relay.test_broken_peers import run


class Diary:
    """An app that keeps what it found, and when it was told to leave."""

    def __init__(self) -> None:
        self.found: list[Connection] = []
        self.ends: list[tuple[str, bool]] = []  # paths, and whether it is a handover
        self.farewells: list[bool] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        own = connection.get()
        if scope["type"] == "http":
            assert own is None
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        assert own is not None
        self.found.append(own)
        own.farewells.append(lambda: self.farewells.append(own.leaving))
        await receive()
        await send({"type": "websocket.accept"})
        assert not own.leaving
        if scope["path"] == "/sends":
            try:
                while True:
                    assert not own.leaving
                    await send({"type": "websocket.send", "text": "x"})
                    await asyncio.sleep(0.001)
            except OSError:
                self.ends.append((scope["path"], own.leaving))
            return
        if scope["path"] == "/stays":
            try:
                await asyncio.sleep(3600)
            finally:
                self.ends.append((scope["path"], own.leaving))
        while (event := await asyncio.ensure_future(receive()))["type"] != "websocket.disconnect":
            await send({**event, "type": "websocket.send"})
        self.ends.append((scope["path"], own.leaving))


async def deploy(both: BothSides) -> None:
    """Replace the only worker."""
    (old,) = both.app_workers
    await both.add_worker()
    both.app_workers[old].drain()
    await until(lambda: not old.streams)


def test_it_is_the_same_one_at_every_worker() -> None:
    diary = Diary()

    async def scenario() -> None:
        async with relayed(diary) as both, relayed(diary) as other:
            one, two, third = WebSocket(both), WebSocket(both), WebSocket(other)
            assert await one.ask("1") == await two.ask("1") == await third.ask("1") == "1"
            request = Request(both)
            assert (await request.answer())[0] == 204
            first, second, elsewhere = (found.id for found in diary.found)
            assert len({first, second, elsewhere}) == 3
            assert all(re.fullmatch(r"[0-9a-f]{16}\.\d+", id) for id in (first, second, elsewhere))
            (old,) = both.app_workers
            both.app_workers[old].drain()
            await both.add_worker()
            await until(lambda: not old.streams)
            assert await one.ask("2") == await two.ask("2") == "2"
            assert sorted(found.id for found in diary.found[3:]) == sorted((first, second))
            assert diary.ends == [("/", True)] * 2 and diary.farewells == [True] * 2
            assert not any(found.leaving for found in diary.found[2:])
            both.kill(next(worker for worker in both.app_workers if worker is not old))
            await both.add_worker()
            assert await one.ask("3") == await two.ask("3") == "3"
            assert sorted(found.id for found in diary.found[5:]) == sorted((first, second))
            diary.ends.clear()
            for client in (one, two, third):
                client.leave()
                await client.end()
            await until(lambda: len(diary.ends) == 3)
            assert diary.ends == [("/", False)] * 3

    run(scenario)


def test_an_app_that_only_sends_finds_it_when_its_send_fails() -> None:
    diary = Diary()

    async def scenario() -> None:
        async with relayed(diary) as both:
            moving, left = WebSocket(both, path="/sends"), WebSocket(both, path="/sends")
            await moving.until("websocket.send")
            await left.until("websocket.send")
            left.leave()
            await until(lambda: diary.ends == [("/sends", False)])
            await deploy(both)
            assert diary.ends[1:] == [("/sends", True)]
            assert diary.farewells == [False, True]
            await moving.until("websocket.send")
            moving.leave()
            await until(lambda: len(diary.ends) == 3)

    run(scenario)


@pytest.mark.parametrize("drains", [True, False])
def test_an_app_that_is_cancelled_finds_it(drains: bool) -> None:
    """Time is up, whether it was asked to leave before or not."""
    diary = Diary()

    async def scenario() -> None:
        async with relayed(diary) as both:
            client = WebSocket(both, path="/stays")
            await client.until("websocket.accept")
            (old,) = both.app_workers
            app = both.app_workers.pop(old)
            if drains:
                await both.add_worker()
                app.drain()
                await until(lambda: both.cells[board.PAUSED])
            app.cut()
            await until(lambda: diary.ends)
            assert diary.ends == [("/stays", True)]
            assert diary.found[0].unfinished
            app.close()
            client.leave()
            await client.end()

    run(scenario)


def test_it_does_not_leave_where_nobody_goes_on() -> None:
    diary = Diary()
    routes = [roster.Route("websocket", handover="close")]

    async def scenario() -> None:
        async with relayed(diary, routes=routes) as both:
            client = WebSocket(both)
            assert await client.ask("1") == "1"
            await deploy(both)
            await client.end()
            assert client.close_code == 1012
            assert diary.ends == [("/", False)]
            assert diary.farewells == [False]

    run(scenario)


@pytest.mark.parametrize("id", ["", "a" * 101, "a/1", "a 1", "ä", "a\n", 7, None])
def test_an_odd_id_is_refused(id: object) -> None:
    scope = scopes.encode_websocket({"path": "/", "headers": []}, 1.5)
    good = scopes.opening(scopes.Resumption("0123456789abcdef.1"), scope)
    assert scopes.decode_websocket(good)[0].id == "0123456789abcdef.1"
    with pytest.raises(msgspec.DecodeError):
        scopes.decode_websocket(scopes.opening(scopes.Resumption(id), scope))  # type: ignore[arg-type]
