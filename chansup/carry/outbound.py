"""What goes to a client, kept in shared memory until the kernel has it. Free of I/O.

First the bytes, then the word that says where they end, and only then the transport. So after a
kill all that may have been written stands here, and the kernel's counter says how much of it was.
"""

from collections.abc import Callable

from chansup.carry.arena import Slot
from chansup.carry.layout import (
    AREA_BITS,
    CLOSING,
    LARGE,
    OTHER,
    OUT_BASE,
    OUT_END,
    SMALL,
    SMALL_OUT,
    STATE,
)

_SMALL_SIZE = SMALL_OUT.stop - SMALL_OUT.start
_LIMIT = 64 * 1024  # bytes: pages of a large area that small writes may touch
_CLOSE = 0x88  # first byte of a close frame: servers write whole frames


class Outbound:
    """The outbound journal of one WebSocket.

    Small writes stand one behind the other until the buffer is full: then it begins at the front
    again, if the kernel has all.
    """

    __slots__ = (
        "_area", "_at", "_base", "_buffer", "_capacity", "_limit", "_slot", "_words", "end",
        "is_large", "on_close", "on_full", "on_large", "send", "unsent",
    )  # fmt: skip

    def __init__(
        self,
        send: Callable[[bytes], None],
        unsent: Callable[[], int],
        on_full: Callable[[], None],
        on_close: Callable[[], None],
        on_large: Callable[[], None],
    ) -> None:
        """`send` writes to the transport; `unsent` returns how many bytes of that the kernel does
        not have. `on_full`: more waits than the journal holds, nothing is kept any more.
        `on_close`: the server has written a close frame. `on_large`: it uses more than the first
        page from now on, until `shrink`.
        """
        self.send = send
        self.unsent = unsent
        self.on_full = on_full
        self.on_close = on_close
        self.on_large = on_large
        self.is_large = False  # memory beyond the first page is in use
        self._slot: Slot | None = None
        self._words: memoryview[int] | None = None
        self._area = SMALL
        self._buffer = memoryview(b"")
        self._capacity = 0
        self._limit = 0  # up to here of it writes stand one behind the other without a question
        self._at = 0  # bytes in it
        self._base = 0  # position of the first one
        self.end = 0  # position behind the last one

    def begin(self, slot: Slot, position: int, data: bytes = b"") -> bool:
        """Keep all that is written from now on; `data`, at `position`, is not written yet.

        Say whether there is room for it.
        """
        area = SMALL if len(data) <= _SMALL_SIZE else LARGE
        buffer = slot.outgoing(area)
        if len(data) > len(buffer):
            return False
        buffer[: len(data)] = data
        self.end = position + len(data)
        slot.words[OUT_BASE] = position << AREA_BITS | area
        slot.words[OUT_END] = self.end
        self._slot, self._words = slot, slot.words
        self._use(area, buffer, position, len(data))
        return True

    def _use(self, area: int, buffer: "memoryview[int]", base: int, at: int) -> None:
        self._area, self._buffer, self._capacity = area, buffer, len(buffer)
        self._base, self._at = base, at
        self._limit = min(self._capacity, _LIMIT)
        if area != SMALL and not self.is_large:
            self.is_large = True
            self.on_large()

    def write(self, data: bytes) -> None:
        """Write to the client."""
        words = self._words
        count = len(data)
        at = self._at
        after = at + count
        if words is None or after > self._limit or not count:
            if not self._make_room(count):
                self.send(data)
                return
            words, at = self._words, self._at
            assert words is not None
            after = at + count
        self._buffer[at:after] = data
        self._at = after
        self.end = end = self.end + count
        words[OUT_END] = end  # behind the bytes, and before they leave
        if data[0] == _CLOSE:
            words[STATE] = CLOSING
            self.on_close()
        self.send(data)

    def _make_room(self, count: int) -> bool:
        """Make room for a write that does not simply follow. Say whether there is, or give up."""
        slot, words = self._slot, self._words
        if slot is None or words is None or not count:
            return False
        waiting = self.unsent()
        if not waiting:  # the kernel has all that was before: begin at the front
            area, buffer = self._area, self._buffer
            if count > self._capacity:
                area = OTHER if self._area == LARGE else LARGE
                buffer = slot.outgoing(area)
            if count <= len(buffer):
                words[OUT_BASE] = self.end << AREA_BITS | area
                self._use(area, buffer, self.end, 0)
                return True
        elif self._at + count <= self._capacity or self._turn(count, waiting):
            return True
        self.forsake()
        self.on_full()
        return False

    def _turn(self, count: int, waiting: int) -> bool:
        """Move what the kernel does not have to another area, and switch by one store."""
        slot, words = self._slot, self._words
        assert slot is not None
        assert words is not None
        if waiting + count > slot.layout.outbound or waiting > self._at:
            return False
        former = self._area
        area = OTHER if former == LARGE else LARGE
        target = slot.outgoing(area)
        target[:waiting] = self._buffer[self._at - waiting : self._at]
        words[OUT_BASE] = self.end - waiting << AREA_BITS | area
        self._use(area, target, self.end - waiting, waiting)
        if former != SMALL:
            slot.give_back_outgoing(former)
        return True

    @property
    def room(self) -> int:
        """How many bytes may be written until nothing is kept any more."""
        if self._slot is None:
            return 0
        return self._slot.layout.outbound - self.unsent()

    def forsake(self) -> None:
        """Keep nothing any more; bytes only go to the transport."""
        self._words = None
        self._slot = None
        self._buffer = memoryview(b"")

    def shrink(self) -> bool:
        """Give back the large areas if the kernel has all. Say whether none is left."""
        slot, words = self._slot, self._words
        if slot is None or words is None:
            return True
        if self._area != SMALL:
            if self.unsent():
                return False
            words[OUT_BASE] = self.end << AREA_BITS  # and SMALL
            self._use(SMALL, slot.outgoing(SMALL), self.end, 0)
        slot.give_back_outgoing(LARGE)
        slot.give_back_outgoing(OTHER)
        self.is_large = False
        return True
