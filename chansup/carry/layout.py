"""How the shared memory of one WebSocket is arranged: its *slot*.

The first page has words, small buffers and the handshake, which is all that a quiet WebSocket
needs. Larger data lies in areas of the slot that take no memory until they are written.

A process may be killed between any two instructions. So each change of state is one store of an
aligned word, after the data that it speaks of. What the words mean:

- `BASE`: position of the first byte in the inbound buffer, times 4, plus the area it lies in.
- `TAKEN`: end of the newest message that the app was given; `HANDLED`: of the newest one that it
  has dealt with. Each counts only if it is later than what stands before it: `BASE`, `HANDLED`,
  `TAKEN` is the order. So what moves `BASE` need not touch the others.
- `OUT_BASE`: like `BASE`, for what goes to the client; `OUT_END`: position behind the last byte.
- `READ`, `WRITTEN`: where the process itself stood when it left the WebSocket to another one.

Positions count the bytes of a connection as the kernel does, from the moment it was accepted.
"""

import struct
from typing import NamedTuple

from chansup.carry.errors import SlotError
from chansup.protocol.versions import CARRY

PAGE = 4096
MAGIC = 0x4E_41_48_43_52_41_43_30 + CARRY.newest  # of a segment's first word
WORDS = 32  # of 8 bytes each

(STATE, BASE, TAKEN, HANDLED, OUT_BASE, OUT_END, RECORD, CHECKPOINT, WORD, COUNT, READ, WRITTEN) = (
    range(12)
)
FREE, OPEN, CLOSING, PARKED = range(4)  # values of STATE

SMALL, LARGE, OTHER = range(3)  # areas of a buffer
AREA_BITS = 2

SMALL_OUT = slice(WORDS * 8, WORDS * 8 + 1024)
SMALL_IN = slice(SMALL_OUT.stop, SMALL_OUT.stop + 1280)
SMALL_RECORD = slice(SMALL_IN.stop, PAGE)
MAX_RECORD = 128 * 1024  # bytes of a recorded handshake
MAX_CHECKPOINT = 16 * 1024 + PAGE  # bytes of one as it is stored

_HEADER = struct.Struct("=QQQQ")


class Slice(NamedTuple):
    """Where an area lies in a slot."""

    start: int
    size: int


class Layout(NamedTuple):
    """The sizes of a segment: a header page, and slots behind it."""

    slots: int
    inbound: int  # bytes of each of two areas
    outbound: int  # the same

    def record(self) -> Slice:
        """Return where a record lies that is too large for the first page."""
        return Slice(PAGE, MAX_RECORD)

    def checkpoint(self, place: int) -> Slice:
        """Return where a checkpoint lies; there are two places, 0 and 1."""
        return Slice(PAGE + MAX_RECORD + place * MAX_CHECKPOINT, MAX_CHECKPOINT)

    def incoming(self, area: int) -> Slice:
        """Return where an area of the inbound buffer lies."""
        if area == SMALL:
            return Slice(SMALL_IN.start, SMALL_IN.stop - SMALL_IN.start)
        return Slice(self._buffers + (area - 1) * self.inbound, self.inbound)

    def outgoing(self, area: int) -> Slice:
        """Return where an area of the outbound buffer lies."""
        if area == SMALL:
            return Slice(SMALL_OUT.start, SMALL_OUT.stop - SMALL_OUT.start)
        start = self._buffers + 2 * self.inbound
        return Slice(start + (area - 1) * self.outbound, self.outbound)

    @property
    def _buffers(self) -> int:
        return PAGE + MAX_RECORD + 2 * MAX_CHECKPOINT

    @property
    def slot_size(self) -> int:
        """Return the bytes of a slot."""
        return self._buffers + 2 * self.inbound + 2 * self.outbound

    @property
    def size(self) -> int:
        """Return the bytes of a segment."""
        return PAGE + self.slots * self.slot_size

    def place(self, index: int) -> int:
        """Return where a slot begins in a segment."""
        return PAGE + index * self.slot_size

    def header(self) -> bytes:
        """Return what stands at the begin of a segment."""
        return _HEADER.pack(MAGIC, self.slots, self.inbound, self.outbound)


def layout_for(largest_message: int, slots: int) -> Layout:
    """Return the layout for messages of at most so many bytes."""
    area = _pages(largest_message + 256 * 1024)  # room for what comes behind it
    return Layout(slots, area, area)


def read_header(data: bytes, size: int) -> Layout:
    """Return the layout of a segment of `size` bytes. Raises SlotError."""
    if len(data) < _HEADER.size:
        raise SlotError("a segment without a header")
    magic, slots, inbound, outbound = _HEADER.unpack_from(data)
    layout = Layout(slots, inbound, outbound)
    if magic != MAGIC or any(area % PAGE for area in (inbound, outbound)) or layout.size != size:
        raise SlotError("a segment of another version of chansup")
    return layout


def _pages(size: int) -> int:
    return (size + PAGE - 1) // PAGE * PAGE
