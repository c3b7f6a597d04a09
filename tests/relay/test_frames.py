"""The frame codec: whatever the pieces in which bytes arrive, the same frames come out."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chansup.relay.frames import (
    END,
    HEADER,
    HEADER_SIZE,
    MAX_PAYLOAD,
    MAX_STREAM,
    MORE,
    TEXT,
    Decoder,
    Frame,
    FrameError,
    Kind,
    pack,
    split,
)

NUMBERS = st.one_of(st.integers(0, MAX_STREAM), st.sampled_from([0, 1, MAX_STREAM]))
BYTES = st.integers(0, 255)
PAYLOADS = st.one_of(
    st.binary(max_size=40),
    st.integers(MAX_PAYLOAD - 1, MAX_PAYLOAD).map(lambda size: b"p" * size),
)
FRAMES = st.tuples(BYTES, BYTES, NUMBERS, NUMBERS, PAYLOADS)
QUICK = settings(deadline=None, max_examples=60)


def feed(decoder: Decoder, pieces: list[bytes]) -> list[Frame]:
    return [frame for piece in pieces for frame in decoder.feed(piece)]


def chop(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(places)]


@QUICK
@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(0), max_size=12))
def test_any_frames_in_any_pieces_come_out_the_same(frames: list[Any], cuts: list[int]) -> None:
    data = b"".join(pack(*frame) for frame in frames)
    decoder = Decoder()
    assert feed(decoder, chop(data, cuts)) == frames
    assert decoder.feed(b"") == []
    assert decoder.feed(pack(Kind.HELLO, 0, 0, 0)) == [(Kind.HELLO, 0, 0, 0, b"")]  # nothing left


@QUICK
@given(st.lists(st.tuples(BYTES, BYTES, NUMBERS, NUMBERS, st.binary(max_size=30)), max_size=5))
def test_frames_come_out_byte_by_byte_each_with_its_last_byte(frames: list[Any]) -> None:
    data = b"".join(pack(*frame) for frame in frames)
    ends, place = {}, 0
    for frame in frames:
        place += HEADER_SIZE + len(frame[4])
        ends[place] = frame
    decoder = Decoder()
    for place in range(len(data)):
        found = decoder.feed(data[place : place + 1])
        assert found == ([ends[place + 1]] if place + 1 in ends else [])


@QUICK
@given(st.lists(FRAMES, min_size=1, max_size=3), st.data())
def test_what_is_cut_off_yields_the_whole_frames_before_it(
    frames: list[Any], data: st.DataObject
) -> None:
    last = pack(*frames[-1])
    cut = data.draw(st.integers(0, len(last) - 1))
    decoder = Decoder()
    assert decoder.feed(b"".join(pack(*frame) for frame in frames[:-1]) + last[:cut]) == frames[:-1]
    assert decoder.feed(last[cut:]) == frames[-1:]


def test_every_truncation_of_a_frame_yields_nothing_and_no_error() -> None:
    frame = (Kind.MESSAGE, TEXT, 7, 9, b"how are you?")
    data = pack(*frame)
    for cut in range(len(data)):
        decoder = Decoder()
        assert decoder.feed(data[:cut]) == []
        assert decoder.feed(b"") == []
        assert decoder.feed(data[cut:]) == [frame]


@pytest.mark.parametrize("size", [MAX_PAYLOAD + 1, 20_000, 2**16 - 1])
@pytest.mark.parametrize("before", [0, 1])
def test_a_size_that_no_frame_has_is_an_error_as_soon_as_the_header_is_there(
    size: int, before: int
) -> None:
    decoder = Decoder()
    header = HEADER.pack(size, Kind.BODY, 0, 1, 1)
    assert decoder.feed(header[:-1]) == []
    with pytest.raises(FrameError, match=f"a frame of {size} bytes"):
        decoder.feed(header[-1:])
    with pytest.raises(FrameError):
        Decoder().feed(pack(Kind.BODY, 0, 1, 1, b"x") * before + header)


def test_the_largest_size_is_none() -> None:
    frame = (Kind.BODY, 0, 1, 1, b"x" * MAX_PAYLOAD)
    assert Decoder().feed(pack(*frame)) == [frame]


@QUICK
@given(st.binary(max_size=400), st.lists(st.integers(0), max_size=5))
def test_garbage_is_frames_or_an_error_in_any_pieces(garbage: bytes, cuts: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> list[Any]:
        decoder, found = Decoder(), []
        for piece in pieces:
            try:
                found += decoder.feed(piece)
            except FrameError:
                return [*found, FrameError]
        return found

    whole, apart = outcome([garbage]), outcome(chop(garbage, cuts))
    if FrameError not in whole:
        assert apart == whole
    else:
        assert apart[-1] is FrameError


@QUICK
@given(
    st.one_of(
        st.binary(max_size=40),
        st.integers(0, 3)
        .flatmap(lambda n: st.integers(n * MAX_PAYLOAD - 1, n * MAX_PAYLOAD + 1))
        .filter(lambda size: size >= 0)
        .map(lambda size: bytes(range(256)) * (size // 256) + b"!" * (size % 256)),
    ),
    st.sampled_from([0, END, TEXT]),
)
def test_a_payload_of_any_size_is_put_together_again(payload: bytes, flags: int) -> None:
    packed = list(split(Kind.MESSAGE, flags, 3, 8, payload))
    frames = Decoder().feed(b"".join(packed))
    assert len(frames) == len(packed) == max(1, -(-len(payload) // MAX_PAYLOAD))
    assert b"".join(frame[4] for frame in frames) == payload
    assert all((frame[0], frame[2], frame[3]) == (Kind.MESSAGE, 3, 8) for frame in frames)
    assert [frame[1] for frame in frames] == [flags | MORE] * (len(frames) - 1) + [flags]
    assert all(len(frame[4]) == MAX_PAYLOAD for frame in frames[:-1])


def test_kinds_are_distinct() -> None:
    kinds = [value for name, value in vars(Kind).items() if name.isupper()]
    assert len(set(kinds)) == len(kinds)
    assert all(0 < kind < 256 for kind in kinds)
