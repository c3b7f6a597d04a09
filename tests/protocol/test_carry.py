"""Messages between a process whose WebSockets outlive it and the supervisor."""

import contextlib
import os
import resource
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chansup.protocol import carry

Pair = tuple[socket.socket, socket.socket]

FROM_CHILD: list[carry.ChildMessage] = [
    carry.Ready(False, "no loopback"),
    carry.Closed(5),
    carry.Plain(6, "inbound"),
    carry.Parked(7),
    carry.Adopted(3, 8, lost=1),
    carry.Resumed(8),
    carry.Settled(8),
    carry.Failed(4, "differs", True, "journal and kernel"),
    carry.Leaving(),
    carry.Left(),
]
FROM_HOLDER: list[carry.HolderMessage] = [
    carry.Forget(1),
    carry.Declined(9, "descriptors"),
    carry.Leave(False),
]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for one in (ours, theirs):
            one.setblocking(False)
        yield ours, theirs


def test_messages_arrive_as_they_were_sent(pair: Pair) -> None:
    holder, child = pair
    for message in FROM_CHILD:
        carry.send(child, message)
        assert carry.receive_from_child(holder) == (message, None)
    for order in FROM_HOLDER:
        carry.send(holder, order)
        assert carry.receive_from_holder(child) == (order, None)


@pytest.mark.parametrize("message", [carry.Segment(0), carry.Open(1)])
def test_a_descriptor_arrives_and_is_not_inherited(pair: Pair, message: carry.ChildMessage) -> None:
    holder, child = pair
    read, write = os.pipe()
    carry.send(child, message, write)
    os.close(write)
    got, descriptor = carry.receive_from_child(holder)
    assert got == message
    assert descriptor is not None and not os.get_inheritable(descriptor)
    os.write(descriptor, b"x")
    assert os.read(read, 1) == b"x"
    os.close(descriptor)
    os.close(read)


def test_nothing_there_is_no_end(pair: Pair) -> None:
    with pytest.raises(BlockingIOError):
        carry.receive_from_child(pair[0])


def test_the_end_is_told(pair: Pair) -> None:
    pair[1].close()
    with pytest.raises(carry.ChannelClosedError):
        carry.receive_from_child(pair[0])


@pytest.mark.parametrize(
    ("packet", "count"),
    [
        (b"[]", 0),
        (b"{", 0),
        (b'{"type":"closed"}', 0),
        (b'{"type":"closed","slot":-1}', 0),
        (b'{"type":"closed","slot":99999999}', 0),
        (b'{"type":"adopt","ticket":1,"key":1,"index":0,"reason":"deploy","count":1}', 0),
        (b'{"type":"left"}', 1),
        (b'{"type":"open","slot":1}', 0),
        (b'{"type":"open","slot":1}', 2),
        (b'{"type":"open","slot":1}', 9),
        (b'{"type":"left"' + b" " * carry.MAX_PACKET + b"}", 0),
    ],
)
def test_garbage_is_refused_and_its_descriptors_are_closed(
    pair: Pair, packet: bytes, count: int
) -> None:
    read, write = os.pipe()
    socket.send_fds(pair[1], [packet], [write] * count)
    os.close(write)
    with pytest.raises(carry.PacketError):
        carry.receive_from_child(pair[0])
    assert os.read(read, 1) == b""  # nobody holds the other end
    os.close(read)


def test_a_message_arrives_without_its_descriptor_where_no_more_can_be_open(pair: Pair) -> None:
    message = carry.Open(3)
    carry.send(pair[1], message, pair[1].fileno())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (pair[0].fileno() + 100, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                used.append(os.dup(0))
        assert carry.receive_from_child(pair[0]) == (message, None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in used:
            os.close(descriptor)


@given(st.binary(max_size=300))
def test_whatever_comes_is_a_message_or_an_error(data: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        theirs.send(data)
        with pytest.raises((carry.PacketError, carry.ChannelClosedError)):
            carry.receive_from_holder(ours)


@given(st.integers(0, carry.MAX_SEGMENTS - 1), st.integers(0, carry.SLOTS - 1))
def test_a_slot_is_a_place(segment: int, index: int) -> None:
    assert carry.place_of(carry.slot_of(segment, index)) == (segment, index)
