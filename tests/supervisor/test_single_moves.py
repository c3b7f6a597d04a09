"""Moving one WebSocket by order, as the supervisor sees it."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from chansup.errors import ChansupError
from chansup.protocol import roster
from chansup.protocol.status import Event
from chansup.supervisor.pool import single_moves
from chansup.supervisor.pool.single_moves import SingleMoves
from chansup.supervisor.process.roster_pipe import RosterPipe


async def ordered(moves: SingleMoves, mark: str) -> tuple[AsyncIterator[Event], Event]:
    events = moves.move(mark)
    return events, await anext(events)


def say(moves: SingleMoves, mark: str, step: str) -> None:
    moves.take(roster.Moved(mark, step))


def test_an_order_stands_until_its_result_is_there() -> None:
    async def run() -> None:
        told: list[list[str]] = []
        moves = SingleMoves(lambda: told.append(moves.marks))
        events, _ = await ordered(moves, "a")
        say(moves, "b", "moved")  # which nobody asked for
        say(moves, "a", "begun")
        say(moves, "a", "session")
        result = await anext(events)
        assert (result.type, result.step, result.exit_code) == ("result", "session", 0)
        assert [event async for event in events] == []
        assert told == [["a"], []]

    asyncio.run(run())


@pytest.mark.parametrize(("step", "words"), [("alone", "one worker"), ("early", "try again")])
def test_what_cannot_be_moved(step: str, words: str) -> None:
    async def run() -> None:
        moves = SingleMoves(lambda: None)
        events, _ = await ordered(moves, "a")
        say(moves, "a", step)
        with pytest.raises(ChansupError, match=words):
            await anext(events)
        assert moves.marks == []

    asyncio.run(run())


def test_a_mark_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_moves, "_BEGIN_TIMEOUT", 0.01)

    async def run() -> None:
        moves = SingleMoves(lambda: None)
        events, _ = await ordered(moves, "a")
        with pytest.raises(ChansupError, match="no interface process"):
            await anext(events)
        assert moves.marks == []

    asyncio.run(run())


def test_orders_that_are_refused() -> None:
    async def run() -> None:
        moves = SingleMoves(lambda: None)
        held = [await ordered(moves, f"mark{number}") for number in range(single_moves._MOST)]
        for mark in ("another", "mark0", "", "x" * (roster.LONGEST_MARK + 1)):
            with pytest.raises(ChansupError):
                await ordered(moves, mark)
        assert len(moves.marks) == len(held)

    asyncio.run(run())


def test_a_courier_brings_lines_back_whole() -> None:
    async def run() -> None:
        roster_pipe = RosterPipe()
        lines: asyncio.Queue[bytes] = asyncio.Queue()
        roster_pipe.listen(lines.put_nowait)
        theirs: socket.socket = roster_pipe.theirs
        theirs.sendall(b"one\ntw")
        assert await asyncio.wait_for(lines.get(), 5) == b"one"
        theirs.sendall(b"o\n")
        assert await asyncio.wait_for(lines.get(), 5) == b"two"
        roster_pipe.send(b"both ways\n")
        assert theirs.recv(100) == b"both ways\n"
        roster_pipe.close()
        roster_pipe.close()

    asyncio.run(run())
