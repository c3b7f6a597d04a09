"""The classes of the Autobahn suite, frame by frame: behind the relay a server answers as alone.

Each row of a table is a conversation: what to send, and how many frames come back before the next
is sent. In the end the client closes, if the server has not done so, and reads until the connection
ends.
"""

import struct
import zlib
from collections.abc import Iterator

import pytest

from .cases import WebSocketCase, check
from .rfc6455 import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Client,
    closing,
    frame,
)
from .sites import Sites

Step = tuple[bytes, int]  # what to send, and the frames that come back
Rows = Iterator[tuple[str, list[Step]]]

HELLO = (frame(TEXT, b"hello"), 1)
UNANSWERED = 0
ANSWER = 1
FAILS = 99  # frames are read until the server closes


def chopped(data: bytes, size: int = 1) -> bytes:
    """Mark data to be sent in pieces of some octets."""
    return b"chop %d:" % size + data


def framing() -> Rows:
    sizes = (0, 1, 125, 126, 127, 128, 65_535, 65_536, 262_144, 1_048_576)
    for name, opcode in (("text", TEXT), ("binary", BINARY)):
        for size in sizes:
            yield f"{name} of {size}", [(frame(opcode, b"*" * size), ANSWER)]
        yield f"{name} chopped", [(chopped(frame(opcode, b"*" * 65_536), 997), ANSWER)]
        yield f"{name} by octets", [(chopped(frame(opcode, b"*" * 130)), ANSWER)]
        for length in (2, 8):
            data = frame(opcode, b"short", length_bytes=length)
            yield f"{name}, length in {length}", [HELLO, (data, ANSWER)]  # some take it
        yield f"{name} not masked", [HELLO, (frame(opcode, b"x", masked=False), FAILS)]
    head = bytes([0x82, 0xFF]) + struct.pack(">Q", 2**63)
    yield "negative length", [HELLO, (head, FAILS)]


def pings() -> Rows:
    for name, payload in (
        ("empty", b""), ("text", b"Hello"), ("binary", b"\x00\xff\xfe\xfd"), ("125", b"\xfe" * 125),
    ):  # fmt: skip
        yield f"ping {name}", [(frame(PING, payload), ANSWER)]
    too_long = frame(PING, b"\xfe" * 126)
    yield "ping too long", [HELLO, (too_long, FAILS)]
    yield "ping by octets", [(chopped(frame(PING, b"\xfe" * 125)), ANSWER)]
    yield "pong empty", [(frame(PONG), UNANSWERED), HELLO]
    yield "pong", [(frame(PONG, b"unsolicited"), UNANSWERED), HELLO]
    yield "pong, ping", [(frame(PONG, b"unsolicited") + frame(PING, b"asked"), ANSWER)]
    ten = b"".join(frame(PING, b"payload %d" % number) for number in range(10))
    yield "ten pings", [(ten, 10)]
    yield "ten pings by octets", [(chopped(ten), 10)]
    yield "ping between messages", [HELLO, (frame(PING, b"!"), 1), HELLO]


def reserved_bits() -> Rows:
    for bits in range(1, 8):
        for name, opcode in (("text", TEXT), ("ping", PING), ("close", CLOSE), ("binary", BINARY)):
            payload = b"\x03\xe8" if opcode == CLOSE else b"small"
            yield f"{name}, {bits}", [HELLO, (frame(opcode, payload, reserved=bits), FAILS)]


def opcodes() -> Rows:
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield f"opcode {opcode} empty", [HELLO, (frame(opcode), FAILS)]
        yield f"opcode {opcode}", [HELLO, (frame(opcode, b"payload"), FAILS)]


