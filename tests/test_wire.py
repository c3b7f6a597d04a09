"""The writer that gathers what is sent in one turn of the event loop."""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager

import pytest

from chansup.wire import Writer


class Sender:
    """Something that writes, and notes what it is told."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self.frames: list[bytes] = []
        self.asked = 0
        self.broken: list[OSError] = []
        self.drained = loop.create_future()
        self.writer = Writer(loop, self.gather, self.broken.append, self.drain)
        self.writer.open(sock)

    def gather(self) -> bytes:
        self.asked += 1
        data = b"".join(self.frames)
        self.frames.clear()
        return data

    def drain(self) -> None:
        self.drained.set_result(None)

    def send(self, frame: bytes) -> None:
        self.frames.append(frame)
        self.writer.schedule()


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with closing(one), closing(other):
        one.setblocking(False)
        other.setblocking(False)
        yield one, other


def run(tried: Callable[[Sender, socket.socket], Coroutine[None, None, None]]) -> None:
    async def main() -> None:
        with pair() as (one, other):
            async with asyncio.timeout(10):
                await tried(Sender(asyncio.get_running_loop(), one), other)

    asyncio.run(main())


def test_what_is_sent_in_one_turn_leaves_in_one_write() -> None:
    async def tried(sender: Sender, other: socket.socket) -> None:
        for number in range(5):
            sender.send(b"%d" % number)
        with pytest.raises(BlockingIOError):
            other.recv(1)
        await asyncio.sleep(0)
        assert other.recv(100) == b"01234"
        assert sender.asked == 1
        sender.send(b"more")
        assert sender.writer.flush()
        assert other.recv(100) == b"more"
        assert sender.writer.written == 9

    run(tried)


def test_what_does_not_fit_follows_in_order_before_what_came_later() -> None:
    async def tried(sender: Sender, other: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        large = bytes(range(256)) * 8192
        sender.send(large)
        assert not sender.writer.flush()
        assert sender.writer.is_waiting
        sender.send(b"later")
        assert not sender.writer.flush()
        received = bytearray()
        while len(received) < len(large) + 5:
            received += await loop.sock_recv(other, 2**20)
        assert received == large + b"later"
        await sender.drained
        assert not sender.writer.is_waiting
        sender.send(b"again")
        assert sender.writer.flush()

    run(tried)


def test_a_broken_connection_is_told_once_and_what_came_can_be_read() -> None:
    async def tried(sender: Sender, other: socket.socket) -> None:
        other.send(b"last words")
        other.close()
        sender.send(b"lost")
        assert not sender.writer.flush()
        assert [type(error) for error in sender.broken] == [BrokenPipeError]
        assert not sender.writer.is_open
        sender.send(b"lost")
        await asyncio.sleep(0)
        assert len(sender.broken) == 1

    run(tried)


def test_a_connection_that_breaks_while_something_waits_is_told() -> None:
    async def tried(sender: Sender, other: socket.socket) -> None:
        sender.send(bytes(2**21))
        assert not sender.writer.flush()
        other.close()
        while not sender.broken:
            await asyncio.sleep(0)
        assert not sender.writer.is_waiting
        assert not sender.drained.done()

    run(tried)


def test_nothing_is_written_after_the_end_and_another_socket_begins_anew() -> None:
    async def tried(sender: Sender, other: socket.socket) -> None:
        sender.send(bytes(2**21))
        assert not sender.writer.flush()
        sender.writer.close()
        assert not sender.writer.flush()
        with pair() as (one, third):
            sender.writer.open(one)
            sender.frames.append(b"new")
            assert sender.writer.flush()
            assert third.recv(100) == b"new"

    run(tried)


def test_what_goes_without_waiting_is_written_once() -> None:
    async def tried(sender: Sender, other: socket.socket) -> None:
        sender.frames.append(b"now")
        sender.writer.flush_once()
        assert other.recv(100) == b"now"
        other.close()
        sender.frames.append(b"lost")
        sender.writer.flush_once()
        assert sender.broken == []

    run(tried)
