"""What a process left of a WebSocket, read out of its slot by the one that continues."""

from typing import NamedTuple

from chansup.carry.arena import Slot
from chansup.carry.errors import DiffersError, SlotError
from chansup.carry.layout import (
    AREA_BITS,
    BASE,
    CHECKPOINT,
    CLOSING,
    COUNT,
    FREE,
    HANDLED,
    MAX_CHECKPOINT,
    MAX_RECORD,
    OTHER,
    OUT_BASE,
    OUT_END,
    PARKED,
    READ,
    RECORD,
    SMALL_RECORD,
    STATE,
    TAKEN,
    WORD,
    WRITTEN,
    Slice,
)
from chansup.carry.positions import Positions

_AREA = (1 << AREA_BITS) - 1


class Remainder(NamedTuple):
    """Where a WebSocket stands. Positions are the kernel's."""

    is_closing: bool  # a close frame is on its way: write the rest and end it
    position: int  # of the first byte in `inbound`
    inbound: bytes  # of the client, not dealt with
    written: int  # position of the first byte in `outbound`
    outbound: bytes  # to the client, not written
    is_in_hand: bool  # a message was given to the app, and not dealt with
    record: bytes
    checkpoint: bytes | None
    word: int  # of the app: place in `sessions.WORDS`, plus 1; 0: none
    handovers: int


def read(slot: Slot, kernel: Positions | None, redeliver: bool) -> Remainder:
    """Return what a process left.

    `kernel`: None where the kernel does not count; then only a parked WebSocket can be read.
    `redeliver`: begin with a message that was in hand, and not behind it. Raises SlotError, and
    DiffersError where journal and kernel disagree.
    """
    words = slot.words[:].tolist()
    state = words[STATE]
    if state == FREE:
        raise SlotError("a slot that nobody uses")
    if kernel is None:
        if state != PARKED:
            raise DiffersError("nobody knows how much was read and written")
        kernel = Positions(words[READ], words[WRITTEN], False)
    elif state == PARKED and (words[READ], words[WRITTEN]) != kernel[:2]:
        _differ(words, kernel)
    base, area = words[BASE] >> AREA_BITS, words[BASE] & _AREA
    out_base, out_area = words[OUT_BASE] >> AREA_BITS, words[OUT_BASE] & _AREA
    if area > OTHER or out_area > OTHER:
        raise SlotError("a slot with areas that there are not")
    handled = max(words[HANDLED], base)
    taken = max(words[TAKEN], handled)
    incoming, outgoing = slot.incoming(area), slot.outgoing(out_area)
    end = words[OUT_END]
    if not (
        taken <= kernel.read <= base + len(incoming)
        and out_base <= kernel.written <= end <= out_base + len(outgoing)
    ):
        _differ(words, kernel)
    position = handled if redeliver else taken
    return Remainder(
        state == CLOSING,
        position,
        bytes(incoming[position - base : kernel.read - base]),
        kernel.written,
        bytes(outgoing[kernel.written - out_base : end - out_base]),
        taken != handled,
        _record(slot, words[RECORD]),
        _checkpoint(slot, words[CHECKPOINT]),
        words[WORD],
        words[COUNT],
    )


def _differ(words: list[int], kernel: Positions) -> None:
    raise DiffersError(
        f"the kernel: read {kernel.read}, written {kernel.written}; the journal: "
        + " ".join(str(word) for word in words[STATE : WRITTEN + 1])
    )


def _record(slot: Slot, word: int) -> bytes:
    size, is_large = word >> 1, word & 1
    if size > MAX_RECORD or (not is_large and size > SMALL_RECORD.stop - SMALL_RECORD.start):
        raise SlotError("a handshake that is too large")
    place = slot.layout.record() if is_large else Slice(SMALL_RECORD.start, size)
    return bytes(slot.bytes(place)[:size])


def _checkpoint(slot: Slot, word: int) -> bytes | None:
    size, place = (word >> 1) - 1, word & 1
    if size < 0:
        return None
    if size > MAX_CHECKPOINT:
        raise SlotError("a checkpoint that is too large")
    return bytes(slot.bytes(slot.layout.checkpoint(place))[:size])


def write_record(slot: Slot, record: bytes) -> bool:
    """Keep a recorded handshake. Say whether there is room for it."""
    if len(record) > MAX_RECORD:
        return False
    is_large = len(record) > SMALL_RECORD.stop - SMALL_RECORD.start
    start = slot.layout.record().start if is_large else SMALL_RECORD.start
    slot.bytes(Slice(start, len(record)))[:] = record
    slot.words[RECORD] = len(record) << 1 | is_large
    return True


def write_checkpoint(slot: Slot, checkpoint: bytes) -> None:
    """Keep a checkpoint, at most `MAX_CHECKPOINT` bytes, in place of the one before."""
    place = 1 - (slot.words[CHECKPOINT] & 1)
    area = slot.layout.checkpoint(place)
    slot.bytes(Slice(area.start, len(checkpoint)))[:] = checkpoint
    slot.words[CHECKPOINT] = len(checkpoint) + 1 << 1 | place
