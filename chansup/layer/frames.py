"""What clients and the hub say to each other over a Unix stream socket.

A frame is a header of 5 bytes, the size of the payload (32 bits, network byte order) and the kind,
and the payload. Strings are ASCII behind one byte with their length. The body of a message is what
the client's serializer made of it: the hub never looks inside.

Requests are answered in the order in which they came, so that they need no numbers: ANSWERED says
how many of those that wait have succeeded, REFUSED and RESULT answer one.

A client listens to a channel under an id of its own, a new one each time. A client ignores a
message under an id that it does not know any more: the hub still has it, because it forgets a
message only when TAKEN comes. Between the two may stand HELD: the app has the message in hand, and
the hub keeps it until TAKEN, or gives it to somebody else when the connection ends.
"""

import array
import socket
import struct

from chansup.errors import ChansupError

HEADER = struct.Struct("!IB")
HEADER_SIZE = HEADER.size
MAX_PAYLOAD = 4 * 1024 * 1024  # a message of 1 MB, encrypted, with room to spare
READ_SIZE = 256 * 1024  # bytes read at once

ID = struct.Struct("!I")
AGE = struct.Struct("!I")  # seconds
PARKED = struct.Struct("!IIQ")  # id, milliseconds left, number of the last message that was taken
DELIVERY = struct.Struct("!QII")  # number of the message, milliseconds left, id
DELIVERIES = struct.Struct("!QII")  # number of the message, milliseconds left, how many ids follow
HANDED = struct.Struct("!QIIddI")  # number, milliseconds left, id, born, sent, failed attempts
RETURNED = struct.Struct("!QIdI")  # number, milliseconds left, born, failed attempts
CLAIM = struct.Struct("!IQ")  # id, number of the message
MAX_MILLISECONDS = 2**31 - 1
MAX_OBSERVED = 1000  # channels whose depth the hub reports
CROWDED = 2**31  # added to the milliseconds: the channel fills up, say TAKEN without delay


class Kind:
    """What a frame is. Plain integers: they are compared for each frame."""

    # From a client. The comment says what the payload holds; a request has an answer.
    HELLO = 1  # MessagePack: who it is, and its policy
    SEND = 2  # request: channel, body
    GROUP_SEND = 3  # request: group, body
    GROUP_ADD = 4  # request: seconds since the membership began, group, channel
    GROUP_DISCARD = 5  # request: group, channel
    LISTEN = 6  # id, channel: deliver its messages; of an ordinary channel, the next one
    UNLISTEN = 7  # id: deliver no more; what was not taken belongs to the hub again
    TAKEN = 8  # ids, once for each message: it is in the hands of the app, forget it. Of channels
    # with "!" it may come a little later: nobody else could get the message
    EXPIRED = 9  # ids, the same: it was too old when its turn came
    RETURN = 10  # RETURNED, channel, body: taken, and not used: back to the head
    FLUSH = 11  # request
    STATISTICS = 12  # request: the answer is a RESULT
    BIND = 13  # request: connection, channel: the channel serves this connection of a client
    PARK = 14  # connection, channel, id, milliseconds left, body: another process continues with
    # the channel; the body, if any, is of the message that was in hand
    QUIET = 15  # answer to QUIESCE: nothing follows before there is a new connection
    TAKE_OVER = 16  # instead of HELLO: a new hub wants everything
    HELD = 17  # ids: in the hands of the app, keep it until TAKEN, GIVE_BACK or FAILED
    GIVE_BACK = 18  # ids of what was held: back to the head
    FAILED = 19  # ids of what was held: the same, and the attempt counts
    CLAIM = 20  # CLAIM, channel: of what was held when another hub took over
    OBSERVE = 21  # request: channels. The answer is a RESULT; the hub continues to report them
    CLEARED = 22  # answer to FLUSHED: of what was before, nothing is left here either
    POLICY = 23  # MessagePack: the policy from now on, instead of the one in HELLO
    REJOIN = 24  # as GROUP_ADD, to a hub that knows nothing: what was missed meanwhile follows
    REJOINED = 25  # request: those were all memberships of the process

    # From the hub.
    WELCOME = 64  # MessagePack: which hub it is
    ANSWERED = 65  # number of requests that succeeded
    REFUSED = 66  # reason (1 byte), text: the next request failed
    RESULT = 67  # the answer to the next request
    DELIVER = 68  # DELIVERY, body: of a channel with "!"
    DELIVER_MANY = 69  # DELIVERIES, ids, body
    QUIESCE = 70  # another hub takes over: stop, and say QUIET
    CLEAN = 74  # after FLUSH was answered: all clients have said CLEARED
    HAND = 73  # HANDED, body: of an ordinary channel
    FLUSHED = 72  # nothing is left: what was listened to wants to be listened to again


class Reason:
    """Why a request was refused."""

    FULL = 1
    LIMIT = 2


class FrameError(ChansupError):
    """Malformed, or not allowed now: the connection cannot be used any more."""


Frame = tuple[int, bytes]  # kind, payload


def pack(kind: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return HEADER.pack(len(payload), kind) + payload


def string(text: bytes) -> bytes:
    """Return a string as it stands in a frame."""
    return bytes((len(text),)) + text


def read_string(payload: bytes, offset: int) -> tuple[bytes, int]:
    """Return the string at `offset`, and the offset after it. Raises FrameError."""
    if offset >= len(payload):
        raise FrameError("a frame ends too early")
    begin = offset + 1
    end = begin + payload[offset]
    if end > len(payload):
        raise FrameError("a frame ends too early")
    return payload[begin:end], end


def strings(payload: bytes) -> list[bytes]:
    """Return the strings that a payload consists of. Raises FrameError."""
    found = []
    offset = 0
    while offset < len(payload):
        text, offset = read_string(payload, offset)
        found.append(text)
    return found


def ids(payload: bytes) -> tuple[int, ...]:
    """Return the ids that a payload consists of. Raises FrameError."""
    count, rest = divmod(len(payload), ID.size)
    if rest:
        raise FrameError("a list of ids ends too early")
    return struct.unpack(f"!{count}I", payload)


def pack_ids(kind: int, numbers: list[int]) -> bytes:
    """Return one frame of ids."""
    count = len(numbers)
    return struct.pack(f"!IB{count}I", count * 4, kind, *numbers)


def descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came with what was received."""
    found = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    return found.tolist()


class Decoder:
    """Finds the frames in bytes that were read. Keeps the start of a frame."""

    __slots__ = ("_rest", "_wanted")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._wanted = 0  # bytes without which there is no use in looking

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that are complete now. Raises FrameError."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        frames = []
        offset, end = 0, len(data)
        unpack = HEADER.unpack_from
        self._wanted = HEADER_SIZE
        while end - offset >= HEADER_SIZE:
            size, kind = unpack(data, offset)
            if size > MAX_PAYLOAD:
                raise FrameError(f"a frame of {size} bytes: the other side is not a channel layer")
            begin = offset + HEADER_SIZE
            after = begin + size
            if after > end:
                self._wanted = after - offset
                break
            frames.append((kind, data[begin:after]))
            offset = after
        if offset < end:
            self._rest += data[offset:]
        return frames
