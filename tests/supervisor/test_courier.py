"""The roster's way to an interface process: real socket pairs, slow and dead readers."""

import asyncio
import functools
import socket
from collections.abc import Awaitable, Callable

from chansup.supervisor.process.roster_pipe import RosterPipe

LINE = b"x" * 999_999 + b"\n"  # much more than a socket holds


def in_a_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    @functools.wraps(test)
    def run() -> None:
        async def main() -> None:
            await test()

        asyncio.run(main())

    return run


def reader_of(roster_pipe: RosterPipe) -> socket.socket:
    """Take the child's end, as a child does that inherits it."""
    reader = roster_pipe.theirs.dup()
    roster_pipe.theirs.close()
    return reader


async def read_lines(reader: socket.socket, number: int) -> list[bytes]:
    stream, _ = await asyncio.open_connection(sock=reader, limit=10_000_000)
    return [await asyncio.wait_for(stream.readline(), 5) for _ in range(number)]


@in_a_loop
async def test_a_line_is_there_at_once() -> None:
    roster_pipe = RosterPipe()
    with reader_of(roster_pipe) as reader:
        roster_pipe.send(b"one\n")
        assert reader.recv(100, socket.MSG_DONTWAIT) == b"one\n"
    roster_pipe.close()


@in_a_loop
async def test_of_lines_that_wait_only_the_newest_follows_one_that_was_begun() -> None:
    roster_pipe = RosterPipe()
    reader = reader_of(roster_pipe)
    roster_pipe.send(LINE)
    for number in range(1000):
        roster_pipe.send(b"%d\n" % number)
    first, second = await read_lines(reader, 2)
    assert first == LINE
    assert second == b"999\n"
    roster_pipe.send(b"more\n")
    roster_pipe.close()


@in_a_loop
async def test_long_lines_in_a_row_arrive_whole() -> None:
    roster_pipe = RosterPipe()
    reader = reader_of(roster_pipe)
    stream, _ = await asyncio.open_connection(sock=reader, limit=10_000_000)
    for number in range(5):
        line = b"%d" % number * 500_000 + b"\n"
        roster_pipe.send(line)
        assert await asyncio.wait_for(stream.readline(), 5) == line
    roster_pipe.close()


@in_a_loop
async def test_a_reader_that_is_gone_is_no_error() -> None:
    roster_pipe = RosterPipe()
    reader = reader_of(roster_pipe)
    roster_pipe.send(LINE)
    reader.close()
    await asyncio.sleep(0.01)
    roster_pipe.send(b"more\n")
    roster_pipe.send(b"more\n")
    roster_pipe.close()
    roster_pipe.close()


@in_a_loop
async def test_the_end_of_the_stream_says_that_the_supervisor_is_gone() -> None:
    roster_pipe = RosterPipe()
    with reader_of(roster_pipe) as reader:
        roster_pipe.close()
        assert reader.recv(100) == b""


@in_a_loop
async def test_closing_while_a_line_waits_leaves_nothing_behind() -> None:
    roster_pipe = RosterPipe()
    with reader_of(roster_pipe):
        roster_pipe.send(LINE)
        roster_pipe.close()
        await asyncio.sleep(0.01)
