"""The journals, driven byte by byte: after a kill at any moment, nothing is lost or repeated."""

import random
from collections import deque
from collections.abc import Callable, Iterator

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chansup.carry import layout, remainder
from chansup.carry.arena import Arena, Slot
from chansup.carry.errors import DiffersError, SlotError
from chansup.carry.frames import scan
from chansup.carry.inbound import RESERVE, Inbound
from chansup.carry.layout import OPEN, STATE, Layout
from chansup.carry.outbound import Outbound
from chansup.carry.positions import Positions
from tests.carry.frames import BINARY, CONTINUATION, PING, TEXT, frame

LAYOUT = layout.layout_for(64 * 1024, slots=4)
ARENA = Arena(LAYOUT)


def fresh_slot() -> Slot:
    slot, descriptor = ARENA.take()
    if descriptor is not None:
        import os

        os.close(descriptor)
    slot.words[STATE] = OPEN
    return slot


# The scanner

seeds = st.integers(0, 2**32).map(random.Random)
messages = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 5, 100, 125, 126, 500, 1500, 70000]),
        st.integers(1, 4),  # frames
        st.booleans(),  # a ping between them
    ),
    max_size=6,
)


def stream_of(plan: list[tuple[int, int, bool]]) -> tuple[bytes, list[int]]:
    """Return the bytes of messages, and where each one ends."""
    data, ends = b"", []
    for size, frames, pinged in plan:
        payload = bytes(size)
        for number in range(frames):
            opcode = BINARY if number == 0 else CONTINUATION
            part = payload[number * size // frames : (number + 1) * size // frames]
            data += frame(opcode, part, number == frames - 1, b"abcd")
            if pinged and number < frames - 1:
                data += frame(PING, b"p", mask=b"abcd")
        ends.append(len(data))
        if pinged:
            data += frame(PING, b"q", mask=b"abcd")
    return data, ends


@given(messages, seeds)
def test_ends_are_found_however_the_bytes_come(
    plan: list[tuple[int, int, bool]], rnd: random.Random
) -> None:
    data, expected = stream_of(plan)
    ends: deque[int] = deque()
    place, inside, end = 0, False, 0
    while end < len(data):
        end = min(len(data), end + rnd.choice([1, 2, 3, 7, 100, 5000, 100000]))
        place, inside = scan(data, place, end, 1000, ends, inside)
        assert place <= end
    assert [one - 1000 for one in ends] == expected
    assert (place, inside) == (len(data), False)


def test_a_frame_without_a_mask_is_measured_as_what_it_is() -> None:
    ends: deque[int] = deque()
    assert scan(b"\x81\x02hi\x81", 0, 5, 0, ends, False) == (4, False)
    assert list(ends) == [4]


# The inbound journal


class Client:
    """What a client sends, an app that takes it, and a process that may be killed at any moment."""

    def __init__(self, data: bytes, rnd: random.Random) -> None:
        self.data = data
        self.rnd = rnd
        self.read = 0  # by the kernel's count
        self.delivered = b""
        self.had = 0  # position behind the last byte that was delivered
        self.paused = False
        self.full = False
        self.soon: list[Callable[[], None]] = []
        self.slot = fresh_slot()
        self.journal = self.new()
        assert self.journal.begin(self.slot, 0, b"", 0)

    def new(self) -> Inbound:
        scratch = memoryview(bytearray(65536))
        return Inbound(
            self.deliver, scratch, self.stop, self.soon.append, self.on_full, lambda: None
        )

    def deliver(self, data: bytes) -> None:
        assert data == self.data[self.had : self.had + len(data)]
        self.had += len(data)
        self.delivered += data

    def stop(self, stops: bool) -> None:
        self.paused = stops

    def turn(self) -> None:
        """Do what was to be done in the next turn of the loop."""
        while self.soon:
            self.soon.pop(0)()

    def on_full(self) -> None:
        self.full = True

    def receive(self, most: int, updated: bool = True) -> None:
        """Read as the loop does; `updated` False: killed between the read and the protocol."""
        if self.paused or self.read == len(self.data):
            return
        buffer = self.journal.get_buffer(-1)
        count = min(len(buffer), most, len(self.data) - self.read)
        buffer[:count] = self.data[self.read : self.read + count]
        self.read += count
        if updated:
            self.journal.buffer_updated(count)

    def remainder(self, redeliver: bool = False) -> remainder.Remainder:
        return remainder.read(self.slot, Positions(self.read, 0, False), redeliver)

    def move(self, redeliver: bool = False) -> bool:
        """Continue in another process. Say whether a message was in hand."""
        left = self.remainder(redeliver)
        # One that was filled into its reserve has no room elsewhere: it is closed, and counted.
        assume(len(left.inbound) <= LAYOUT.incoming(layout.LARGE).size - RESERVE)
        former, self.slot = self.slot, fresh_slot()
        self.journal = self.new()
        self.paused = False
        self.soon.clear()
        self.delivered = b""
        self.had = left.position
        self.journal.hold()
        assert self.journal.begin(self.slot, left.position, left.inbound, 0)
        assert self.delivered == b""
        ARENA.release(former)
        self.soon.clear()
        self.journal.let_go()
        return left.is_in_hand


@settings(deadline=None, max_examples=60)
@given(messages, seeds, st.booleans())
def test_no_kill_loses_more_than_the_message_in_hand(
    plan: list[tuple[int, int, bool]], rnd: random.Random, redeliver: bool
) -> None:
    data, ends = stream_of(plan)
    client = Client(data, rnd)
    done: list[int] = []  # ends of messages that the app has dealt with
    lost = 0
    try:
        for _ in range(100_000):
            action = rnd.random()
            if action < 0.5:
                client.receive(rnd.choice([1, 3, 40, 1000, 65536]))
            elif action < 0.55:
                client.journal.pause_reading()
            elif action < 0.65:
                client.journal.resume_reading()
            elif action < 0.7:
                client.turn()
            elif action < 0.85:
                if client.journal.in_hand:
                    done.append(client.journal.in_hand)
                    client.journal.handle()
                if client.journal.ends and client.journal.ends[0] <= client.had:
                    client.journal.take()
            elif action < 0.95:
                if client.rnd.random() < 0.3:
                    client.receive(100, updated=False)
                in_hand = client.journal.in_hand
                was_in_hand = client.move(redeliver)
                assert was_in_hand == bool(in_hand)
                if was_in_hand and not redeliver:
                    lost += 1
                    done.append(in_hand)
            else:
                client.journal.shrink()
            if client.read == len(data) and not client.journal.ends and not client.journal.in_hand:
                break
        assert not client.full
        assert done == ends
        assert redeliver is False or lost == 0
    finally:
        ARENA.release(client.slot)


@given(messages, seeds)
def test_a_new_process_is_given_the_bytes_from_the_begin_of_a_message(
    plan: list[tuple[int, int, bool]], rnd: random.Random
) -> None:
    data, ends = stream_of(plan)
    client = Client(data, rnd)
    try:
        while client.read < len(data):
            client.receive(rnd.choice([1, 40, 3000, 65536]))
            if client.journal.in_hand:
                client.journal.handle()
            if client.journal.ends:
                client.journal.take()
            client.journal.handle() if client.journal.in_hand else None
            position = client.remainder().position
            client.move()
            assert client.delivered == data[position : client.read]
            # Never in the middle of a message.
            assert position in {0, *ends} or any(
                end <= position and data[end:position].startswith(b"\x89") for end in (0, *ends)
            )
    finally:
        ARENA.release(client.slot)


def test_what_is_held_is_kept_and_given_later() -> None:
    data = frame(TEXT, b"one") + frame(TEXT, b"two")
    client = Client(data, random.Random(1))
    client.receive(9)
    client.journal.hold()
    client.paused = False  # uvloop reads whatever was said before
    client.receive(100)
    assert client.delivered == data[:9]
    assert client.paused
    client.journal.let_go()
    assert not client.paused
    assert client.delivered == data
    ARENA.release(client.slot)


def test_reading_stops_while_much_waits_for_the_app() -> None:
    data = b"".join(frame(BINARY, bytes(1000)) for _ in range(1000))
    client = Client(data, random.Random(1))
    while not client.paused:
        before = client.read
        client.receive(65536)
        assert client.read > before
    assert client.read < LAYOUT.inbound
    taken = 0
    while client.paused:
        client.journal.take()
        client.journal.handle()
        taken += 1
    assert 0 < taken < 1000
    assert not client.full
    ARENA.release(client.slot)


def test_a_message_that_does_not_fit_is_passed_on_and_not_kept() -> None:
    data = frame(BINARY, bytes(400_000)) + frame(TEXT, b"more")
    client = Client(data, random.Random(1))
    while client.read < len(data):
        client.receive(65536)
    assert client.full
    assert client.delivered == data
    assert not client.journal.is_kept
    ARENA.release(client.slot)


def test_a_byte_that_was_there_before_is_not_taken_for_a_length() -> None:
    client = Client(b"\x81" + frame(TEXT, b"x")[1:], random.Random(1))
    client.journal.get_buffer(-1)[1] = 123  # of an earlier frame
    client.receive(1)
    assert not client.journal.ends
    client.receive(100)
    assert len(client.journal.ends) == 1
    ARENA.release(client.slot)


def test_memory_of_a_large_message_is_given_back() -> None:
    client = Client(frame(BINARY, bytes(60_000)), random.Random(1))
    while not client.journal.ends:
        client.receive(65536)
    assert client.journal.is_large
    assert not client.journal.shrink()
    client.journal.take()
    client.journal.handle()
    assert client.journal.shrink()
    assert not client.journal.is_large
    assert client.remainder().inbound == b""
    ARENA.release(client.slot)


# The outbound journal


class Kernel:
    """A transport and the kernel behind it: takes bytes when it likes."""

    def __init__(self) -> None:
        self.waiting = b""
        self.taken = b""
        self.full = False
        self.closes = 0
        self.slot = fresh_slot()
        self.journal = self.new()
        assert self.journal.begin(self.slot, 0)

    def new(self) -> Outbound:
        return Outbound(self.send, self.unsent, self.on_full, self.on_close, lambda: None)

    def send(self, data: bytes) -> None:
        self.waiting += data

    def unsent(self) -> int:
        return len(self.waiting)

    def on_full(self) -> None:
        self.full = True

    def on_close(self) -> None:
        self.closes += 1

    def take(self, count: int) -> None:
        self.taken += self.waiting[:count]
        self.waiting = self.waiting[count:]

    def move(self) -> None:
        left = remainder.read(self.slot, Positions(0, len(self.taken), False), False)
        former, self.slot = self.slot, fresh_slot()
        self.journal = self.new()
        assert self.journal.begin(self.slot, left.written, left.outbound)
        self.waiting = left.outbound
        ARENA.release(former)


@settings(deadline=None, max_examples=60)
@given(seeds, st.integers(1, 60))
def test_whatever_was_written_reaches_the_client_once(rnd: random.Random, steps: int) -> None:
    kernel = Kernel()
    written = b""
    try:
        for _ in range(steps):
            action = rnd.random()
            if action < 0.5:
                size = rnd.choice([0, 1, 50, 1000, 1024, 1025, 5000, 60_000])
                data = bytes([0x82] * min(size, 1)) + rnd.randbytes(max(0, size - 1))
                if kernel.journal.room >= size:
                    kernel.journal.write(data)
                    written += data
            elif action < 0.8:
                kernel.take(rnd.choice([1, 100, 1000, 10_000, 1_000_000]))
            elif action < 0.95:
                kernel.move()
            else:
                kernel.journal.shrink()
        assert not kernel.full
        kernel.move()
        kernel.take(1_000_000_000)
        assert kernel.taken == written
    finally:
        ARENA.release(kernel.slot)


def test_more_than_the_journal_holds_is_sent_and_not_kept() -> None:
    kernel = Kernel()
    kernel.journal.write(b"\x82" + bytes(LAYOUT.outbound))
    assert kernel.full
    assert len(kernel.waiting) == LAYOUT.outbound + 1
    kernel.journal.write(b"\x82more")
    assert kernel.waiting.endswith(b"\x82more")
    ARENA.release(kernel.slot)


def test_a_close_frame_marks_the_slot() -> None:
    kernel = Kernel()
    kernel.journal.write(b"\x81\x01x")
    assert not remainder.read(kernel.slot, Positions(0, 0, False), False).is_closing
    kernel.journal.write(b"\x88\x02\x03\xe8")
    assert kernel.closes == 1
    assert remainder.read(kernel.slot, Positions(0, 3, False), False).is_closing
    ARENA.release(kernel.slot)


# What another process reads


@pytest.fixture
def slot() -> Iterator[Slot]:
    slot = fresh_slot()
    yield slot
    ARENA.release(slot)


def test_a_kernel_that_disagrees_is_never_guessed_about(slot: Slot) -> None:
    kernel = Kernel()
    kernel.journal.write(b"\x81\x01x")
    for read, written in ((-1, 3), (0, 4), (LAYOUT.inbound, 0)):
        with pytest.raises(DiffersError):
            remainder.read(kernel.slot, Positions(read, written, False), False)
    ARENA.release(kernel.slot)


def test_without_the_kernels_count_only_what_was_parked_can_be_read(slot: Slot) -> None:
    with pytest.raises(DiffersError):
        remainder.read(slot, None, False)
    slot.words[STATE] = layout.PARKED
    slot.words[layout.READ] = slot.words[layout.WRITTEN] = 0
    assert remainder.read(slot, None, False).inbound == b""


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=32, max_size=32), st.booleans())
def test_a_slot_of_garbage_is_refused_or_read_within_its_bounds(
    words: list[int], small: bool
) -> None:
    slot = fresh_slot()
    try:
        for place, word in enumerate(words):
            slot.words[place] = word % 5000 if small else word
        try:
            left = remainder.read(slot, Positions(100, 100, False), False)
        except (DiffersError, SlotError):
            return
        assert len(left.inbound) <= LAYOUT.inbound
    finally:
        ARENA.release(slot)


@given(st.binary(max_size=5000), st.lists(st.binary(max_size=16 * 1024), max_size=4))
def test_a_handshake_and_the_newest_checkpoint_are_kept(
    record: bytes, checkpoints: list[bytes]
) -> None:
    slot = fresh_slot()
    try:
        assert remainder.write_record(slot, record)
        for one in checkpoints:
            remainder.write_checkpoint(slot, one)
        left = remainder.read(slot, Positions(0, 0, False), False)
        assert left.record == record
        assert left.checkpoint == (checkpoints[-1] if checkpoints else None)
    finally:
        ARENA.release(slot)


def test_an_idle_websocket_takes_one_page() -> None:
    assert layout.SMALL_RECORD.stop <= layout.PAGE
    assert isinstance(LAYOUT, Layout)
    assert LAYOUT.incoming(layout.LARGE).start >= layout.PAGE
