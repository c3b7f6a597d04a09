"""What a valid conversation becomes when bytes of it are flipped, dropped, inserted, or cut off.

Whatever comes: nothing is raised in a callback, whatever was begun comes to an end, and the books
are even afterwards.
"""

import asyncio
import logging
import socket
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chansup.protocol import relay_board
from chansup.relay.frames import HEADER_SIZE, Decoder, pack
from tests.relay.both_sides import Interface, app_worker, until
from tests.relay.clients import Request, WebSocket
from tests.relay.echo_app import app as echo
from tests.relay.test_broken_peers import CONCURRENCY, run

UPLOAD = {"method": "POST", "headers": [(b"transfer-encoding", b"chunked")]}
BODY = [b"a" * 20_000, b"b" * 5, b""]


@dataclass
class Recording:
    """All bytes of a conversation, by direction."""

    to_worker: bytes = b""
    to_interface: bytes = b""


class Wire:
    """Two connections in a row: what goes through is recorded."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.interface, near = socket.socketpair()
        self.worker, far = socket.socketpair()
        self._ends = [near, far]
        for sock in (near, far, self.interface, self.worker):
            sock.setblocking(False)
        self.tasks = [
            asyncio.create_task(self._pass_on(near, far, "to_worker")),
            asyncio.create_task(self._pass_on(far, near, "to_interface")),
        ]

    async def _pass_on(self, source: socket.socket, target: socket.socket, name: str) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(source, 2**18):
            setattr(self.recording, name, getattr(self.recording, name) + data)
            await loop.sock_sendall(target, data)

    def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        for sock in self._ends:
            sock.close()


@dataclass
class Conversation:
    """What clients say: requests of several kinds, and WebSockets, all beginning together."""

    interface: Interface
    requests: list[Request] = field(default_factory=list)
    websockets: list[WebSocket] = field(default_factory=list)

    async def begin(self) -> None:
        asgi = self.interface
        for begin in (
            lambda: self.requests.append(Request(asgi)),
            lambda: self.requests.append(Request(asgi, *BODY, path="/streamed", **UPLOAD)),  # type: ignore[arg-type]
            lambda: self.websockets.append(WebSocket(asgi)),
            lambda: self.websockets.append(WebSocket(asgi)),
            lambda: self.requests.append(Request(asgi, b"x", complete=False, **UPLOAD)),
        ):
            begin()
            await asyncio.sleep(0)

    async def go_on(self) -> None:
        for websocket in self.websockets:
            await websocket.until("websocket.accept")
        first, second = self.websockets
        for text in ("one", "twö", "x" * 40_000):
            assert await first.ask(text) == text
        second.say("last words")
        await second.until("websocket.send")
        second.leave()
        for request in self.requests[:2]:
            await request.end()
        self.requests[2].leave()

    async def end(self) -> None:
        for client in [*self.requests, *self.websockets]:
            client.leave()  # type: ignore[attr-defined]
        for client in [*self.requests, *self.websockets]:
            raised = await client.end()
            assert raised is None or type(raised).__name__ == "BrokenResponseError", raised


@cache
def recorded() -> Recording:
    """Return a conversation in which nothing goes wrong."""
    recording = Recording()

    async def record() -> None:
        wire, worker, interface = Wire(recording), app_worker(echo), Interface()
        worker.adopt(wire.worker)
        there = interface.adopt(wire.interface)
        await until(lambda: there.granted)
        conversation = Conversation(interface)
        await conversation.begin()
        await conversation.go_on()
        await conversation.end()
        await until(lambda: not there.streams)
        assert [request.status for request in conversation.requests] == [200, 200, 0]
        interface.close()
        worker.close()
        wire.close()

    run(record)
    return recording


Change = tuple[str, int, bytes]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["flip", "drop", "insert", "replace", "repeat"]),
        st.integers(0, 2**20),
        st.binary(min_size=1, max_size=20),
    ),
    min_size=1,
    max_size=3,
)


def borders(data: bytes) -> list[int]:
    """Return where frames begin, and the places of their headers: what hurts most."""
    found: list[Any] = []
    place = 0
    for *_, payload in Decoder().feed(data):
        found += range(place, place + HEADER_SIZE)
        place += HEADER_SIZE + len(payload)
    return found


def mutated(data: bytes, changes: list[Change], aims: bool) -> bytes:
    changed = bytearray(data)
    places = borders(data) if aims else range(len(data))
    for what, place, garbage in changes:
        place = places[place % len(places)]
        if what == "flip":
            changed[place : place + 1] = bytes([(garbage[0] or 1) ^ data[place]])
        elif what == "drop":
            del changed[place : place + len(garbage)]
        elif what == "insert":
            changed[place:place] = garbage
        elif what == "replace":
            changed[place : place + len(garbage)] = garbage
        else:
            changed[place:place] = data[place : place + 50]
    return bytes(changed)


def mutated_frames(data: bytes, order: list[int]) -> bytes:
    """Return the frames in another order; some twice, some not at all. The first one is first."""
    first, *rest = Decoder().feed(data)
    return b"".join(pack(*frame) for frame in [first, *(rest[one % len(rest)] for one in order)])


async def spoken(sock: socket.socket, data: bytes, size: int) -> None:
    """Say `data` in pieces, drop what is answered, and go."""
    loop = asyncio.get_running_loop()
    sock.setblocking(False)

    async def drop() -> None:
        try:
            while await loop.sock_recv(sock, 2**18):
                pass
        except OSError:
            pass

    dropping = asyncio.create_task(drop())
    try:
        for place in range(0, len(data), size):
            await loop.sock_sendall(sock, data[place : place + size])
            await asyncio.sleep(0)
    except OSError:
        pass  # it has had enough already
    await asyncio.sleep(0.001)
    dropping.cancel()
    sock.close()


def spoken_to_worker(data: bytes, size: int) -> None:
    async def scenario() -> None:
        worker = app_worker(echo, concurrency=CONCURRENCY)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        one = worker.adopt(ours)
        await spoken(theirs, data, size)
        await until(lambda: one.link.closed and not one.streams)
        await until(lambda: not worker._interfaces)
        assert worker.permits.free == CONCURRENCY
        assert worker.counters._in_hand.requests == 0
        worker.close()

    run(scenario)


def spoken_to_interface(data: bytes, size: int) -> None:
    async def scenario() -> None:
        interface = Interface(queue_timeout=0.05, worker_timeout=0.05, websocket_timeout=0.05)
        ours, theirs = socket.socketpair()
        there = interface.adopt(ours)
        conversation = Conversation(interface)
        speaking = asyncio.create_task(spoken(theirs, data, size))
        await asyncio.sleep(0)
        if data:
            try:
                await until(lambda: there.has_permit or there.is_closed, 0.01)
            except TimeoutError:
                pass
        await conversation.begin()
        await conversation.websockets[0].queue.put({"type": "websocket.receive", "text": "one"})
        await speaking
        await until(lambda: there.is_closed)
        for websocket in conversation.websockets:
            assert await websocket.end() is None  # nobody is left connected to nothing
        await conversation.end()
        interface.close()
        for gauge in relay_board.GAUGES:
            assert interface.cells[gauge] == 0, gauge

    run(scenario)


QUICK = settings(deadline=None, max_examples=40)
SIZES = st.sampled_from([7, 1000, 2**20])
SIDES = pytest.mark.parametrize("side", ["worker", "interface"])


def check(side: str, change: Any, size: int) -> None:
    logging.getLogger("chansup.relay").setLevel(logging.CRITICAL)
    try:
        if side == "worker":
            spoken_to_worker(change(recorded().to_worker), size)
        else:
            spoken_to_interface(change(recorded().to_interface), size)
    finally:
        logging.getLogger("chansup.relay").setLevel(logging.NOTSET)


@SIDES
def test_the_conversation_itself(side: str) -> None:
    check(side, lambda data: data, 2**20)


@SIDES
@QUICK
@given(changes=CHANGES, aims=st.booleans(), size=SIZES)
def test_bytes_that_are_changed(side: str, changes: list[Change], aims: bool, size: int) -> None:
    check(side, lambda data: mutated(data, changes, aims), size)


@SIDES
@QUICK
@given(order=st.lists(st.integers(0, 200), max_size=40))
def test_frames_in_any_order(side: str, order: list[int]) -> None:
    check(side, lambda data: mutated_frames(data, order), 2**20)


@SIDES
@settings(deadline=None, max_examples=40)
@given(cut=st.integers(0, 2**20), size=SIZES)
@example(cut=0, size=7)
def test_bytes_that_are_cut_off(side: str, cut: int, size: int) -> None:
    check(side, lambda data: data[: cut % (len(data) + 1)], size)
