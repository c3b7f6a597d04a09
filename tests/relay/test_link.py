"""A link over a real socket pair, in real event loops."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from chansup.relay.frames import HEADER, MAX_PAYLOAD, Decoder, Frame, FrameError, Kind, pack
from chansup.relay.link import Link
from tests.relay.both_sides import until

LARGE = b"x" * MAX_PAYLOAD

Scenario = Callable[[], Awaitable[None]]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
    """Run a scenario to its end, in one of the loops; what goes wrong in callbacks counts."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    def run(scenario: Scenario) -> None:
        defects: list[Any] = []

        async def watched() -> None:
            asyncio.get_running_loop().set_exception_handler(
                lambda _loop, context: defects.append(context)
            )
            async with asyncio.timeout(15):
                await scenario()
            await asyncio.sleep(0)

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(watched())
        assert not defects

    return run


class Side:
    """A link, and what came of it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.frames: list[Frame] = []
        self.lost: list[tuple[str, bool]] = []
        self.refuse = False
        self.link = Link(sock, asyncio.get_running_loop(), self._take, self._lose)

    def _take(self, frames: list[Frame]) -> None:
        self.frames += frames
        if self.refuse:
            raise FrameError("not like that")

    def _lose(self, reason: str, is_error: bool) -> None:
        self.lost.append((reason, is_error))


class Peer:
    """The other end: a bare socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.decoder = Decoder()
        self.frames: list[Frame] = []

    async def read(self, frames: int) -> list[Frame]:
        """Return the next frames."""
        loop = asyncio.get_running_loop()
        while len(self.frames) < frames:
            data = await asyncio.wait_for(loop.sock_recv(self.socket, 2**18), 5)
            assert data, "it was closed"
            self.frames += self.decoder.feed(data)
        found, self.frames = self.frames[:frames], self.frames[frames:]
        return found

    def read_now(self) -> None:
        """Read what is there."""
        try:
            while data := self.socket.recv(2**18):
                self.frames += self.decoder.feed(data)
        except BlockingIOError:
            pass


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[Side, Peer]]:
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
    side, peer = Side(ours), Peer(theirs)
    try:
        yield side, peer
    finally:
        side.link.close()
        theirs.close()


def body(stream: int, number: int, payload: bytes = b"") -> bytes:
    return pack(Kind.BODY, 0, stream, number, payload)


def fill(side: Side) -> int:
    """Send data until some cannot be written. Return how many frames that was."""
    number = 0
    while not side.link._writer.is_waiting:
        side.link.send(body(1, number, LARGE))
        side.link.flush()
        number += 1
    return number


def crowd(side: Side) -> int:
    """Send data until a sender has to wait. Return how many frames that was."""
    number = fill(side)
    while not side.link.crowded:
        side.link.send(body(1, number, LARGE))
        number += 1
    return number


def test_frames_arrive_in_order_and_in_one_write_a_turn(run: Any) -> None:
    async def scenario() -> None:
        async with linked() as (side, peer):
            for number in range(3):
                side.link.send(body(1, number))
            peer.read_now()
            assert peer.frames == []  # not before the end of this turn
            await asyncio.sleep(0)
            assert len(peer.socket.recv(2**18, socket.MSG_PEEK)) == 3 * HEADER.size
            for number in range(3, 100):
                side.link.send(body(1, number))
                if number % 7 == 0:
                    await asyncio.sleep(0)
            assert [frame[3] for frame in await peer.read(100)] == list(range(100))

    run(scenario)


def test_frames_are_read_in_whatever_pieces_they_come(run: Any) -> None:
    async def scenario() -> None:
        async with linked() as (side, peer):
            data = b"".join(body(1, number, b"abc") for number in range(5))
            for place in range(len(data)):
                peer.socket.send(data[place : place + 1])
                await asyncio.sleep(0)
            await until(lambda: len(side.frames) == 5)
            assert side.link.bytes_in == len(data)

    run(scenario)