def fragments() -> Rows:
    one, two = frame(TEXT, b"one", fin=False), frame(CONTINUATION, b"two")
    middle = frame(CONTINUATION, b"middle", fin=False)
    ping = frame(PING, b"ping")
    stray, stray_open = frame(CONTINUATION, b"stray"), frame(CONTINUATION, b"stray", fin=False)
    yield "ping in two", [HELLO, (frame(PING, b"x", fin=False) + two, FAILS)]
    yield "pong in two", [HELLO, (frame(PONG, b"x", fin=False) + two, FAILS)]
    yield "text in two", [(one + two, ANSWER)]
    yield "text in three", [(one + middle + two, ANSWER)]
    yield "binary in two", [(frame(BINARY, b"\xff", fin=False) + two, ANSWER)]
    yield "ping between", [(one + ping, ANSWER), (two, ANSWER)]
    yield "pong between", [(one + frame(PONG, b"pong") + two, ANSWER)]
    yield "pings between, by octets", [
        (chopped(one + ping), ANSWER), (chopped(middle + ping), ANSWER), (chopped(two), ANSWER),
    ]  # fmt: skip
    yield (
        "empty pieces",
        [(frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION), ANSWER)],
    )
    yield (
        "empty, then some",
        [(frame(TEXT, fin=False) + middle + frame(CONTINUATION, fin=False) + two, ANSWER)],
    )
    yield "nothing to continue", [HELLO, (stray, FAILS)]
    yield "nothing to continue, open", [HELLO, (stray_open, FAILS)]
    yield "continued after the end", [(one + two, ANSWER), (stray, FAILS)]
    yield "text within text", [HELLO, (one + frame(TEXT, b"within"), FAILS)]
    yield "binary within text", [HELLO, (one + frame(BINARY, b"within"), FAILS)]
    yield "closed within text", [HELLO, (one + closing(1000), FAILS)]
    yield "a thousand pieces", [
        (one + frame(CONTINUATION, b"!", fin=False) * 1000 + two, ANSWER)
    ]  # fmt: skip


VALID_UTF8 = (
    "", "κόσμε", "häß", "€", "\U00010000", "\U0010ffff", "\ud7ff", "\ue000", "\ufffd", "\ufffe",
    "\uffff", "\x00", "\x7f", "\x80", "\u07ff", "\u0800", "\U0001f642 smile", "\ufeffmark",
)  # fmt: skip
INVALID_UTF8 = (
    b"\x80", b"\xbf", b"\x80\xbf\x80", b"\xc0 ", b"\xc0\xaf", b"\xc1\xbf", b"\xc3", b"\xe0\x9f\xbf",
    b"\xe2\x82", b"\xe2\x82 ", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\x80\xed\xb0\x80",
    b"\xf0\x8f\xbf\xbf", b"\xf0\x90\x8d", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80",
    b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80", b"\xfe", b"\xff", b"\xfe\xfe\xff\xff",
    b"valid, then \xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80edited",
)  # fmt: skip


def utf8() -> Rows:
    for text in VALID_UTF8:
        yield f"valid {text!a}", [(frame(TEXT, text.encode()), ANSWER)]
    word = "κόσμε🙂".encode()
    pieces = [frame(CONTINUATION, word[n : n + 1], fin=False) for n in range(1, len(word))]
    whole = frame(TEXT, word[:1], fin=False) + b"".join(pieces) + frame(CONTINUATION)
    yield "each octet in a frame", [(whole, ANSWER)]
    yield "each octet in a frame, by octets", [(chopped(whole), ANSWER)]
    for octets in INVALID_UTF8:
        yield f"invalid {octets!r}", [HELLO, (frame(TEXT, octets), FAILS)]
        parts = frame(TEXT, octets[:1], fin=False) + frame(CONTINUATION, octets[1:])
        yield f"invalid {octets!r} in two", [HELLO, (parts, FAILS)]
    cut = frame(TEXT, "é".encode()[:1], fin=False) + frame(CONTINUATION)
    yield "ends within a character", [HELLO, (cut, FAILS)]
    for octets in INVALID_UTF8:
        yield f"binary {octets!r}", [(frame(BINARY, octets), ANSWER)]


def closes() -> Rows:
    yield "at once", []
    yield "after a message", [HELLO]
    yield "twice", [HELLO, (closing(1000) + closing(1000), FAILS)]
    yield "then ping", [HELLO, (closing(1000) + frame(PING), FAILS)]
    yield "then text", [HELLO, (closing(1000) + frame(TEXT, b"late"), FAILS)]
    yield "text continues", [HELLO, (frame(TEXT, b"one", fin=False) + closing() + HELLO[0], FAILS)]
    yield "empty", [HELLO, (frame(CLOSE), FAILS)]
    yield "of one octet", [HELLO, (frame(CLOSE, b"a"), FAILS)]
    yield "with a reason", [HELLO, (closing(1000, b"Hello World!"), FAILS)]
    yield "with a long reason", [HELLO, (closing(1000, b"*" * 123), FAILS)]
    yield "with too long a reason", [HELLO, (closing(1000, b"*" * 124), FAILS)]
    yield "with an invalid reason", [HELLO, (closing(1000, b"\xce\xba\xed\xa0\x80"), FAILS)]
    yield "by octets", [HELLO, (chopped(closing(1000, b"slowly")), FAILS)]
    for code in (
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000,
        4999, 0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ):  # fmt: skip
        yield f"with {code}", [HELLO, (closing(code), FAILS)]


