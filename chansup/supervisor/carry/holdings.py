"""The descriptors that the holder has: one for each WebSocket, one for each segment of memory."""

import contextlib
import os
import socket
from collections.abc import Callable
from itertools import count

from chansup.protocol.carry import PacketError, place_of
from chansup.supervisor.carry.carrier import Carrier
from chansup.supervisor.carry.held import Held, Segment

_CLOSE = b"\x88\x02"  # head of an unmasked close frame with a code alone
_BLOCK = 512  # bytes that st_blocks counts in: stat(2)


class Holdings:
    """All of one site."""

    def __init__(self, limit: int, unneeded: Callable[[Segment], None]) -> None:
        """Hold `limit` WebSockets at most. `unneeded` hears of memory that can go."""
        self.limit = limit
        self.number = 0  # of WebSockets
        self._segments: set[Segment] = set()
        self._unneeded = unneeded
        self._keys = count(1)

    @property
    def is_full(self) -> bool:
        """Whether there is room for no more."""
        return self.number >= self.limit

    def memory(self) -> int:
        """Return how many bytes the memory of processes takes now."""
        return sum(os.fstat(one.descriptor).st_blocks * _BLOCK for one in self._segments)

    def add_segment(self, carrier: Carrier, number: int, descriptor: int) -> None:
        """Keep a piece of the memory of a process. Raises PacketError."""
        if number in carrier.segments:
            raise PacketError(f"segment {number}, a second time")
        segment = carrier.segments[number] = Segment(next(self._keys), descriptor)
        self._segments.add(segment)

    def place(self, carrier: Carrier, slot: int) -> tuple[Segment, int]:
        """Return where a slot that is free until now lies. Raises PacketError."""
        number, index = place_of(slot)
        if slot in carrier.sockets or number not in carrier.segments:
            raise PacketError(f"slot {slot} is in use, or not there")
        return carrier.segments[number], index

    def hold(self, descriptor: int, place: tuple[Segment, int], *, survives_crash: bool) -> Held:
        """Take a WebSocket. Its descriptor belongs to the holder from now on."""
        self.number += 1
        place[0].users += 1
        return Held(descriptor, *place, survives_crash)

    def move(self, held: Held, place: tuple[Segment, int]) -> None:
        """Take notice that the slot of one lies elsewhere now."""
        former, (held.segment, held.index) = held.segment, place
        held.is_clean = False
        held.segment.users += 1
        former.users -= 1
        self._release(former)

    def end(self, held: Held, code: int = 0) -> None:
        """Let go of a WebSocket; tell its client a close code, if that is certain to be right."""
        self.number -= 1
        held.segment.users -= 1
        self._release(held.segment)
        if code and held.is_clean:
            _say_close(held.descriptor, code)
        with contextlib.suppress(OSError):
            os.close(held.descriptor)

    def orphan_memory(self, carrier: Carrier) -> None:
        """Take notice that a process is gone: its memory stays while a slot in it is needed."""
        for segment in carrier.segments.values():
            segment.is_orphaned = True
            self._release(segment)

    def _release(self, segment: Segment) -> None:
        if segment.is_orphaned and not segment.users and segment.descriptor >= 0:
            self._unneeded(segment)
            self._segments.discard(segment)
            os.close(segment.descriptor)
            segment.descriptor = -1


def _say_close(descriptor: int, code: int) -> None:
    """Send a close frame, if there is room: RFC 6455, section 5.5.1."""
    sock = socket.socket(fileno=os.dup(descriptor))
    with sock, contextlib.suppress(OSError):
        sock.send(_CLOSE + code.to_bytes(2), socket.MSG_DONTWAIT)
