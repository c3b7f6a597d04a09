"""Apps that send from several tasks, are cancelled in the midst of it, or send what they should not."""

import asyncio
import contextlib
import logging
import socket
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from enum import IntEnum
from typing import Any

import pytest

from chansup.handover.errors import ClientDisconnected, UnexpectedEvent
from chansup.handover.extension import CHECKPOINT
from chansup.relay import scopes
from chansup.relay.frames import END, FAILED, FINISHED, MORE, TEXT, Kind, pack, split
from chansup.waiters import Turns, Waiters
from tests.relay.both_sides import App, Receive, Scope, Send, app_worker, relayed, until
from tests.relay.clients import Request, WebSocket
from tests.relay.echo_app import app as echo
from tests.relay.strangers import WEBSOCKET_SCOPE, Stranger, hello, message, opening, request
from tests.relay.test_broken_peers import Others, messages, run

ACCEPT = {"type": "websocket.accept"}
START = {"type": "http.response.start", "status": 200, "headers": []}


async def doing(what: Awaitable[None]) -> None:
    await what


DENIAL: dict[str, Any] = {"websocket.http.response": {}}
LARGE = bytes(range(256)) * 2000  # 512,000 bytes: many frames, and more than a window


class Slow(WebSocket):
    """A client that reads nothing but the acceptance until `gate` is open."""

    def __init__(self, app: App, **scope: Any) -> None:
        self.gate = asyncio.Event()
        super().__init__(app, **scope)

    async def _send(self, event: MutableMapping[str, Any]) -> None:
        if event["type"] == "websocket.send":
            await self.gate.wait()
        await super()._send(event)

    @property
    def heard(self) -> list[Any]:
        """The messages."""
        events = [event for event in self.sent if event["type"] == "websocket.send"]
        return [event.get("text") or event.get("bytes") for event in events]


async def until_disconnect(receive: Receive) -> None:
    while "disconnect" not in (await receive())["type"]:
        pass


def sending(sends: Callable[[Receive, Send], Awaitable[None]]) -> App:
    """Return an app that does what `sends` does at "/bad", and is well-behaved elsewhere."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/bad":
            await echo(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await receive()
        await sends(receive, send)

    return app


def among_others(
    sends: Callable[[Receive, Send], Awaitable[None]],
    scenario: Callable[[Any], Awaitable[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Run a scenario; others at the same worker notice nothing, and no connection is lost."""

    async def whole() -> None:
        async with relayed(sending(sends)) as both:
            others = Others(both)
            await others.are_well()
            await scenario(both)
            await others.are_well()
            await others.leave()

    run(whole)
    assert not any("given up" in line for line in messages(caplog))


@contextlib.asynccontextmanager
async def spoken_by_hand(app: App) -> AsyncIterator[Stranger]:
    """Yield an interface that speaks frames to a worker."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    worker = app_worker(app)
    worker.adopt(theirs)
    stranger = Stranger(ours)
    await stranger.say(hello())
    try:
        yield stranger
    finally:
        worker.cut()
        worker.close()
        stranger.leave()
        await asyncio.sleep(0)


async def settled(stranger: Stranger, kind: int = Kind.DONE) -> list[tuple[int, int, int]]:
    """Return kind, flags and number of the frames up to the first of a kind, and what follows it."""
    while not any(frame[0] == kind for frame in stranger.frames):
        assert await stranger._read()
    await asyncio.sleep(0.05)
    with contextlib.suppress(BlockingIOError):
        stranger.frames += stranger._decoder.feed(stranger.socket.recv(2**18))
    own = [frame for frame in stranger.frames if frame[2]]
    return [(kind, flags, number) for kind, flags, _, number, _ in own]


# Several tasks, and those that are cancelled


def test_who_leaves_before_the_acceptance_is_said_goodbye_to(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What `connect` has set up, `disconnect` takes down: a consumer accepts, and is told then."""
    heard: list[Any] = []
    asked, decides = asyncio.Event(), asyncio.Event()

    async def sends(receive: Receive, send: Send) -> None:
        asked.set()
        await decides.wait()
        await send(ACCEPT)
        heard.append(await receive())
        with pytest.raises(OSError, match="gone"):
            await send({"type": "websocket.send", "text": "too late"})

    async def scenario(both: Any) -> None:
        client = WebSocket(both, path="/bad")
        await asked.wait()
        client.queue.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await client.end()
        others = Others(both)
        await others.are_well()  # over the same connection: the worker knows of it
        await others.leave()
        decides.set()
        await until(lambda: bool(heard))

    among_others(sends, scenario, caplog)
    assert [(event["type"], event["code"]) for event in heard] == [("websocket.disconnect", 1001)]


