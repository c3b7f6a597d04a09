"""What passes between the two sides: frames of many streams on one connection.

A frame is a header of 12 bytes and a payload of at most 16 KiB, so that no stream keeps the others
waiting for long. The header holds, in network byte order: the size of the payload (16 bits), the
kind (8), flags (8), the stream (32; 0 is the connection itself), and a number (32), whose meaning
depends on the kind. A payload longer than a frame goes in several, all but the last flagged MORE.

Free of I/O: `pack` makes bytes, a `Decoder` is fed with bytes.
"""

import struct
from collections.abc import Iterator

from chansup.errors import ChansupError
from chansup.protocol.versions import RELAY

# The newest version of what passes, and the oldest that this code still speaks: the one before.
# After an upgrade on disk both sides are of different code until all processes were replaced.
PROTOCOL, OLDEST_PROTOCOL = RELAY.newest, RELAY.oldest
WORDS_SINCE = 3  # version that knows the app's word on whether a WebSocket may move
MAX_PAYLOAD = 16 * 1024
HEADER = struct.Struct("!HBBII")
HEADER_SIZE = HEADER.size
MAX_STREAM = 2**32 - 1

END = 1  # nothing follows in this direction: the body is complete
MORE = 2  # the payload continues in the next frame of the stream
TEXT = 4  # of a message: text, in UTF-8
AGAIN = 8  # of a message: another worker had it in hand when it died
FINISHED = 16  # of a response: the app has returned, too
FAILED = 32  # of DONE: the app has raised; of a message: drop its parts, the rest will not come
ASKS = 128  # of a worker's message: the app has asked for more, as CONSUMED says
EXPECTED = 64  # of a request: the client waits for "100 Continue" before it sends the body


class Kind:
    """What a frame is. The comment says who sends it, and what its number means.

    Plain integers: members of an Enum take too long to compare and to look up.
    """

    HELLO = 1  # both, the first frame: what they are
    NEED = 2  # interface: this many requests wait for a permit
    GRANT = 3  # worker: this many more permits
    RECALL = 4  # worker: this many permits are wanted back, as soon as they are free
    RETURN = 5  # interface: this many permits are given back
    DRAINING = 6  # worker: it was asked to end, take everything away
    EXHAUSTED = 7  # worker: this many times an app had to wait for credit

    REQUEST = 16  # interface: the scope of an HTTP request
    OPEN = 17  # interface: the scope of a WebSocket; number: messages that came in before
    BODY = 18  # both: a part of a body; number: of this part, from 1 on
    MESSAGE = 19  # both: a WebSocket message; number: of this message, from 1 on
    DISCONNECT = 20  # interface: the client is gone; number: close code
    LEAVE = 21  # interface: finish what is in hand, then say DONE; number: 1 if nobody continues

    RECEIVED = 32  # worker: the app is called now
    START = 33  # worker: status and headers
    RESPONSE = 34  # worker: status and headers (number: size of these), and the whole body
    EVENT = 35  # worker: an ASGI event of an extension
    ACCEPT = 36  # worker: subprotocol and headers
    CLOSE = 37  # worker: the reason; number: close code
    CONSUMED = 38  # worker: the app has asked for more; number: of the message it had
    CHECKPOINT = 39  # worker: what the app wants back after a handover; number: 0, else instead
    # the place, from 1 on, of the app's word in `sessions.WORDS` on whether it may move
    DONE = 40  # worker: the app has returned; number: of the last message it was given

    CREDIT = 48  # both: this many bytes were consumed


class FrameError(ChansupError):
    """Malformed, or not allowed now: the connection cannot be used any more."""


Frame = tuple[int, int, int, int, bytes]  # kind, flags, stream, number, payload


def pack(kind: int, flags: int, stream: int, number: int, payload: bytes = b"") -> bytes:
    """Return one frame. The payload must fit."""
    return HEADER.pack(len(payload), kind, flags, stream, number) + payload


def pieces(payload: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield a payload of any size in parts that fit in a frame, each with whether it is the last.

    An empty payload is one empty part.
    """
    last = max(0, (len(payload) - 1) // MAX_PAYLOAD) * MAX_PAYLOAD
    for offset in range(0, last + 1, MAX_PAYLOAD):
        yield payload[offset : offset + MAX_PAYLOAD], offset == last


def split(kind: int, flags: int, stream: int, number: int, payload: bytes) -> Iterator[bytes]:
    """Yield a payload of any size as frames."""
    for piece, is_last in pieces(payload):
        yield pack(kind, flags if is_last else flags | MORE, stream, number, piece)


class Decoder:
    """Finds the frames in bytes that were read. Keeps the start of a frame."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that are complete now. Raises FrameError."""
        if self._rest:
            data = self._rest + data
        frames = []
        offset, end = 0, len(data)
        unpack = HEADER.unpack_from
        while end - offset >= HEADER_SIZE:
            size, kind, flags, stream, number = unpack(data, offset)
            if size > MAX_PAYLOAD:
                raise FrameError(f"a frame of {size} bytes: the other side is not a relay")
            begin = offset + HEADER_SIZE
            offset_after = begin + size
            if offset_after > end:
                break
            frames.append((kind, flags, stream, number, data[begin:offset_after]))
            offset = offset_after
        self._rest = data[offset:]
        return frames
