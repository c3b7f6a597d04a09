"""The shared memory of this process, and that of others: segments of slots."""

import contextlib
import fcntl
import mmap
import os

from chansup.carry.errors import FullError, SlotError
from chansup.carry.layout import PAGE, SMALL, STATE, WORDS, Layout, Slice, read_header
from chansup.protocol.carry import MAX_SEGMENTS, SLOTS, place_of, slot_of

_F_ADD_SEALS, _F_GET_SEALS = 1033, 1034  # fcntl(2); Python names them only from 3.13 on
_F_SEAL_SEAL, _F_SEAL_SHRINK, _F_SEAL_GROW = 1, 2, 4


class Slot:
    """The memory of one WebSocket."""

    __slots__ = ("_view", "layout", "map", "number", "start", "words")

    def __init__(self, segment: "Segment", index: int, number: int) -> None:
        """`number`: as messages name it; -1 of another process's slot."""
        self.map = segment.map
        self.layout = segment.layout
        self.number = number
        self.start = segment.layout.place(index)
        self._view = segment.view[self.start : self.start + segment.layout.slot_size]
        self.words: memoryview[int] = self._view[: WORDS * 8].cast("Q")

    def bytes(self, place: Slice) -> "memoryview[int]":
        """Return a view of an area."""
        return self._view[place.start : place.start + place.size]

    def incoming(self, area: int) -> "memoryview[int]":
        """Return an area of the inbound buffer."""
        return self.bytes(self.layout.incoming(area))

    def outgoing(self, area: int) -> "memoryview[int]":
        """Return an area of the outbound buffer."""
        return self.bytes(self.layout.outgoing(area))

    def give_back(self, place: Slice) -> None:
        """Give the memory of an area back to the system; it reads as zeros then."""
        with contextlib.suppress(OSError):  # it stays used then, until the process ends
            self.map.madvise(mmap.MADV_REMOVE, self.start + place.start, place.size)

    def give_back_incoming(self, area: int) -> None:
        """Give back a large area of the inbound buffer."""
        assert area != SMALL
        self.give_back(self.layout.incoming(area))

    def give_back_outgoing(self, area: int) -> None:
        """Give back a large area of the outbound buffer."""
        assert area != SMALL
        self.give_back(self.layout.outgoing(area))


class Segment:
    """A mapped segment."""

    __slots__ = ("layout", "map", "view")

    def __init__(self, descriptor: int, layout: Layout, writable: bool) -> None:
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self.map = mmap.mmap(descriptor, layout.size, mmap.MAP_SHARED, access)
        self.map.madvise(mmap.MADV_DONTDUMP)  # a core dump would allocate all that is sparse
        self.view = memoryview(self.map)
        self.layout = layout

    @staticmethod
    def of_another(descriptor: int) -> "Segment":
        """Map the segment of another process, to read it. Raises SlotError, OSError."""
        if not fcntl.fcntl(descriptor, _F_GET_SEALS) & _F_SEAL_SHRINK:
            raise SlotError("a segment that could be cut off")
        size = os.fstat(descriptor).st_size
        layout = read_header(os.pread(descriptor, 64, 0), size)
        return Segment(descriptor, layout, writable=False)

    def slot(self, index: int) -> Slot:
        """Return a slot of another process's segment. Raises SlotError."""
        if index >= self.layout.slots:
            raise SlotError("a slot that its segment does not have")
        return Slot(self, index, -1)


def _create(size: int) -> int:
    """Return the descriptor of zeroed memory. Sealed: whoever maps it can rely on its size."""
    descriptor = os.memfd_create("chansup-carry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, _F_ADD_SEALS, _F_SEAL_SEAL | _F_SEAL_SHRINK | _F_SEAL_GROW)
    return descriptor


class Arena:
    """The segments of this process. A new one is made when all slots are used."""

    def __init__(self, layout: Layout) -> None:
        assert layout.slots <= SLOTS
        self._layout = layout
        self._segments: list[Segment] = []
        self._free: list[int] = []

    def take(self) -> tuple[Slot, int | None]:
        """Return a free slot, and the descriptor of a new segment if it is the first one there.

        The caller closes the descriptor. Raises FullError.
        """
        descriptor = None
        if not self._free:
            descriptor = self._grow()
        number = self._free.pop()
        segment, index = place_of(number)
        return Slot(self._segments[segment], index, number), descriptor

    def _grow(self) -> int:
        if mmap.PAGESIZE != PAGE:
            raise FullError(f"memory comes in pages of {mmap.PAGESIZE} bytes here, not of {PAGE}")
        number = len(self._segments)
        if number >= MAX_SEGMENTS:
            raise FullError("no slot is left")
        try:
            descriptor = _create(self._layout.size)
        except OSError as error:
            raise FullError(f"no memory for slots: {error.strerror}") from None
        try:
            segment = Segment(descriptor, self._layout, writable=True)
        except (OSError, ValueError, OverflowError) as error:
            os.close(descriptor)
            raise FullError(f"no memory for slots: {error}") from None
        header = self._layout.header()
        segment.view[: len(header)] = header
        self._segments.append(segment)
        indexes = range(self._layout.slots - 1, -1, -1)
        self._free.extend(slot_of(number, index) for index in indexes)
        return descriptor

    def release(self, slot: Slot) -> None:
        """Take a slot back, with all of its memory. Nobody writes to it any more."""
        slot.words[STATE] = 0
        slot.give_back(Slice(0, slot.layout.slot_size))
        self._free.append(slot.number)

    @property
    def used(self) -> int:
        """How many slots are taken."""
        return len(self._segments) * self._layout.slots - len(self._free)

    @property
    def newest(self) -> int:
        """The number of the newest segment."""
        return len(self._segments) - 1