def test_control_overtakes_data_of_the_same_turn_and_data_that_waits(run: Any) -> None:
    async def scenario() -> None:
        async with linked() as (side, peer):
            side.link.send(body(1, 0))
            side.link.send_control(pack(Kind.CREDIT, 0, 1, 7))
            kinds = [frame[0] for frame in await peer.read(2)]
            assert kinds == [Kind.CREDIT, Kind.BODY]
            filled = fill(side)
            for number in range(50):
                side.link.send(body(2, number))
            side.link.send_control(pack(Kind.CREDIT, 0, 1, 8))
            await asyncio.sleep(0.01)
            frames = await peer.read(filled + 51)
            place = [frame[0] for frame in frames].index(Kind.CREDIT)
            assert place <= filled
            assert [frame[3] for frame in frames if frame[2] == 2] == list(range(50))

    run(scenario)


def test_who_decides_late_is_asked_once_at_the_end_of_the_turn(run: Any) -> None:
    class Late:
        def __init__(self, link: Link) -> None:
            self.link = link
            self.asked = 0

        def emit(self) -> None:
            self.asked += 1
            self.link.send(body(1, self.asked))
            if self.asked == 1:
                self.link.send_late(self)  # once more, in the same turn

    async def scenario() -> None:
        async with linked() as (side, peer):
            late = Late(side.link)
            side.link.send_late(late)
            assert late.asked == 0
            await asyncio.sleep(0)
            assert late.asked == 2
            assert [frame[3] for frame in await peer.read(2)] == [1, 2]

    run(scenario)


def test_who_is_in_a_hurry_is_written_at_once_after_a_quiet_time(run: Any) -> None:
    async def scenario() -> None:
        async with linked() as (side, peer):
            await asyncio.sleep(0.01)
            side.link.hurry()  # for nothing
            for number in range(3):
                side.link.send(body(1, number))
            side.link.hurry()
            peer.read_now()
            assert len(peer.frames) == 3
            side.link.send(body(1, 3))
            side.link.hurry()  # soon after: shares the write at the end of this turn
            side.link.send(body(1, 4))
            await asyncio.sleep(0)
            peer.read_now()
            assert [frame[3] for frame in peer.frames] == [0, 1, 2, 3, 4]
            crowd(side)
            await asyncio.sleep(0.01)
            size = side.link._size
            side.link.hurry()  # nothing goes while the peer does not read
            assert side.link._size == size
            side.link.close()
            side.link.hurry()

    run(scenario)


def test_an_error_while_writing_is_told_after_whoever_sends_has_done(run: Any) -> None:
    async def scenario() -> None:
        async with linked() as (side, peer):
            peer.socket.close()
            side.link.send(body(1, 0))
            assert not side.link.flush()
            assert side.lost == []
            assert not side.link.flush()
            await until(lambda: side.lost)
            await asyncio.sleep(0.01)
            assert len(side.lost) == 1

    run(scenario)


def test_flush_says_whether_all_has_left_and_flushed_waits_for_it(run: Any) -> None:
    async def scenario() -> None:
        async with linked() as (side, peer):
            side.link.send(body(1, 0))
            assert side.link.flush()
            peer.read_now()
            assert len(peer.frames) == 1
            await side.link.flushed()
            filled = fill(side)
            side.link.send(body(1, 99))
            assert not side.link.flush()
            waiting = [asyncio.create_task(side.link.flushed()) for _ in range(3)]
            await asyncio.sleep(0.02)
            assert not any(task.done() for task in waiting)
            frames = await peer.read(1 + filled + 1)
            assert frames[-1][3] == 99
            await asyncio.gather(*waiting)
            assert side.link.flush()

    run(scenario)


def test_flushed_ends_when_the_connection_does(run: Any) -> None:
    async def scenario() -> None:
        async with linked() as (side, peer):
            fill(side)
            waiting = asyncio.create_task(side.link.flushed())
            await asyncio.sleep(0)
            peer.socket.close()
            await asyncio.wait_for(waiting, 5)
            assert len(side.lost) == 1

    run(scenario)


