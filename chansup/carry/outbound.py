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
_CLOSE = 0x88  # first byte of a close frame: servers write whole frames


class Outbound:
    """The outbound journal of one WebSocket."""

    __slots__ = (
        "_area", "_base", "_buffer", "_capacity", "_slot", "_small", "_words", "end", "is_large",
        "on_close", "on_full", "on_large", "send", "unsent",
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
        self._buffer = self._small = memoryview(b"")
        self._capacity = 0
        self._base = 0  # position of the first byte of the buffer
        self.end = 0  # position behind the last byte

    def begin(self, slot: Slot, position: int, data: bytes = b"") -> bool:
        """Keep all that is written from now on; `data`, at `position`, is not written yet.

        Say whether there is room for it.
        """
        self._small = slot.outgoing(SMALL)
        area = SMALL if len(data) <= len(self._small) else LARGE
        buffer = slot.outgoing(area)
        if len(data) > len(buffer):
            return False
        buffer[: len(data)] = data
        self.end = position + len(data)
        slot.words[OUT_BASE] = position << AREA_BITS | area
        slot.words[OUT_END] = self.end
        self._slot, self._words = slot, slot.words
        self._base = position
        self._area, self._buffer, self._capacity = area, buffer, len(buffer)
        if area != SMALL:
            self._enlarge()
        return True

    def _enlarge(self) -> None:
        if not self.is_large:
            self.is_large = True
            self.on_large()

    def write(self, data: bytes) -> None:
        """Write to the client."""
        words = self._words
        if words is None:
            self.send(data)
            return
        count = len(data)
        if self.unsent():
            self._append(data, count)
            return
        # The kernel has all that was before: begin at the front.
        if count > _SMALL_SIZE or not count:
            self._write_large(data, count)
            return
        base = self.end
        self._small[:count] = data
        words[OUT_BASE] = base << AREA_BITS  # and SMALL
        self._base = base
        self._area = SMALL
        self.end = end = base + count
        words[OUT_END] = end
        if data[0] == _CLOSE:
            words[STATE] = CLOSING
            self.on_close()
        self.send(data)

    def _write_large(self, data: bytes, count: int) -> None:
        """Write more than the small buffer holds, though nothing waits."""
        words, slot = self._words, self._slot
        assert words is not None
        assert slot is not None
        if not count:
            return
        if count > slot.layout.outbound:
            self._give_up(data)
            return
        if self._area == SMALL:
            buffer = slot.outgoing(LARGE)
            self._buffer, self._capacity = buffer, len(buffer)
            area = LARGE
            self._enlarge()
        else:
            area = self._area
        self._buffer[:count] = data
        words[OUT_BASE] = self.end << AREA_BITS | area
        self._area, self._base = area, self.end
        self._commit(data, count)

    def _append(self, data: bytes, count: int) -> None:
        """Write behind what the kernel does not have yet."""
        if not count:
            return
        slot = self._slot
        assert slot is not None
        if self._area == SMALL:
            self._buffer, self._capacity = self._small, len(self._small)
        if self.end - self._base + count > self._capacity and not self._turn(count):
            self._give_up(data)
            return
        at = self.end - self._base
        self._buffer[at : at + count] = data
        self._commit(data, count)

    def _commit(self, data: bytes, count: int) -> None:
        words = self._words
        assert words is not None
        self.end += count
        words[OUT_END] = self.end
        if data[0] == _CLOSE:
            words[STATE] = CLOSING
            self.on_close()
        self.send(data)

    def _turn(self, count: int) -> bool:
        """Move what the kernel does not have to another area, and switch by one store."""
        slot, words = self._slot, self._words
        assert slot is not None
        assert words is not None
        waiting = self.unsent()
        if waiting + count > slot.layout.outbound or waiting > self.end - self._base:
            return False
        area = OTHER if self._area == LARGE else LARGE
        target = slot.outgoing(area)
        start = self.end - waiting
        target[:waiting] = self._buffer[start - self._base : self.end - self._base]
        former, self._area = self._area, area
        self._base = start
        words[OUT_BASE] = start << AREA_BITS | area
        self._buffer, self._capacity = target, len(target)
        if former != SMALL:
            slot.give_back_outgoing(former)
        self._enlarge()
        return True

    def _give_up(self, data: bytes) -> None:
        self.forsake()
        self.on_full()
        self.send(data)

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
        self._buffer = self._small = memoryview(b"")

    def shrink(self) -> bool:
        """Give back the large areas if the kernel has all. Say whether none is left."""
        slot, words = self._slot, self._words
        if slot is None or words is None:
            return True
        if self.unsent():
            return False
        if self._area != SMALL:
            words[OUT_BASE] = self.end << AREA_BITS | SMALL
            self._area, self._base = SMALL, self.end
        slot.give_back_outgoing(LARGE)
        slot.give_back_outgoing(OTHER)
        self.is_large = False
        return True
