"""A broken peer costs its connection: not the process, and not what others have there."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from chansup.protocol import relay_board
from chansup.relay import scopes
from chansup.relay.appworker import server
from chansup.relay.appworker.server import AppWorker
from chansup.relay.frames import (
    END,
    EXPECTED,
    FINISHED,
    HEADER,
    MAX_PAYLOAD,
    MORE,
    PROTOCOL,
    TEXT,
    Kind,
    pack,
)
from chansup.relay.interface import worker as worker_side
from tests.relay.both_sides import (
    BothSides,
    app_worker,
    both_idle,
    relayed,
    until,
)
from tests.relay.clients import Request, WebSocket
from tests.relay.echo_app import app as echo
from tests.relay.strangers import (
    Stranger,
    accept,
    hello,
    message,
    opening,
    request,
    response,
    start,
)

CONCURRENCY = 10


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario in a loop of its own. What goes wrong in a callback or is left over counts."""
    defects: list[Any] = []

    async def watched() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: defects.append(context))
        async with asyncio.timeout(30):
            await scenario()
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            await asyncio.wait(left, timeout=1)
        assert not [task for task in left if not task.done()]

    asyncio.run(watched())
    assert not defects, defects


class Others:
    """An interface process that behaves: its connections are what a broken one must not cost."""

    def __init__(self, both: BothSides) -> None:
        self.both = both
        self.websocket = WebSocket(both)
        self.worker = next(iter(both.app_workers.values()))

    async def are_well(self) -> None:
        assert await self.websocket.ask("are you there?") == "are you there?"
        assert await Request(self.both).answer() == (200, b"")
        assert await Request(self.both, b"abc", b"def", path="/streamed", headers=[
            (b"transfer-encoding", b"chunked")
        ], method="POST").answer() == (200, b"abcdef")  # fmt: skip

    async def leave(self) -> None:
        self.websocket.leave()
        await self.websocket.end()
        await both_idle(self.both)

    def meet(self, *, welcome: bool = True) -> Stranger:
        """Return somebody who has just connected to the worker."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        if welcome:
            self.worker.adopt(ours)
        return Stranger(theirs)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged; there must not be a traceback."""
    for record in caplog.records:
        assert not record.exc_info
        assert "Traceback" not in record.getMessage()
        assert "\n" not in record.getMessage()
    return [record.getMessage() for record in caplog.records]


def with_strangers(
    caplog: pytest.LogCaptureFixture,
    scenario: Callable[[Others], Awaitable[None]],
    logged: int | None = 1,
) -> None:
    """Run a scenario beside others, who must not notice. It may cost `logged` lines."""

    async def whole() -> None:
        async with relayed(echo, concurrency=CONCURRENCY) as both:
            others = Others(both)
            await others.are_well()
            await scenario(others)
            await others.are_well()
            await others.leave()
            permits = others.worker.permits
            await until(
                lambda: permits.free + permits._holders[_interface(others)].held == CONCURRENCY
            )

    run(whole)
    if logged is not None:
        assert len(messages(caplog)) == logged, messages(caplog)


def _interface(others: Others) -> Any:
    """Return the only interface process that is left."""
    (one,) = others.worker._interfaces
    return one


# Strangers at the worker

HUGE = [(b"x", b"y" * 1000)] * 300
WRONG_TYPES: list[Any] = [
    None,
    1,
    "x",
    [],
    {},
    [1] * 12,
    [1.0, "1.1", "GET", "http", "/"],
    [b"\xff"] * 12,
]

NESTED = b"\x91" * 10_000