@pytest.mark.parametrize("senders", [1, 3, 8, 9, 40])
def test_a_crowd_is_bounded_fair_and_gets_everything_through(run: Any, senders: int) -> None:
    each = 40
    first = 8  # frames of the very first who sends: nobody waits then

    async def scenario() -> None:
        async with linked() as (side, peer):
            link, sent, most = side.link, [0] * senders, 0

            async def send(place: int) -> None:
                nonlocal most
                for number in range(each):
                    while link.crowded:
                        await link.room()
                    link.send(body(place + 1, number, LARGE))
                    sent[place] += 1
                    most = max(most, link._size)

            tasks = [asyncio.create_task(send(place)) for place in range(senders)]
            await asyncio.sleep(0.02)
            assert most <= 2 * first * (MAX_PAYLOAD + HEADER.size)
            frames: list[Frame] = []
            while len(frames) < senders * each:
                frames += await peer.read(1)
                going = [number for number in sent if number < each]
                if len(going) == senders > 1:  # nobody is ahead while all have something
                    assert max(going) - min(going) <= first + 1
            assert most <= 2 * first * (MAX_PAYLOAD + HEADER.size)
            await asyncio.gather(*tasks)
            for place in range(senders):
                numbers = [frame[3] for frame in frames if frame[2] == place + 1]
                assert numbers == list(range(each))

    run(scenario)


def test_who_gave_up_waiting_keeps_nobody_waiting(run: Any) -> None:
    async def scenario() -> None:
        async with linked() as (side, peer):
            filled = crowd(side)
            done = 0

            async def send() -> None:
                nonlocal done
                while side.link.crowded:
                    await side.link.room()
                side.link.send(body(2, 0))
                done += 1

            tasks = [asyncio.create_task(send()) for _ in range(30)]
            await asyncio.sleep(0.01)
            for task in tasks[:25]:
                task.cancel()
            await peer.read(filled + 5)
            assert done == 5

    run(scenario)


def test_the_admitted_who_have_nothing_to_say_keep_nobody_waiting(run: Any) -> None:
    async def scenario() -> None:
        async with linked() as (side, peer):
            filled = crowd(side)
            tasks = [asyncio.create_task(side.link.room()) for _ in range(50)]
            await asyncio.sleep(0)
            await peer.read(filled)
            await asyncio.wait_for(asyncio.gather(*tasks), 5)
            assert not side.link.crowded

    run(scenario)


def test_who_comes_while_somebody_was_just_admitted_does_not_wait_for_ever(run: Any) -> None:
    async def scenario() -> None:
        async with linked() as (side, peer):
            crowd(side)
            first = asyncio.create_task(side.link.room())
            await asyncio.sleep(0)
            while side.link._writer.is_waiting:
                peer.read_now()
                side.link._writer._go_on()
            assert not first.done() and side.link.crowded
            await asyncio.wait_for(first, 1)  # which has nothing to send
            await asyncio.sleep(0)
            crowd(side)
            first = asyncio.create_task(side.link.room())
            await asyncio.sleep(0)
            while side.link._writer.is_waiting:
                peer.read_now()
                side.link._writer._go_on()
            async with asyncio.timeout(1):
                await side.link.room()

    run(scenario)


def test_a_peer_that_does_not_read_disturbs_nothing_else(run: Any) -> None:
    async def scenario() -> None:
        async with linked() as (stuck, _), linked() as (side, peer):
            crowd(stuck)
            waiting = asyncio.create_task(stuck.link.room())
            for number in range(50):
                side.link.send(body(1, number))
                assert (await peer.read(1))[0][3] == number
            assert not waiting.done()
            size = stuck.link._size
            await asyncio.sleep(0.02)
            assert stuck.link._size == size
            waiting.cancel()

    run(scenario)


def test_a_peer_that_closes_is_told_of_once(run: Any) -> None:
    async def scenario() -> None:
        async with linked() as (side, peer):
            peer.socket.send(body(1, 0) + body(1, 1)[:5])
            peer.socket.close()
            await until(lambda: side.lost)
            assert side.lost == [("closed by the other side", False)]
            assert [frame[3] for frame in side.frames] == [0]
            assert side.link.closed
            side.link.lose("again")
            side.link.close()
            await asyncio.sleep(0.01)
            assert len(side.lost) == 1

    run(scenario)


def test_a_peer_that_closes_while_much_is_to_be_written_is_told_of_once(run: Any) -> None:
    async def scenario() -> None:
        async with linked() as (side, peer):
            fill(side)
            peer.socket.close()
            await until(lambda: side.lost)
            await asyncio.sleep(0.01)
            assert len(side.lost) == 1
            assert not side.lost[0][1]

    run(scenario)


