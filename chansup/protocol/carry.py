"""What a process whose WebSockets outlive it and the supervisor, who holds them, say to each other.

Each such process inherits one end of a SOCK_SEQPACKET socket pair. One packet is one message, a
JSON document, with at most one descriptor. Both ends are non-blocking, and each side checks what it
reads: after a PacketError it closes its end, and the process's WebSockets are plain from then on.

A *slot* is the shared memory of one WebSocket. Its number says which segment of the process it lies
in, and where: `slot_of`. A slot belongs to one process. Another process that adopts the WebSocket
copies the slot into memory of its own.
"""

import array
import os
import socket
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, TypeVar

import msgspec

Reason = Literal["deploy", "crash"]
T = TypeVar("T")

MAX_PACKET = 64 * 1024  # bytes
MAX_DESCRIPTORS = 1  # in one packet
SLOTS = 1024  # in one segment
MAX_SEGMENTS = 1024  # of one process

Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Index = Annotated[int, msgspec.Meta(ge=0, lt=SLOTS)]
Slot = Annotated[int, msgspec.Meta(ge=0, lt=SLOTS * MAX_SEGMENTS)]
Text = Annotated[str, msgspec.Meta(max_length=200)]


def slot_of(segment: int, index: int) -> int:
    """Return the number of a slot, `index` in `segment` of a process."""
    return segment * SLOTS + index


def place_of(slot: int) -> tuple[int, int]:
    """Return the segment of a slot, and its index there."""
    return divmod(slot, SLOTS)


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The first message of a process: it can be given WebSockets.

    `survives_crash`: the kernel's counters are exact here, so that its WebSockets can be adopted
    after it was killed. `why_not` is for the log.
    """

    survives_crash: bool
    why_not: Text = ""


class Segment(msgspec.Struct, frozen=True, tag="segment"):
    """A new segment of the process's memory, a sealed memfd: that is the descriptor."""

    number: Annotated[int, msgspec.Meta(ge=0, lt=MAX_SEGMENTS)]


class Open(msgspec.Struct, frozen=True, tag="open"):
    """Hold a duplicate of a socket: that is the descriptor. Its slot is written."""

    slot: Slot
    survives_crash: bool = True  # otherwise it ends when the process is killed


class Closed(msgspec.Struct, frozen=True, tag="closed"):
    """The connection has ended, or ends for good: let go of the duplicate."""

    slot: Slot


class Plain(msgspec.Struct, frozen=True, tag="plain"):
    """The process continues with a connection that cannot be adopted: let go of the duplicate."""

    slot: Slot
    reason: Text  # "inbound": a message larger than the journal; "outbound"


class Parked(msgspec.Struct, frozen=True, tag="parked"):
    """The process has left a connection: another one is to continue.

    `is_clean`: all that the app sent was given to the kernel, so that a close frame may follow.
    """

    slot: Slot
    is_clean: bool = False


class Adopted(msgspec.Struct, frozen=True, tag="adopted"):
    """The process has taken what `Adopt` gave it: it is at `slot` of its own memory now.

    Said before anything is read from the socket or written to it. So if the process dies without
    having said it, the connection can be given to another one as it was.
    """

    ticket: Number
    slot: Slot
    lost: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0  # messages that were in hand at a crash
    again: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0  # messages that are given a second time


class Resumed(msgspec.Struct, frozen=True, tag="resumed"):
    """The app has accepted an adopted connection, and the process reads from it again."""

    slot: Slot


