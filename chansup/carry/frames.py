"""Where the messages of a WebSocket end: RFC 6455, section 5.2. Free of I/O.

Only headers are read: FIN and the opcode say where a message ends, the length says where the next
frame begins. What is wrong in a stream is found by the server's own parser.
"""

from collections import deque
from typing import Protocol

_FIN = 0x80
_CONTROL = 0x08  # of the opcode: ping, pong and close stand between the frames of a message
_LENGTH = 0x7F


class Readable(Protocol):
    """Bytes, or a view of them."""

    def __getitem__(self, place: int, /) -> int:
        """Return one byte."""


def scan(
    buffer: Readable, place: int, end: int, base: int, ends: "deque[int]", is_inside: bool
) -> tuple[int, bool]:
    """Continue at `place`, where a frame begins, up to the last whole frame before `end`.

    The ends of messages are appended to `ends`, as positions: place plus `base`. `is_inside`:
    whether a message has begun in earlier frames. Return the place behind the last whole frame, and
    whether a message has begun there and not ended.
    """
    while end - place >= 2:
        first = buffer[place]
        second = buffer[place + 1]
        length = second & _LENGTH
        head = 2 if second < 0x80 else 6  # with the mask of a client
        if length == 126:
            if end - place < 4:
                break
            length = buffer[place + 2] << 8 | buffer[place + 3]
            head += 2
        elif length == 127:
            if end - place < 10:
                break
            length = 0
            for offset in range(2, 10):
                length = length << 8 | buffer[place + offset]
            head += 8
        following = place + head + length
        if following > end:
            break
        place = following
        if not first & _CONTROL:
            is_inside = not first & _FIN
            if not is_inside:
                ends.append(base + place)
    return place, is_inside
