"""The version of the relay that both sides agree on, and what they leave out in an older one."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
import pytest

from chansup.handover.extension import CHECKPOINT, POLICY
from chansup.relay import frames, greeting
from chansup.relay.frames import Decoder, Kind, pack
from chansup.relay.greeting import Hello, VersionError
from tests.relay.both_sides import app_worker, until
from tests.relay.strangers import opening


class HelloOfBefore(msgspec.Struct):
    """What a side says and reads that knows one version, from before they were negotiated."""

    protocol: int
    version: str
    name: str


def sides(oldest: int, newest: int) -> Hello:
    return Hello(oldest, "1.2.3", "web.0", newest)


@pytest.mark.parametrize(
    ("one", "other", "agreed"),
    [
        (sides(2, 3), sides(2, 3), 3),
        (sides(2, 3), sides(3, 4), 3),
        (sides(1, 5), sides(2, 3), 3),
        (sides(2, 3), sides(2, 0), 2),  # of before
        (sides(3, 3), sides(2, 3), 3),
    ],
)
def test_both_take_the_newest_version_that_both_speak(
    one: Hello, other: Hello, agreed: int
) -> None:
    assert greeting.answer_to(greeting.encode(one), other).protocol == agreed
    assert greeting.answer_to(greeting.encode(other), one).protocol == agreed


@pytest.mark.parametrize("other", [sides(4, 6), sides(1, 0), sides(1, 1), sides(9, 0)])
def test_without_a_common_version_each_says_what_both_speak(other: Hello) -> None:
    with pytest.raises(VersionError, match=r"versions 2 to 3 .*chansup 1\.2\.3") as raised:
        greeting.answer_to(greeting.encode(sides(2, 3)), other)
    assert "this side version" in str(raised.value)


def test_a_side_of_before_finds_its_version_where_it_looks() -> None:
    said = msgspec.msgpack.decode(greeting.encode(greeting.hello("web.0")), type=HelloOfBefore)
    assert said.protocol == frames.PROTOCOL - 1 == frames.OLDEST_PROTOCOL


App = Callable[[Any, Any, Any], Awaitable[None]]


async def talkative(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[Any]],
    send: Callable[[Any], Awaitable[None]],
) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": CHECKPOINT, "checkpoint": b"what it knows"})
    await send({"type": POLICY, "handover": "close"})
    await send({"type": "websocket.send", "text": "end"})
    await receive()


def kinds_in(protocol: int) -> list[tuple[int, int]]:
    """Return kinds and numbers of what a worker says of itself to an interface of a version."""

    async def run() -> list[tuple[int, int]]:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        ours.setblocking(False)
        worker = app_worker(talkative)
        worker.adopt(theirs)
        loop = asyncio.get_running_loop()
        hello = HelloOfBefore(protocol, "0", "interface.0")
        await loop.sock_sendall(ours, pack(Kind.HELLO, 0, 0, 0, msgspec.msgpack.encode(hello)))
        await loop.sock_sendall(ours, opening(1))
        decoder = Decoder()
        found: list[tuple[int, int]] = []

        async def read() -> None:
            while Kind.MESSAGE not in [kind for kind, _ in found]:
                data = await loop.sock_recv(ours, 65536)
                assert data, found
                for kind, _, _, number, _ in decoder.feed(data):
                    found.append((kind, number))

        await asyncio.wait_for(read(), 10)
        ours.close()
        await until(lambda: not worker._interfaces)
        worker.cut()
        worker.close()
        return found

    return asyncio.run(run())


def test_an_interface_of_before_does_not_take_the_apps_word_for_a_checkpoint() -> None:
    now = [number for kind, number in kinds_in(frames.PROTOCOL) if kind == Kind.CHECKPOINT]
    assert len(now) == 2 and now[0] == 0 and now[1] > 0
    before = [number for kind, number in kinds_in(2) if kind == Kind.CHECKPOINT]
    assert before == [0]