def limits() -> Rows:
    megabyte = b"0123456789abcdef" * 65_536
    for opcode, name in ((TEXT, "text"), (BINARY, "binary")):
        for size in (64, 1024, 16_384, 65_536, 262_144):
            pieces = [megabyte[at : at + size] for at in range(0, min(1 << 20, size * 200), size)]
            frames = [frame(opcode, pieces[0], fin=len(pieces) == 1)]
            frames += [frame(CONTINUATION, piece, fin=False) for piece in pieces[1:]]
            yield (
                f"{name} in pieces of {size}",
                [(b"".join(frames) + frame(CONTINUATION, b""), ANSWER)],
            )
        for size in (1024, 32_768):
            yield f"{name} in packets of {size}", [
                (chopped(frame(opcode, megabyte), size), ANSWER)
            ]  # fmt: skip
    for size in (0, 16, 256, 4096):
        yield f"100 round trips of {size}", [(frame(TEXT, b"*" * size), ANSWER)] * 100


def deflated() -> Rows:
    words = b" ".join(b"word %d" % number for number in range(2000))
    for name, messages in (("small", [b"a", b"b"]), ("large", [words]), ("same", [words] * 3)):
        shrink = zlib.compressobj(wbits=-15)
        steps = []
        for message in messages:
            data = (shrink.compress(message) + shrink.flush(zlib.Z_SYNC_FLUSH))[:-4]
            steps.append((frame(TEXT, data, reserved=4), ANSWER))
        yield f"{name} text", steps
    shrink = zlib.compressobj(wbits=-15)
    data = (shrink.compress(words) + shrink.flush(zlib.Z_SYNC_FLUSH))[:-4]
    yield (
        "in two",
        [(frame(TEXT, data[:50], fin=False, reserved=4) + frame(CONTINUATION, data[50:]), ANSWER)],
    )
    yield "broken", [HELLO, (frame(TEXT, b"\xff\xff\xff\xff", reserved=4), FAILS)]
    yield "plain all the same", [HELLO, HELLO]
    yield "deflated control", [HELLO, (frame(PING, b"x", reserved=4), FAILS)]
    yield "deflated continuation", [
        HELLO,
        (frame(TEXT, data[:5], fin=False, reserved=4)
         + frame(CONTINUATION, data[5:], reserved=4), FAILS),
    ]  # fmt: skip


CLASSES = [
    framing, pings, reserved_bits, opcodes, fragments, utf8, closes, limits, deflated,
]  # fmt: skip


def client(steps: list[Step], *lines: bytes):
    def converse(talk: Client) -> None:
        talk.open(b"/", *lines)
        for data, count in steps:
            if data.startswith(b"chop "):
                head, _, data = data.partition(b":")
                size = int(head[5:])
                for at in range(0, len(data), size):
                    talk.send(data[at : at + size])
            else:
                talk.send(data)
            if count == FAILS:
                talk.until_end()
                return
            if any(opcode == CLOSE for opcode, _ in talk.frames(count)):
                talk.until_end()
                return
        talk.finish()

    return converse


def cases(rows: Rows, *lines: bytes) -> Iterator[WebSocketCase]:
    for number, (name, steps) in enumerate(rows):
        shown = name.encode("ascii", "replace").decode()
        yield WebSocketCase(f"echo.{number} {shown}", client(steps, *lines))


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("frame_server", ["uvicorn", "hypercorn"])
def test_frames(started: Sites, frame_server: str, kind) -> None:
    pytest.importorskip(frame_server)
    pair = started.get(frame_server)
    lines = [b"Sec-WebSocket-Extensions: permessage-deflate"] if kind is deflated else []
    check(pair, cases(kind(), *lines))