@pytest.mark.parametrize("size", [100, 4_000, 40_000])
def test_tasks_that_send_to_a_slow_client_all_come_to_their_end(
    size: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def sends(receive: Receive, send: Send) -> None:
        await send(ACCEPT)

        async def write(letter: str) -> None:
            for _ in range(20):
                await send({"type": "websocket.send", "text": letter * size})

        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            for letter in "abc":
                group.create_task(write(letter))
        await send({"type": "websocket.close"})

    async def scenario(both: Any) -> None:
        client = Slow(both, path="/bad")
        await asyncio.sleep(0.1)
        client.gate.set()
        await client.end()
        assert sorted(client.heard) == sorted(letter * size for letter in "abc" * 20)

    among_others(sends, scenario, caplog)


def test_a_small_message_waits_for_the_large_one_before_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def sends(receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(doing(send({"type": "websocket.send", "bytes": LARGE})))
            group.create_task(doing(send({"type": "websocket.send", "text": "small"})))
            group.create_task(doing(send({"type": "websocket.close", "code": 4000})))
        with pytest.raises(UnexpectedEvent):
            await send({"type": "websocket.send", "text": "late"})

    async def scenario(both: Any) -> None:
        client = Slow(both, path="/bad")
        client.gate.set()
        await client.end()
        assert client.heard == [LARGE, "small"]
        assert client.close_code == 4000

    among_others(sends, scenario, caplog)


def test_receiving_in_the_midst_of_a_large_message_leaves_it_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def sends(receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        writer = asyncio.create_task(doing(send({"type": "websocket.send", "bytes": LARGE})))
        for _ in range(3):
            await receive()
            await send({"type": CHECKPOINT, "checkpoint": b"x" * 16_384})
        await writer
        await send({"type": "websocket.close"})

    async def scenario(both: Any) -> None:
        client = Slow(both, path="/bad")
        await client.until("websocket.accept")
        for _ in range(3):
            client.say("x")
            await asyncio.sleep(0.02)
        client.gate.set()
        await client.end()
        assert client.heard == [LARGE]

    among_others(sends, scenario, caplog)


@pytest.mark.parametrize("size", [4_000, 100_000])
def test_a_send_whose_time_is_up_disturbs_no_other(
    size: int, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[str] = []

    async def sends(receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        for number in range(40):
            text = f"{number:05}" * (size // 5)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await send({"type": "websocket.send", "text": text})
                    sent.append(text)
        await send({"type": "websocket.send", "text": "last"})
        await send({"type": "websocket.close"})

    async def scenario(both: Any) -> None:
        client = Slow(both, path="/bad")
        await asyncio.sleep(0.3)
        client.gate.set()
        await client.end()
        assert client.heard == [*sent, "last"]
        assert len(sent) < 40

    among_others(sends, scenario, caplog)


def test_what_is_broken_off_is_said_to_be_so() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await send({"type": "websocket.send", "bytes": LARGE})
        await receive()

    async def scenario() -> None:
        async with spoken_by_hand(app) as interface:
            await interface.say(opening(1))
            await asyncio.sleep(0.1)
            credit = pack(Kind.CREDIT, 0, 1, 10_000)
            await interface.say(credit, message(1, 1, b"continue"))
            frames = await settled(interface)
            messages = [frame for frame in frames if frame[0] == Kind.MESSAGE]
            assert messages == [(Kind.MESSAGE, MORE, 1)] * 4 + [(Kind.MESSAGE, FAILED, 1)]
            assert frames[-1][0] == Kind.DONE

    run(scenario)


def test_a_large_message_that_has_begun_is_completed_before_it_leaves() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        writer = asyncio.create_task(doing(send({"type": "websocket.send", "bytes": LARGE})))
        assert (await receive())["code"] == 1012
        await writer
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.send", "bytes": LARGE})

    async def scenario() -> None:
        async with spoken_by_hand(app) as interface:
            await interface.say(opening(1))
            await asyncio.sleep(0.02)
            await interface.say(pack(Kind.LEAVE, 0, 1, 0))
            heard = 0
            while heard < len(LARGE):
                _, flags, _, number, payload = await interface.hear(Kind.MESSAGE)
                heard += len(payload)
                assert number == 1
                assert bool(flags & MORE) == (heard < len(LARGE))
                await interface.say(pack(Kind.CREDIT, 0, 1, len(payload)))
            assert (await interface.hear(Kind.DONE))[1] & FINISHED
            assert not any(frame[0] == Kind.MESSAGE for frame in interface.frames)

    run(scenario)


def test_nothing_follows_the_end_of_an_app_that_left_a_message_half_sent() -> None:
    tasks: list[asyncio.Task[None]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        tasks.append(asyncio.create_task(doing(send({"type": "websocket.send", "bytes": LARGE}))))
        tasks.append(asyncio.create_task(doing(send({"type": "websocket.send", "text": "x"}))))
        tasks.append(asyncio.create_task(doing(send({"type": "websocket.close"}))))
        await asyncio.sleep(0.02)

    async def scenario() -> None:
        async with spoken_by_hand(app) as interface:
            await interface.say(opening(1))
            frames = await settled(interface)
            assert frames[-2:] == [(Kind.MESSAGE, FAILED, 1), (Kind.DONE, 0, 0)]
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(ended, OSError)

    run(scenario)


def test_two_tasks_that_send_a_response_both_come_to_their_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def sends(receive: Receive, send: Send) -> None:
        await send(START)

        async def write(letter: bytes) -> None:
            for _ in range(10):
                part = letter * 40_000
                await send({"type": "http.response.body", "body": part, "more_body": True})

        async with asyncio.TaskGroup() as group:
            group.create_task(write(b"a"))
            group.create_task(write(b"b"))
        await send({"type": "http.response.body"})

    async def scenario(both: Any) -> None:
        status, body = await Request(both, path="/bad").answer()
        assert status == 200
        parts = [body[offset : offset + 40_000] for offset in range(0, len(body), 40_000)]
        assert sorted(parts) == [b"a" * 40_000] * 10 + [b"b" * 40_000] * 10

    among_others(sends, scenario, caplog)


def test_a_body_of_which_a_part_is_missing_is_not_completed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[Exception] = []

    async def sends(receive: Receive, send: Send) -> None:
        await send(START)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await send({"type": "http.response.body", "body": LARGE, "more_body": True})
        try:
            await send({"type": "http.response.body", "body": b"end"})
        except UnexpectedEvent as error:
            told.append(error)

    async def scenario(both: Any) -> None:
        gate = asyncio.Event()

        async def send(event: Any) -> None:
            if event["type"] == "http.response.body":
                await gate.wait()

        client = Request(both, path="/bad")
        client._send = send  # type: ignore[method-assign]
        client.task.cancel()
        await asyncio.sleep(0)
        scope = {**WEBSOCKET_SCOPE, "type": "http", "path": "/bad", "scheme": "http"}
        task = asyncio.create_task(both(scope, client.queue.get, send))
        await until(lambda: told)
        gate.set()
        await asyncio.wait([task], timeout=5)
        assert task.exception() is not None  # the server breaks the connection off

    among_others(sends, scenario, caplog)


def test_the_body_ends_once_even_if_trailers_are_to_follow(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def sends(receive: Receive, send: Send) -> None:
        await send({**START, "trailers": True})
        await send({"type": "http.response.body", "body": b"whole"})
        with pytest.raises(UnexpectedEvent):
            await send({"type": "http.response.body", "body": b"more"})
        await send({"type": "http.response.trailers", "headers": [(b"a", b"b")]})
        with pytest.raises(UnexpectedEvent):
            await send({"type": "http.response.early_hint", "links": []})

    async def scenario(both: Any) -> None:
        client = Request(both, path="/bad")
        assert await client.answer() == (200, b"whole")
        assert client.sent[-1]["headers"] == [(b"a", b"b")]

    among_others(sends, scenario, caplog)


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_every_task_that_receives_is_told_that_the_client_left(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    async def sends(receive: Receive, send: Send) -> None:
        if kind == "http":
            await receive()
        else:
            await send(ACCEPT)

        async def listen() -> None:
            heard.append((await receive())["type"])

        listeners = [asyncio.create_task(listen()) for _ in range(2)]
        await asyncio.sleep(0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await receive()
        await asyncio.wait(listeners)

    async def scenario(both: Any) -> None:
        client = (Request if kind == "http" else WebSocket)(both, path="/bad")
        await asyncio.sleep(0.05)
        client.leave()
        await until(lambda: heard == [f"{kind}.disconnect"] * 2)
        await client.end()

    among_others(sends, scenario, caplog)


def test_two_tasks_share_what_the_client_says(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    async def sends(receive: Receive, send: Send) -> None:
        await send(ACCEPT)

        async def one() -> None:
            heard.append((await receive())["text"])

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(one())
        await send({"type": "websocket.close"})

    async def scenario(both: Any) -> None:
        client = WebSocket(both, path="/bad")
        for text in "abc":
            client.say(text)
        await client.end()
        assert heard == ["a", "b", "c"]

    among_others(sends, scenario, caplog)


# What is of the wrong type, or too large


class Status(IntEnum):
    FINE = 200


class Words(str):
    __slots__ = ()


WRONG = {
    "bytes is a str": {"type": "websocket.send", "bytes": "text"},
    "bytes is None": {"type": "websocket.send", "bytes": None},
    "neither": {"type": "websocket.send"},
    "text is bytes": {"type": "websocket.send", "text": b"bytes"},
    "a lone surrogate": {"type": "websocket.send", "text": "\ud800"},
    "code is a str": {"type": "websocket.close", "code": "1000"},
    "code is negative": {"type": "websocket.close", "code": -1},
    "reason is bytes": {"type": "websocket.close", "reason": b"because"},
    "checkpoint is a number": {"type": CHECKPOINT, "checkpoint": 5},
    "checkpoint is too large": {"type": CHECKPOINT, "checkpoint": b"x" * 16_385},
    "checkpoint is too large in UTF-8": {"type": CHECKPOINT, "checkpoint": "ä" * 8_193},
}


@pytest.mark.parametrize("event", WRONG.values(), ids=WRONG.keys())
def test_an_app_is_told_what_is_wrong_and_goes_on(
    event: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def sends(receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        with pytest.raises((TypeError, ValueError, UnexpectedEvent)):
            await send(event)
        await send({"type": "websocket.send", "text": "fine"})
        with pytest.raises((TypeError, ValueError, UnexpectedEvent)):
            await send(event)
        await send({"type": "websocket.close", "code": 4000})

    async def scenario(both: Any) -> None:
        client = WebSocket(both, path="/bad")
        await client.end()
        types = ["websocket.accept", "websocket.send", "websocket.close"]
        assert [one["type"] for one in client.sent] == types
        assert client.close_code == 4000

    among_others(sends, scenario, caplog)


HANDSHAKES = {
    "subprotocol is bytes": {"type": "websocket.accept", "subprotocol": b"chat"},
    "subprotocol is a number": {"type": "websocket.accept", "subprotocol": 5},
    "headers are str": {"type": "websocket.accept", "headers": [("a", "b")]},
    "headers are numbers": {"type": "websocket.accept", "headers": [(5, 5)]},
    "headers are too large": {"type": "websocket.accept", "headers": [(b"a", b"x" * 300_000)]},
    "denial: headers are str": {
        "type": "websocket.http.response.start",
        "status": 403,
        "headers": [("a", "b")],
    },
    "denial: status is a str": {"type": "websocket.http.response.start", "status": "403"},
    "denial: headers are too large": {
        "type": "websocket.http.response.start",
        "status": 403,
        "headers": [(b"a", b"x" * 300_000)],
    },
}


@pytest.mark.parametrize("event", HANDSHAKES.values(), ids=HANDSHAKES.keys())
def test_an_app_is_told_what_is_wrong_in_a_handshake(
    event: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def sends(receive: Receive, send: Send) -> None:
        with pytest.raises((TypeError, ValueError)):
            await send(event)
        await send({"type": "websocket.http.response.start", "status": 418, "headers": []})
        with pytest.raises(UnexpectedEvent):
            await send({"type": CHECKPOINT, "checkpoint": "x"})
        with pytest.raises(TypeError):
            await send({"type": "websocket.http.response.body", "body": "text"})
        await send({"type": "websocket.http.response.body", "body": bytearray(b"teapot")})

    async def scenario(both: Any) -> None:
        client = WebSocket(both, path="/bad", extensions=DENIAL)
        await client.end()
        assert client.sent[0]["status"] == 418

    among_others(sends, scenario, caplog)


RESPONSES = {
    "status is a str": {**START, "status": "200"},
    "status is none of HTTP": {**START, "status": 0},
    "status is too large": {**START, "status": 2**70},
    "headers are too large": {**START, "headers": [(b"set-cookie", b"x" * 300_000)]},
    "body is a str": {"type": "http.response.body", "body": "text"},
    "body is a str, more follows": {"type": "http.response.body", "body": "a", "more_body": True},
    "links are str": {"type": "http.response.early_hint", "links": ["a"]},
    "no path": {"type": "http.response.push", "path": b"/", "headers": []},
    "too large a hint": {"type": "http.response.early_hint", "links": [b"x" * 300_000]},
}


@pytest.mark.parametrize("event", RESPONSES.values(), ids=RESPONSES.keys())
def test_an_app_is_told_what_is_wrong_in_a_response(
    event: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    is_body = event["type"] == "http.response.body"

    async def sends(receive: Receive, send: Send) -> None:
        if is_body:
            await send(START)
        with pytest.raises((TypeError, ValueError)):
            await send(event)
        if not is_body:
            await send(START)
        await send({"type": "http.response.body", "body": b"fine"})

    async def scenario(both: Any) -> None:
        assert await Request(both, path="/bad").answer() == (200, b"fine")
        [worker] = both.app_workers
        await until(lambda: worker.used == 0)

    among_others(sends, scenario, caplog)


def test_kinds_of_the_right_types_are_taken(caplog: pytest.LogCaptureFixture) -> None:
    numbers = memoryview(array("d", range(10_000)))

    async def sends(receive: Receive, send: Send) -> None:
        await send({**START, "status": Status.FINE, "headers": ((b"a", b"b"),)})
        await send({"type": "http.response.body", "body": numbers, "more_body": True})
        await send({"type": "http.response.body", "body": bytearray(b"end")})

    async def sends_messages(receive: Receive, send: Send) -> None:
        await send({**ACCEPT, "subprotocol": Words("chat"), "headers": [[b"a", bytearray(b"b")]]})
        await send({"type": "websocket.send", "bytes": numbers})
        await send({"type": "websocket.send", "text": Words("text")})
        await send({"type": CHECKPOINT, "checkpoint": Words("x" * 16_384)})
        await send({"type": "websocket.close", "reason": "ä" * 100})

    async def scenario(both: Any) -> None:
        assert await Request(both, path="/bad").answer() == (200, bytes(numbers) + b"end")

    async def scenario_of_messages(both: Any) -> None:
        client = Slow(both, path="/bad", subprotocols=["chat"])
        client.gate.set()
        await client.end()
        assert client.sent[0]["subprotocol"] == "chat"
        assert client.heard == [bytes(numbers), "text"]
        assert client.sent[-1]["reason"] == "ä" * 61  # 122 of at most 123 bytes

    among_others(sends, scenario, caplog)
    among_others(sends_messages, scenario_of_messages, caplog)


# What is bounded besides messages and bodies


def test_events_of_extensions_wait_for_the_client(caplog: pytest.LogCaptureFixture) -> None:
    sent = 0

    async def sends(receive: Receive, send: Send) -> None:
        nonlocal sent
        for _ in range(100):
            await send({"type": "http.response.early_hint", "links": [b"x" * 20_000]})
            sent += 1
        await send(START)
        await send({"type": "http.response.body", "body": b"end"})

    async def scenario(both: Any) -> None:
        gate = asyncio.Event()
        taken: list[Any] = []

        async def slow(event: Any) -> None:
            await gate.wait()
            taken.append(event)

        scope = {**WEBSOCKET_SCOPE, "type": "http", "path": "/bad", "scheme": "http"}
        queue: asyncio.Queue[Any] = asyncio.Queue()
        task = asyncio.create_task(both(scope, queue.get, slow))
        await asyncio.sleep(0.1)
        assert sent < 10
        gate.set()
        await asyncio.wait_for(task, 5)
        assert len(taken) == 102
        assert taken[-1]["body"] == b"end"

    among_others(sends, scenario, caplog)


def test_only_the_newest_checkpoint_leaves_and_in_its_place() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        for number in range(100):
            await send({"type": CHECKPOINT, "checkpoint": f"before {number}"})
        await send({"type": "websocket.send", "text": "first"})
        for number in range(100):
            await send({"type": CHECKPOINT, "checkpoint": f"after {number}"})
        await receive()
        await send({"type": "websocket.send", "text": "second"})
        await send({"type": CHECKPOINT, "checkpoint": "in hand"})
        await receive()
        await send({"type": CHECKPOINT, "checkpoint": b"x" * 16_384})

    async def scenario() -> None:
        async with spoken_by_hand(app) as interface:
            await interface.say(opening(1), message(1, 1, b"a"))
            await asyncio.sleep(0.02)
            await interface.say(message(1, 2, b"b"))
            frames = await settled(interface)
            stored = [frame[4] for frame in interface.frames if frame[0] == Kind.CHECKPOINT]
            encoded = scopes.encode(b"x" * 16_384)
            said = ["before 99", "after 99", "in hand"]
            assert stored[:3] == [scopes.encode(text) for text in said]
            assert b"".join(stored[3:]) == encoded
            assert frames == [
                (Kind.ACCEPT, 0, 0),
                (Kind.CHECKPOINT, 0, 0),
                (Kind.MESSAGE, TEXT, 1),
                (Kind.CHECKPOINT, 0, 0),
                (Kind.MESSAGE, TEXT, 2),
                (Kind.CHECKPOINT, 0, 0),
                (Kind.CONSUMED, 0, 1),
                (Kind.CHECKPOINT, MORE, 0),
                (Kind.CHECKPOINT, 0, 0),
                (Kind.DONE, 0, 2),
            ]

    run(scenario)


def test_the_largest_scope_comes_back_with_the_largest_checkpoint() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["extensions"]["chansup.handover"]["checkpoint"])

    async def scenario() -> None:
        async with spoken_by_hand(app) as interface:
            size = scopes.MAX_SCOPE
            while len(fields := encoded(size)) > scopes.MAX_SCOPE:
                size -= len(fields) - scopes.MAX_SCOPE
            resumption = scopes.Resumption("x" * 100, 2**31, "deploy", b"x" * 16_384)
            payload = scopes.opening(resumption, fields)
            await interface.say(b"".join(split(Kind.OPEN, 0, 1, 2**31, payload)))
            await interface.hear(Kind.DONE)
            assert seen == [b"x" * 16_384]

    def encoded(size: int) -> bytes:
        scope = {**WEBSOCKET_SCOPE, "headers": [(b"cookie", b"x" * size)]}
        return scopes.encode_websocket(scope, 0.0)

    run(scenario)


def test_the_end_is_told_though_the_scope_was_torn_up(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope.clear()
        raise ValueError("nothing is left")

    async def scenario() -> None:
        async with spoken_by_hand(app) as interface:
            await interface.say(request(1), opening(2))
            for _ in range(2):
                assert (await interface.hear(Kind.DONE))[1] & FAILED

    with caplog.at_level(logging.ERROR):
        run(scenario)
    assert sum("nothing is left" in record.getMessage() for record in caplog.records) == 2


def test_a_small_response_still_leaves_in_one_frame() -> None:
    async def scenario() -> None:
        async with spoken_by_hand(echo) as interface:
            await interface.say(request(1))
            frames = await settled(interface, Kind.RESPONSE)
            assert [frame[:2] for frame in frames] == [(Kind.RESPONSE, END | FINISHED)]

    run(scenario)


# Waiting


def test_turns_are_taken_in_order_and_given_on_by_those_who_are_cancelled() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        turns = Turns()
        had: list[int] = []

        async def take(number: int) -> None:
            await turns.take(loop)
            had.append(number)
            await asyncio.sleep(0)
            turns.give()

        await turns.take(loop)
        tasks = [asyncio.create_task(take(number)) for number in range(6)]
        await asyncio.sleep(0)
        tasks[1].cancel()  # while it waits
        turns.give()
        tasks[0].cancel()  # it has the turn, and does not know yet
        tasks[2].cancel()
        await asyncio.wait(tasks)
        assert had == [3, 4, 5]
        assert not turns.is_taken

    run(scenario)


def test_waiters_who_are_cancelled_are_forgotten() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        waiters = Waiters()
        tasks = [asyncio.create_task(waiters.wait(loop)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        waiters.wake_all()
        waiters.wake_all()
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [False, True, False]
        assert not waiters

    run(scenario)