@pytest.mark.parametrize("garbage", [b"\xff" * 12, b"GET / HTTP/1.1\r\n\r\n"])
def test_a_peer_that_breaks_the_rules_is_lost_as_one_that_does(run: Any, garbage: bytes) -> None:
    async def scenario() -> None:
        async with linked() as (side, peer):
            peer.socket.send(garbage)
            await until(lambda: side.lost)
            (reason, is_error), *more = side.lost
            assert is_error and not more
            assert "not a relay" in reason
            assert await asyncio.get_running_loop().sock_recv(peer.socket, 10) == b""
        async with linked() as (side, peer):
            side.refuse = True
            peer.socket.send(body(1, 1))
            await until(lambda: side.lost)
            assert side.lost == [("not like that", True)]

    run(scenario)


def test_whoever_waits_for_room_goes_on_when_the_connection_is_lost(run: Any) -> None:
    async def scenario() -> None:
        async with linked() as (side, peer):
            crowd(side)

            async def send() -> None:
                while side.link.crowded:  # a closed link never is, else nobody else would run
                    await side.link.room()
                for _ in range(100):
                    side.link.send(body(1, 0, LARGE))
                    assert not side.link.crowded

            tasks = [asyncio.create_task(send()) for _ in range(20)]
            await asyncio.sleep(0.01)
            peer.socket.close()
            await asyncio.wait_for(asyncio.gather(*tasks), 5)
            await asyncio.wait_for(side.link.room(), 1)
            await asyncio.wait_for(side.link.flushed(), 1)

    run(scenario)


def test_a_closed_link_keeps_nothing(run: Any) -> None:
    async def scenario() -> None:
        async with linked() as (side, _):
            link = side.link
            fill(side)
            link.send(body(1, 1))  # which is to leave at the end of this turn
            link.send_control(body(1, 1))
            link.close()
            for _ in range(3):
                link.send(body(1, 1))
                link.send_control(body(1, 1))
            assert not link.flush()
            await asyncio.sleep(0.01)
            assert not link._data and not link._control and not link._late
            assert not link._writer.is_waiting
            assert side.lost == []

    run(scenario)


def test_a_closed_link_leaves_no_reader_and_no_writer(run: Any) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        for writing in (False, True):
            async with linked() as (side, _):
                if writing:
                    fill(side)
                descriptor = side.link._socket.fileno()
                side.link.close()
                # The same descriptor, of somebody else: nothing may be called for it.
                ours, theirs = socket.socketpair()
                socks = [ours, theirs]
                while descriptor not in {sock.fileno() for sock in socks}:
                    socks += socket.socketpair()
                assert not loop.remove_reader(descriptor)
                assert not loop.remove_writer(descriptor)
                for sock in socks:
                    sock.close()

    run(scenario)


def test_the_writer_is_removed_when_all_has_left(run: Any) -> None:
    async def scenario() -> None:
        async with linked() as (side, peer):
            for _ in range(3):
                filled = fill(side)
                await peer.read(filled)
                await until(lambda: not side.link._writer.is_waiting)
                loop = asyncio.get_running_loop()
                assert not loop.remove_writer(side.link._socket.fileno())
                assert side.link._size == 0

    run(scenario)


def test_all_bytes_are_counted(run: Any) -> None:
    async def scenario() -> None:
        async with linked() as (side, peer):
            filled = fill(side)
            await peer.read(filled)
            assert side.link.bytes_out == filled * (MAX_PAYLOAD + HEADER.size)

    run(scenario)


def test_two_links_that_both_send_as_much_as_they_can_do_not_block_each_other(run: Any) -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        sides = [Side(ours), Side(theirs)]

        async def send(side: Side) -> None:
            for number in range(100):
                while side.link.crowded:
                    await side.link.room()
                side.link.send(body(1, number, LARGE))

        await asyncio.gather(*(send(side) for side in sides))
        await until(lambda: all(len(side.frames) == 100 for side in sides))
        for side in sides:
            assert [frame[3] for frame in side.frames] == list(range(100))
            side.link.close()

    run(scenario)
