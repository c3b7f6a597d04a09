"""What a client sends, kept in shared memory until the app has dealt with it. Free of I/O.

The loop reads straight into the shared buffer, so the kernel's own counter says how much stands
there, and there is no moment at which a byte is read and not kept.

A message has *ended* when its last frame is whole, is *taken* when the app is given it, and
*handled* when the app asks for the next one. A message that is not whole is kept from its begin.
"""

from collections import deque
from collections.abc import Callable

from chansup.carry.arena import Slot
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


class Inbound:
    """The inbound journal of one WebSocket, and what its protocol is given.

    `get_buffer` and `buffer_updated` are those of asyncio.BufferedProtocol.
    """

    __slots__ = (
        "_area", "_deliver", "_front", "_low", "_scanned", "_slot", "_words", "base", "buffer",
        "capacity", "deliver", "early", "ends", "fill", "in_hand", "is_inside", "is_large",
        "is_throttled", "on_full", "on_held", "on_large", "room", "scratch", "throttle", "unkept",
    )  # fmt: skip

    def __init__(
        self,
        deliver: Callable[[bytes], None],
        scratch: "memoryview[int]",
        throttle: Callable[[bool], None],
        on_full: Callable[[], None],
        on_held: Callable[[], None],
        on_large: Callable[[], None],
    ) -> None:
        """`deliver`: gives bytes to the server's protocol; `scratch` is read into while nothing is
        kept. `throttle` stops reading (True) and continues (False); `on_full`: a message is larger
        than the journal, and is not kept any more; `on_held`: something came although it is held;
        `on_large`: it uses more than the first page from now on, until `shrink`.
        """
        self.deliver = self._deliver = deliver
        self.scratch = scratch
        self.throttle = throttle
        self.on_full = on_full
        self.on_held = on_held
        self.on_large = on_large
        self.is_large = False  # memory beyond the first page is in use
        self._slot: Slot | None = None
        self._words: memoryview[int] | None = None
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
        self.is_throttled = False
        self.unkept = 0  # position behind the last byte that was delivered, while it is held
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
        buffer = self.buffer
        if (
            5 < count < 132  # one small frame as a whole, of a client, ends a message
            and start == self._scanned
            and buffer[start] & 0x88 == 0x80
            and buffer[start + 1] == count + 122
            and self._words is not None
        ):
            self.fill = self._scanned = end = start + count
            self.room = None
            self.is_inside = False
            self.ends.append(self.base + end)
            self.deliver(bytes(buffer[start:end]))
            return
        if self._words is None:
            self._pass_on(count)
            return
        self.fill = end = start + count
        self.room = None
        self._scanned, self.is_inside = scan(
            buffer, self._scanned, end, self.base, self.ends, self.is_inside
        )
        self.deliver(bytes(buffer[start:end]))
        if not self.ends and not self.is_inside and not self.in_hand:
            self._settle()

    def _pass_on(self, count: int) -> None:
        data = bytes(self.scratch[:count])
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
            if not self.is_throttled:
                self.is_throttled = True
                self.throttle(True)
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
        former, self._area = self._area, area
        self.base += keep
        words[BASE] = self.base << AREA_BITS | area
        self._use(target)
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

    def _use(self, buffer: "memoryview[int]") -> None:
        self.buffer = buffer
        self.capacity = len(buffer)
        self._front = buffer[:WINDOW]

    # The app's side

    def take(self) -> None:
        """Take notice that the app is given the next message."""
        words = self._words
        if words is not None and self.ends:
            words[TAKEN] = self.in_hand = self.ends.popleft()

    def handle(self) -> None:
        """Take notice that the app has dealt with the message that it has in hand."""
        end, self.in_hand = self.in_hand, 0
        words = self._words
        if words is None:
            return
        if not self.ends and not self.is_inside and self.base + self.fill == end:
            # Nothing else is there: begin at the front again.
            words[BASE] = end << AREA_BITS | self._area
            self.base = end
            self.fill = self._scanned = self._low = 0
            self.room = self._front
        else:
            words[HANDLED] = end
            self._low = end - self.base
            if not self.ends and not self.is_inside:
                self._settle()
        if self.is_throttled and (self.fill - self._low) * 2 < self.capacity:
            self.is_throttled = False
            self.throttle(False)

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
        self._slot, self._area = slot, area
        self._words = slot.words
        self.base = position
        self._use(buffer)
        if area != SMALL:
            self._enlarge()
        self.fill = len(data)
        self.unkept = position + delivered
        self._low = 0
        self.early = None
        self._scanned, self.is_inside = scan(buffer, 0, self.fill, position, self.ends, False)
        self.room = None
        if not data:
            self.room = self._front
        elif self.deliver == self._deliver and not self.ends and not self.is_inside:
            self._settle()
        return True

    def hold(self) -> None:
        """Keep what comes, and do not give it to the server's protocol."""
        if self.deliver == self._deliver:
            self.unkept = self.base + self.fill
            self.deliver = self._keep

    def _keep(self, _data: bytes) -> None:
        self.on_held()

    def let_go(self) -> None:
        """Give the server's protocol what was held, and from now on all that comes."""
        self.deliver = self._deliver
        if self._words is None:
            return
        data = bytes(self.buffer[self.unkept - self.base : self.fill])
        if data:
            self.deliver(data)
        if self._words is not None and not (self.ends or self.is_inside or self.in_hand):
            self._settle()

    def forsake(self) -> None:
        """Keep nothing any more; what comes is only passed on."""
        self._words = None
        self._slot = None
        self.early = None
        self.ends.clear()
        self.in_hand = 0
        self.is_throttled = False
        self.buffer = self._front = self.room = self.scratch
        self.fill = self._scanned = 0

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
            self._area = SMALL
            words[BASE] = self.base << AREA_BITS  # and SMALL
            self._use(slot.incoming(SMALL))
            self.room = self._front
        slot.give_back_incoming(LARGE)
        slot.give_back_incoming(OTHER)
        self.is_large = False
        return True
