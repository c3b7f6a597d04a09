"""What a client sends, kept in shared memory until the app has dealt with it. Free of I/O.

The loop reads straight into the shared buffer, so the kernel's own counter says how much stands
there, and there is no moment at which a byte is read and not kept.

A message has *ended* when its last frame is whole, is *taken* when the app is given it, and
*handled* when the app asks for the next one. A message that is not whole is kept from its begin.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from chansup.carry.arena import Slot
from chansup.carry.delivery import Delivery
from chansup.carry.frames import scan
from chansup.carry.layout import (
    AREA_BITS,
    BASE,
    HANDLED,
    LARGE,
    OTHER,
    SMALL,
    TAKEN,
)

WINDOW = 64 * 1024  # bytes that are read at a time, at most
RESERVE = 2 * WINDOW  # bytes of an area in which reads land that come though reading is paused
_USEFUL = 256  # bytes: where less room is left, a larger buffer is begun

Buffer = "memoryview[int]"


class Inbound(Delivery):
    """The inbound journal of one WebSocket, and what its protocol is given.

    `get_buffer` and `buffer_updated` are those of asyncio.BufferedProtocol.
    """

    __slots__ = (
        "_area", "_at", "_front", "_low", "_map", "_scanned", "_slot", "_words", "base", "buffer",
        "capacity", "early", "ends", "fill", "in_hand", "is_inside", "is_large", "on_full",
        "on_large", "room", "scratch",
    )  # fmt: skip

    def __init__(
        self,
        deliver: Callable[[bytes], None],
        scratch: "memoryview[int]",
        stop: Callable[[bool], None],
        later: Callable[[Callable[[], None]], object],
        on_full: Callable[[], None],
        on_large: Callable[[], None],
    ) -> None:
        """`scratch` is read into while nothing is kept. `on_full`: a message is larger than the
        journal, and is not kept any more; `on_large`: it uses more than the first page from now
        on, until `shrink`. The others are those of Delivery.
        """
        super().__init__(deliver, stop, later)
        self.scratch = scratch
        self.on_full = on_full
        self.on_large = on_large
        self.is_large = False  # memory beyond the first page is in use
        self._slot: Slot | None = None
        self._words: memoryview[int] | None = None
        self._map: Any = scratch  # what `_at` counts in; of a mmap, a slice is bytes at once
        self._at = 0  # where `buffer` begins there
        self._area = SMALL
        self.buffer = self._front = scratch
        self.room: memoryview[int] | None = scratch  # where the next read goes, if that is known
        self.capacity = 0
        self.base = 0  # position of the first byte of `buffer`
        self.fill = 0  # bytes in `buffer`
        self._scanned = 0  # of these, whole frames
        self._low = 0  # of these, dealt with
        self.ends: deque[int] = deque()  # positions of messages that the app was not given
        self.is_inside = False  # a message has begun and not ended
        self.in_hand = 0  # end of the message that the app deals with; 0: none
        self.early: bytearray | None = bytearray()  # what came before the answer to the handshake

    # The loop's side

    def get_buffer(self, _size: int) -> "memoryview[int]":
        """Return where the next bytes are to be read to."""
        room = self.room
        if room is None:
            return self._make_room()
        return room

    def buffer_updated(self, count: int) -> None:
        """Keep `count` bytes that were read, and give them to the server's protocol."""
        start = self.fill
        at = self._at + start
        data = self._map[at : at + count]
        if (
            5 < count < 132  # one small frame as a whole, of a client, ends a message
            and start == self._scanned
            and data[0] & 0x88 == 0x80
            and data[1] == count + 122
            and self._words is not None
        ):
            self.fill = self._scanned = end = start + count
            self.room = None
            self.is_inside = False
            self.ends.append(self.base + end)
            self.deliver(data)
            return
        if self._words is None:
            self._pass_on(bytes(data))
            return
        self.fill = end = start + count
        self.room = None
        self._scanned, self.is_inside = scan(
            self.buffer, self._scanned, end, self.base, self.ends, self.is_inside
        )
        self.deliver(data)
        if not (self.ends or self.is_inside or self.in_hand or self._is_behind):
            self._settle()

    def _pass_on(self, data: bytes) -> None:
        if self.early is not None:
            self.early += data
            if len(self.early) > WINDOW:
                self.early = None  # it can never be kept
        self.deliver(data)

    def _make_room(self) -> "memoryview[int]":
        """Return where the next bytes go, while something stands in the buffer."""
        if self._words is None:
            return self.scratch
        left = self.capacity - self.fill
        if self._area == SMALL:
            if left < _USEFUL:
                self._turn()
        elif left < RESERVE or (self.fill >= WINDOW and self._low * 2 >= self.fill):
            if self._low:
                self._turn()
            if self.capacity - self.fill < RESERVE:
                self._stop_or_forsake()
                if self._words is None:
                    return self.scratch
        room = self.buffer[self.fill : self.fill + WINDOW]
        self.room = room
        return room

    def _stop_or_forsake(self) -> None:
        """Read no more until the app has dealt with something; without that, give up."""
        if (self.ends or self.in_hand) and self.fill < self.capacity:
            self._is_crowded = self._is_stopped = True
            self.stop(True)
        else:
            self.forsake()
            self.on_full()

    def _turn(self) -> None:
        """Move the outstanding bytes to the front of another area, and switch by one store."""
        slot, words = self._slot, self._words
        assert slot is not None
        assert words is not None
        keep, fill = self._low, self.fill
        area = OTHER if self._area == LARGE else LARGE
        target = slot.incoming(area)
        target[: fill - keep] = self.buffer[keep:fill]
        former = self._area
        self.base += keep
        words[BASE] = self.base << AREA_BITS | area
        self._use(slot, area)
        self._enlarge()
        self.fill = fill - keep
        self._scanned -= keep
        self._low = 0
        if former != SMALL and fill >= 16 * WINDOW:
            slot.give_back_incoming(former)

    def _enlarge(self) -> None:
        if not self.is_large:
            self.is_large = True
            self.on_large()

    def _use(self, slot: Slot, area: int) -> None:
        self._area = area
        self.buffer = buffer = slot.incoming(area)
        self.capacity = len(buffer)
        self._front = buffer[:WINDOW]
        self._map, self._at = slot.map, slot.start + slot.layout.incoming(area).start

    # The app's side

    def take(self) -> None:
        """Take notice that the app is given the next message."""
        words = self._words
        if words is not None and self.ends:
            self.in_hand = words[TAKEN] = self.ends.popleft()

    def handle(self) -> None:
        """Take notice that the app has dealt with the message that it has in hand."""
        end, self.in_hand = self.in_hand, 0
        words = self._words
        if words is None:
            return
        if self.base + self.fill == end:
            # Nothing else is there, so none has ended or begun: begin at the front again.
            words[BASE] = end << AREA_BITS | self._area
            self.base = end
            self.fill = self._scanned = self._low = 0
            self.room = self._front
        else:
            words[HANDLED] = end
            self._low = end - self.base
            if not (self.ends or self.is_inside or self._is_behind):
                self._settle()
        if self._is_crowded and (self.fill - self._low) * 2 < self.capacity:
            self._is_crowded = False
            self._read_on()

    def _settle(self) -> None:
        """Forget all whole frames: nothing is outstanding but perhaps a part of a frame."""
        words = self._words
        assert words is not None
        at = self.base + self._scanned
        if self._scanned == self.fill:
            words[BASE] = at << AREA_BITS | self._area
            self.base = at
            self.fill = self._scanned = self._low = 0
            self.room = self._front
        else:
            words[HANDLED] = at
            self._low = self._scanned

    # Begin and end

    def begin(self, slot: Slot, position: int, data: bytes, delivered: int) -> bool:
        """Keep what comes from now on, and `data`, which ends before `position` + its length.

        `position` is that of the first byte of `data`, `delivered` the number of its bytes that the
        server's protocol had. Say whether there is room for it.
        """
        area = SMALL if len(data) <= slot.layout.incoming(SMALL).size - _USEFUL else LARGE
        buffer = slot.incoming(area)
        if len(data) > len(buffer) - RESERVE and area != SMALL:
            return False
        buffer[: len(data)] = data
        slot.words[BASE] = position << AREA_BITS | area
        slot.words[TAKEN] = slot.words[HANDLED] = 0
        self._slot, self._words = slot, slot.words
        self.base = position
        self._use(slot, area)
        if area != SMALL:
            self._enlarge()
        self.fill = len(data)
        self._undelivered = position + delivered
        self._is_behind = delivered < len(data)
        self._low = 0
        self.early = None
        self._scanned, self.is_inside = scan(buffer, 0, self.fill, position, self.ends, False)
        self.room = None if data else self._front
        if data and not (self.ends or self.is_inside or self._is_behind):
            self._settle()
        return True

    def forsake(self) -> None:
        """Keep nothing any more; what comes is only passed on."""
        behind = self._outstanding() if self._is_behind and not self._is_held else b""
        self._is_behind = self._is_crowded = False
        self._words = None
        self._slot = None
        self.early = None
        self.ends.clear()
        self.in_hand = 0
        self.buffer = self._front = self.room = self._map = self.scratch
        self.fill = self._scanned = self._at = 0
        self.deliver = self._deliver
        if behind:
            self.deliver(behind)
        if self._is_paused:
            self.stop(True)
        self._read_on()

    def _outstanding(self) -> bytes:
        if self._words is None:
            return b""
        return bytes(self.buffer[self._undelivered - self.base : self.fill])

    def _delivered(self) -> None:
        if self._words is not None and not (self.ends or self.is_inside or self.in_hand):
            self._settle()

    @property
    def is_kept(self) -> bool:
        """Whether what comes is kept."""
        return self._words is not None

    @property
    def position(self) -> int:
        """The position behind the last byte that was read."""
        return self.base + self.fill

    def shrink(self) -> bool:
        """Give back the large areas if nothing stands in them. Say whether none is left."""
        slot, words = self._slot, self._words
        if slot is None or words is None:
            return True
        if self.fill and self._area != SMALL:
            return False
        if self._area != SMALL:
            words[BASE] = self.base << AREA_BITS  # and SMALL
            self._use(slot, SMALL)
            self.room = self._front
        slot.give_back_incoming(LARGE)
        slot.give_back_incoming(OTHER)
        self.is_large = False
        return True