BEFORE_GREETING = {
    "garbage": b"\xff" * 100,
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": bytes(100),
    "another version": hello(protocol=PROTOCOL + 1),
    "no greeting but a request": request(1),
    "no greeting but a websocket": opening(1),
    "no greeting but a need": pack(Kind.NEED, 0, 0, 1),
    "no greeting but a return": pack(Kind.RETURN, 0, 0, 0),
    "no greeting but a body": pack(Kind.BODY, 0, 1, 1, b"x"),
    "an empty greeting": pack(Kind.HELLO, 0, 0, 0),
    "a greeting of wrong types": pack(Kind.HELLO, 0, 0, 0, scopes.encode(["x", 1, 2])),
    "a greeting that is not UTF-8": hello().replace(b"stranger", b"str\xff\xfeger"),
    "a greeting that is nested": pack(Kind.HELLO, 0, 0, 0, b"\x81\xa1a" + NESTED),
    "a greeting for a stream": hello()[:4] + b"\0\0\0\1" + hello()[8:],
}

AFTER_GREETING = {
    "garbage": b"\xff" * 100,
    "two greetings": hello(),
    "zeros": bytes(12),
    "a kind that is none": pack(99, 0, 0, 0),
    "a kind of the worker": pack(Kind.GRANT, 0, 0, 5),
    "more permits than it has": pack(Kind.RETURN, 0, 0, 1000),
    "a stream that was never begun": pack(Kind.BODY, 0, 7, 1, b"x"),
    "a message before the websocket": message(1, 1, b"x"),
    "the stream of the connection": request(0),
    "a stream twice": request(5, flags=0) + request(5),
    "streams in wrong order": request(5) + request(4),
    "a body after its end": request(1) + pack(Kind.BODY, 0, 1, 1, b"x"),
    "a body that begins with part 2": request(1, flags=0) + pack(Kind.BODY, 0, 1, 2, b"x"),
    "a part of a body twice": request(1, flags=0) + pack(Kind.BODY, 0, 1, 1, b"x") * 2,
    "a response": request(1, flags=0) + response(1),
    "a message of a request": request(1, flags=0) + message(1, 1, b"x"),
    "credit for nothing": opening(1) + pack(Kind.CREDIT, 0, 1, 1000),
    "credit for nothing of a request": request(1, flags=0) + pack(Kind.CREDIT, 0, 1, 1),
    "a disconnect twice": opening(1) + pack(Kind.DISCONNECT, 0, 1, 1000) * 2,
    "message 2 first": opening(1) + message(1, 2, b"x"),
    "message 1 where 5 were": opening(1, number=5) + message(1, 1, b"x"),
    "two messages at once": opening(1) + message(1, 1, b"x") + message(1, 2, b"y"),
    "a text that is not UTF-8": opening(1) + message(1, 1, b"\xff\xfe"),
    "a message after the leave": opening(1) + pack(Kind.LEAVE, 0, 1, 0) + message(1, 1, b"x"),
    "leave twice": opening(1) + pack(Kind.LEAVE, 0, 1, 0) * 2,
    "a body of a websocket": opening(1) + pack(Kind.BODY, END, 1, 1, b"x"),
    "a scope that is too large": pack(Kind.REQUEST, MORE, 1, 0, b"x" * MAX_PAYLOAD) * 20,
    "a body in the middle of a scope": pack(Kind.REQUEST, MORE, 1, 0, b"x") + pack(Kind.BODY, 0, 1, 1),
    "a huge frame after a request": request(1, flags=0) + HEADER.pack(2**16 - 1, 18, 0, 1, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", BEFORE_GREETING)
def test_a_stranger_at_the_worker(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(others: Others) -> None:
        stranger = others.meet()
        await stranger.say(BEFORE_GREETING[name])
        assert await stranger.is_turned_away()
        stranger.leave()

    with_strangers(caplog, scenario)


@pytest.mark.parametrize("name", AFTER_GREETING)
def test_an_interface_that_breaks_the_rules(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(others: Others) -> None:
        stranger = others.meet()
        await stranger.say(hello())
        await stranger.hear(Kind.GRANT)
        await stranger.say(AFTER_GREETING[name])
        assert await stranger.is_turned_away()
        stranger.leave()

    with_strangers(caplog, scenario)


@pytest.mark.parametrize("scope", WRONG_TYPES, ids=repr)
@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.OPEN])
def test_a_scope_of_wrong_types_costs_its_stream(
    scope: Any, kind: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(others: Others) -> None:
        stranger = others.meet()
        await stranger.say(hello(), pack(kind, END, 1, 0, scopes.encode(scope)))
        _, _, stream, _, _ = await stranger.hear(Kind.DONE)
        assert stream == 1
        await stranger.say(request(2))
        await stranger.hear(Kind.RESPONSE)
        stranger.leave()

    with_strangers(caplog, scenario)


@pytest.mark.parametrize("length", range(0, len(hello()), 5))
def test_half_a_greeting_and_gone(length: int, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(others: Others) -> None:
        stranger = others.meet()
        await stranger.say(hello()[:length])
        stranger.leave()
        await until(lambda: len(others.worker._interfaces) == 1)

    with_strangers(caplog, scenario, logged=None)
    assert len(messages(caplog)) <= 1


def test_no_greeting_in_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(others: Others) -> None:
        monkeypatch.setattr(server, "_GREETING_TIMEOUT", 0.05)
        strangers = [others.meet(), others.meet()]
        await strangers[1].say(hello()[:-1])
        for stranger in strangers:
            assert await stranger.is_turned_away()
            stranger.leave()

    with_strangers(caplog, scenario, logged=2)


def test_a_large_scope_in_many_frames_arrives(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(others: Others) -> None:
        stranger = others.meet()
        large = [(b"x", b"y" * 1000)] * 250
        await stranger.say(hello(), request(1, headers=large), opening(2, headers=large))
        await stranger.hear(Kind.RESPONSE)
        await stranger.hear(Kind.ACCEPT)
        stranger.leave()

    with_strangers(caplog, scenario, logged=0)


def test_gone_in_the_midst_of_everything(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(others: Others) -> None:
        stranger = others.meet()
        half = request(9, headers=HUGE)[: 2 * MAX_PAYLOAD]
        await stranger.say(
            hello(),
            request(1, flags=0, method="POST"),
            request(2, flags=EXPECTED, method="POST"),
            opening(3) + message(3, 1, b"x", flags=TEXT | MORE),
            opening(4) + message(4, 1, b"x") + pack(Kind.LEAVE, 0, 4, 0),
            pack(Kind.NEED, 0, 0, 1000) + half,
        )
        await stranger.hear(Kind.ACCEPT)
        stranger.leave()
        await until(lambda: len(others.worker._interfaces) == 1)

    with_strangers(caplog, scenario, logged=0)


def test_requests_without_permits_are_not_the_end_of_the_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(others: Others) -> None:
        stranger = others.meet()
        await stranger.say(hello(), *(request(n, flags=0) for n in range(1, 4 * CONCURRENCY)))
        await stranger.hear(Kind.GRANT)
        stranger.leave()
        await until(lambda: len(others.worker._interfaces) == 1)

    with_strangers(caplog, scenario, logged=None)


def test_frames_that_came_with_the_last_one_that_could_be_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(others: Others) -> None:
        stranger = others.meet()
        await stranger.say(
            hello(),
            request(1, method="POST"),
            request(2),
            request(3, flags=0),
            opening(4),
            pack(Kind.RETURN, 0, 0, 1) + pack(Kind.NEED, 0, 0, 1),
        )
        stranger.leave()  # before a byte of it was read
        await until(lambda: len(others.worker._interfaces) == 1)

    with_strangers(caplog, scenario, logged=None)


def test_who_asks_for_every_permit_gives_them_back_by_going(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(others: Others) -> None:
        stranger = others.meet()
        await stranger.say(hello(), pack(Kind.NEED, 0, 0, 2**32 - 1))
        await asyncio.sleep(0.02)
        assert others.worker.permits.free == 0
        stranger.leave()
        await until(lambda: others.worker.permits.free > 0)

    with_strangers(caplog, scenario, logged=0)


def test_a_stranger_that_does_not_read_delays_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(others: Others) -> None:
        stranger = others.meet()
        body = b"x" * MAX_PAYLOAD
        parts = b"".join(pack(Kind.BODY, 0, 1, n, body) for n in range(1, 4))
        await stranger.say(hello(), request(1, flags=0, path="/streamed"), parts)
        await stranger.say(pack(Kind.BODY, END, 1, 4, body), opening(2))
        await others.are_well()
        stranger.leave()
        await until(lambda: len(others.worker._interfaces) == 1)

    with_strangers(caplog, scenario, logged=0)


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "worker.sock")


async def knocking(address: str) -> Stranger:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, address)
    return Stranger(sock)


def listening(address: str, worker: AppWorker) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.setblocking(False)
    listener.bind(address)
    listener.listen(300)
    worker.listen(listener)


def test_other_users_are_turned_away(address: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        worker = app_worker(echo, peers=frozenset({os.getuid() + 1}))
        listening(address, worker)
        stranger = await knocking(address)
        await stranger.say(hello())
        assert await stranger.is_turned_away()
        assert stranger.frames == []
        assert worker.permits.free == CONCURRENCY
        worker.close()
        stranger.leave()

    run(scenario)
    (line,) = messages(caplog)
    assert f"pid {os.getpid()} (uid {os.getuid()})" in line


def test_too_many_connections_are_turned_away(
    address: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_MOST_CONNECTIONS", 3)

    async def scenario() -> None:
        worker = app_worker(echo, peers=frozenset({os.getuid()}))
        listening(address, worker)
        welcome = [await knocking(address) for _ in range(3)]
        for stranger in welcome:
            await stranger.hear(Kind.HELLO)
        superfluous = await knocking(address)
        assert await superfluous.is_turned_away()
        superfluous.leave()
        welcome.pop().leave()
        await until(lambda: len(worker._interfaces) == 2)
        late = await knocking(address)
        await late.say(hello(), request(1))
        await late.hear(Kind.RESPONSE)
        late.leave()
        for stranger in welcome:
            stranger.leave()
        await until(lambda: not worker._interfaces)
        worker.close()

    run(scenario)
    assert sum("too many connections" in line for line in messages(caplog)) == 1


# Strangers in the place of a worker


def with_false_worker(
    caplog: pytest.LogCaptureFixture,
    scenario: Callable[[BothSides, Stranger, worker_side.Worker], Awaitable[None]],
    logged: int | None = 1,
) -> None:
    """Run a scenario with a real worker and a false one, to which everything new goes first."""

    async def whole() -> None:
        async with relayed(echo, queue_timeout=1.0, websocket_timeout=1.0) as both:
            others = Others(both)
            await others.are_well()
            ours, theirs = socket.socketpair()
            stranger, worker = Stranger(theirs), both.adopt(ours)
            await scenario(both, stranger, worker)
            stranger.leave()
            await until(lambda: worker.is_closed)
            await others.are_well()
            await others.leave()
            for gauge in relay_board.GAUGES:
                assert both.cells[gauge] == 0

    run(whole)
    if logged is not None:
        assert len(messages(caplog)) == logged, messages(caplog)


FALSE_GREETINGS = {
    **{name: data for name, data in BEFORE_GREETING.items() if "no greeting" not in name},
    "no greeting but permits": pack(Kind.GRANT, 0, 0, 5),
    "no greeting but a response": response(1),
    "no greeting but the end": pack(Kind.DRAINING, 0, 0, 0),
}


@pytest.mark.parametrize("name", FALSE_GREETINGS)
def test_a_stranger_in_the_place_of_a_worker(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(both: BothSides, stranger: Stranger, worker: Any) -> None:
        await stranger.say(FALSE_GREETINGS[name])
        assert await stranger.is_turned_away()

    with_false_worker(caplog, scenario)


FALSE_ANSWERS = {
    "garbage": b"\xff" * 100,
    "a kind that is none": pack(99, 0, 1, 0),
    "a kind of the interface": pack(Kind.NEED, 0, 0, 1),
    "two greetings": hello(),
    "a response for another": response(7),
    "a response twice": response(1, flags=END) * 2,
    "a response without its end": response(1, flags=FINISHED),
    "a finished response twice": response(1) * 2,
    "a start twice": start(1) * 2,
    "done with more to come": pack(Kind.DONE, MORE, 1, 0),
    "a message for a request": message(1, 1, b"x"),
    "a finished message for a request": message(1, 1, b"x", flags=FINISHED),
    "an acceptance for a request": accept(1),
    "a body without a start": pack(Kind.BODY, 0, 1, 1, b"x"),
    "a body in wrong order": start(1) + pack(Kind.BODY, 0, 1, 2, b"x"),
    "a body after its end": start(1) + pack(Kind.BODY, END, 1, 1) + pack(Kind.BODY, 0, 1, 2),
    "credit for nothing": pack(Kind.CREDIT, 0, 1, 1000),
    "parts of different kinds": pack(Kind.START, MORE, 1, 0, b"x") + pack(Kind.EVENT, 0, 1, 0, b"x"),
    "an endless event": pack(Kind.EVENT, MORE, 1, 0, b"x" * MAX_PAYLOAD) * 20,
}  # fmt: skip


@pytest.mark.parametrize("name", FALSE_ANSWERS)
def test_garbage_instead_of_an_answer(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(both: BothSides, stranger: Stranger, worker: Any) -> None:
        await stranger.say(hello(), pack(Kind.GRANT, 0, 0, 100))
        await until(lambda: worker.has_permit)
        real = next(iter(both.app_workers))
        real.used += 5  # so that the false one is the idler of the two
        asked = Request(both)
        await stranger.hear(Kind.REQUEST)
        real.used -= 5
        await stranger.say(FALSE_ANSWERS[name])
        assert await stranger.is_turned_away()
        raised = await asked.end()
        # Retried elsewhere, unless a part of a response was there.
        if raised is None:
            assert asked.status == 200
        else:
            assert type(raised).__name__ == "BrokenResponseError"
            assert (asked.status == 200 and "start" in name) or "body" in name

    with_false_worker(caplog, scenario, logged=None)
    assert 1 <= len(messages(caplog)) <= 2


FALSE_HEADS = {
    "wrong types": scopes.encode(("x", 1)),
    "nothing": b"",
    "no MessagePack": b"\xc1",
    "not UTF-8": scopes.encode_head({"status": 200}, False)[:1] + b"\xa1\xff\x90",
    "nested": b"\x94\x01\x90\xc2" + NESTED,
    "a nested map": b"\x81\xa4type" + NESTED,
    "a map": scopes.encode({"status": 200}),
}


@pytest.mark.parametrize("name", FALSE_HEADS)
@pytest.mark.parametrize("kind", [Kind.START, Kind.RESPONSE, Kind.EVENT])
def test_a_head_that_is_none_costs_its_stream(
    name: str, kind: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(both: BothSides, stranger: Stranger, worker: Any) -> None:
        await stranger.say(hello(), pack(Kind.GRANT, 0, 0, 100))
        await until(lambda: worker.has_permit)
        real = next(iter(both.app_workers))
        real.used += 5
        asked = Request(both)
        await stranger.hear(Kind.REQUEST)
        real.used -= 5
        head = FALSE_HEADS[name]
        flags = END if kind == Kind.RESPONSE else 0
        await stranger.say(pack(kind, flags, 1, len(head), head))
        raised = await asked.end()
        assert raised is None or type(raised).__name__ == "BrokenResponseError", raised
        assert not asked.sent or asked.status == 502

    with_false_worker(caplog, scenario, logged=None)
    assert len(messages(caplog)) <= 2


FALSE_WEBSOCKETS = {
    "garbage": b"\xff" * 100,
    "a message before it is accepted": message(1, 1, b"x"),
    "accepted twice": accept(1) * 2,
    "an acceptance that is none": pack(Kind.ACCEPT, 0, 1, 0, b"\xc1"),
    "an acceptance that is nested": pack(Kind.ACCEPT, 0, 1, 0, NESTED),
    "a checkpoint that is nested": pack(Kind.CHECKPOINT, 0, 1, 0, NESTED),
    "a checkpoint that is none": pack(Kind.CHECKPOINT, 0, 1, 0, b"\xc1"),
    "a checkpoint that is not UTF-8": pack(Kind.CHECKPOINT, 0, 1, 0, b"\xa1\xff"),
    "message 2 first": accept(1) + message(1, 2, b"x"),
    "a text that is not UTF-8": accept(1) + message(1, 1, b"\xff"),
    "a finished text that is not UTF-8": accept(1) + message(1, 1, b"\xff", flags=TEXT | FINISHED),
    "a response after the acceptance": accept(1) + response(1),
    "a message after the close": accept(1) + pack(Kind.CLOSE, 0, 1, 1000) + message(1, 1, b"x"),
    "a message after the end": accept(1) + pack(Kind.DONE, 0, 1, 0) + message(1, 1, b"x"),
    "credit": accept(1) + pack(Kind.CREDIT, 0, 1, 5),
    "done with more to come": accept(1) + pack(Kind.DONE, MORE, 1, 0) + b"\xff" * 12,
}


@pytest.mark.parametrize("name", FALSE_WEBSOCKETS)
def test_garbage_for_a_websocket(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(both: BothSides, stranger: Stranger, worker: Any) -> None:
        await stranger.say(hello(), pack(Kind.GRANT, 0, 0, 100))
        await until(lambda: worker.has_permit)
        real = next(iter(both.app_workers))
        real.used += 5
        connected = WebSocket(both)
        await stranger.hear(Kind.OPEN)
        real.used -= 5
        await stranger.say(FALSE_WEBSOCKETS[name])
        assert await stranger.is_turned_away()
        if "close" in name or "the end" in name:
            await connected.end()  # by what came before the garbage
        else:
            await connected.until("websocket.accept")
            before = len([one for one in connected.sent if one["type"] == "websocket.send"])
            connected.said = before
            assert await connected.ask("still there?") == "still there?"  # at the other worker
            connected.leave()
            await connected.end()

    with_false_worker(caplog, scenario)


def test_a_finished_flag_on_what_does_not_end_orphans_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(both: BothSides, stranger: Stranger, worker: Any) -> None:
        await stranger.say(hello(), pack(Kind.GRANT, 0, 0, 100))
        await until(lambda: worker.has_permit)
        next(iter(both.app_workers)).used += 5
        connected = WebSocket(both)
        await stranger.hear(Kind.OPEN)
        next(iter(both.app_workers)).used -= 5
        await stranger.say(accept(1), message(1, 1, b"x", flags=TEXT | FINISHED))
        await connected.until("websocket.send")
        stranger.leave()
        await until(lambda: worker.is_closed)
        connected.said = 1
        assert await connected.ask("still there?") == "still there?"
        connected.leave()
        await connected.end()

    with_false_worker(caplog, scenario, logged=0)


def test_a_worker_that_grants_and_recalls_anything(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(both: BothSides, stranger: Stranger, worker: Any) -> None:
        most = 2**32 - 1
        await stranger.say(hello(), pack(Kind.GRANT, 0, 0, 5), pack(Kind.RECALL, 0, 0, most))
        _, _, _, number, _ = await stranger.hear(Kind.RETURN)
        assert number == 5
        assert not worker.has_permit
        assert await Request(both).answer() == (200, b"")

    with_false_worker(caplog, scenario, logged=0)