class Settled(msgspec.Struct, frozen=True, tag="settled"):
    """Resumed, and the app has dealt with a message that was given again: suspect no more."""

    slot: Slot


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The process has not adopted a connection, or not for long.

    `closed`: it has ended it, and the duplicate is of no use. Otherwise another one may try.
    """

    ticket: Number
    reason: Text  # a word of FAILURES, or of `relay_board.HANDOVERS`
    closed: bool
    details: Text = ""  # for the log


class Leaving(msgspec.Struct, frozen=True, tag="leaving"):
    """The process drains: give it no connection any more; what it has it parks or closes."""


class Left(msgspec.Struct, frozen=True, tag="left"):
    """The process carries nothing any more."""


class Memory(msgspec.Struct, frozen=True, tag="memory"):
    """A segment of another process that `Adopt` will name by `key`: that is the descriptor."""

    key: Number


class Forget(msgspec.Struct, frozen=True, tag="forget"):
    """No `Adopt` will name this segment any more."""

    key: Number


class Adopt(msgspec.Struct, frozen=True, tag="adopt"):
    """Continue with a connection: its socket is the descriptor.

    `count` is the number of handovers, this one included. `close`: a close code with which the
    process ends it in place of that, after what it still owes the client; 0: none.
    """

    ticket: Number
    key: Number
    index: Index
    reason: Reason
    count: Number
    close: Annotated[int, msgspec.Meta(ge=0, le=4999)] = 0


class Declined(msgspec.Struct, frozen=True, tag="declined"):
    """The supervisor holds no duplicate of a connection: it is plain from now on."""

    slot: Slot
    reason: Text  # "descriptors"


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    """Says how the process ends its connections when it drains, which SIGTERM orders.

    `adoptable` False: the site stops, or nobody will adopt: they are closed with 1012. It may be
    said again with another value. If it is not said, they are parked.
    """

    adoptable: bool


FAILURES = (
    "leaving",  # the process drains
    "memory",  # of the slot there is no segment, or it cannot be read
    "differs",  # journal and kernel disagree
    "gone",  # the client has closed the connection
    "error",  # something unexpected was raised
)

ChildMessage = (
    Ready | Segment | Open | Closed | Plain | Parked | Adopted | Resumed | Settled | Failed
    | Leaving | Left
)  # fmt: skip
HolderMessage = Memory | Forget | Adopt | Declined | Leave

WITH_DESCRIPTOR = (Segment, Open, Memory, Adopt)  # each of these has one, others have none

_encoder = msgspec.json.Encoder()
_child_decoder: msgspec.json.Decoder[ChildMessage] = msgspec.json.Decoder(ChildMessage)
_holder_decoder: msgspec.json.Decoder[HolderMessage] = msgspec.json.Decoder(HolderMessage)

_NOT_WHOLE = socket.MSG_TRUNC | socket.MSG_CTRUNC
_DESCRIPTOR = array.array("i").itemsize
_ANCILLARY = socket.CMSG_SPACE((MAX_DESCRIPTORS + 1) * _DESCRIPTOR)  # one too many is noticed


class PacketError(Exception):
    """The packet is not a message of the other side: trust nothing more of it."""


class ChannelClosedError(Exception):
    """The other side is gone."""


def encode(message: ChildMessage | HolderMessage) -> bytes:
    """Return one packet."""
    return _encoder.encode(message)


def send(
    sock: socket.socket, message: ChildMessage | HolderMessage, descriptor: int | None = None
) -> None:
    """Send one message. It has reached the other side's queue when this returns.

    Raises BlockingIOError if there is no room, OSError if the other side is gone. ETOOMANYREFS in
    it stands for too many descriptors under way: unix(7).
    """
    descriptors = () if descriptor is None else (descriptor,)
    socket.send_fds(sock, [_encoder.encode(message)], descriptors)


def receive_from_child(sock: socket.socket) -> tuple[ChildMessage, int | None]:
    """Return the next message and its descriptor, as `receive_from_holder` does."""
    return _receive(sock, _child_decoder.decode)


def receive_from_holder(sock: socket.socket) -> tuple[HolderMessage, int | None]:
    """Return the next message and its descriptor, which the caller closes.

    The descriptor of a message that brings one is None where this process can have no more.

    Raises BlockingIOError if there is none, ChannelClosedError, and PacketError.
    """
    return _receive(sock, _holder_decoder.decode)


def _receive(sock: socket.socket, decode: Callable[[bytes], T]) -> tuple[T, int | None]:
    try:
        data, ancillary, flags, _ = sock.recvmsg(MAX_PACKET, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        raise ChannelClosedError("the other side is gone") from None
    descriptors = _descriptors(ancillary)
    try:
        # Without any of them: this process is at its limit, recv(2). The message is in order.
        was_full = flags & _NOT_WHOLE == socket.MSG_CTRUNC and not descriptors
        if (flags & _NOT_WHOLE and not was_full) or len(descriptors) > MAX_DESCRIPTORS:
            raise PacketError("a packet that is too large, or descriptors that were cut off")
        if not data:
            raise ChannelClosedError("the other side is gone")
        try:
            message = decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PacketError(f"not a message: {error}") from None
        if isinstance(message, WITH_DESCRIPTOR) != (was_full or bool(descriptors)):
            raise PacketError(f"{type(message).__name__} with {len(descriptors)} descriptors")
    except (PacketError, ChannelClosedError):
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return message, descriptors[0] if descriptors else None


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % _DESCRIPTOR])
    return found.tolist()
