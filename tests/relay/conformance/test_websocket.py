"""WebSockets through the relay are what they are without."""

import socket
import threading
import zlib

from .cases import WebSocketCase as Case
from .cases import check
from .rfc6455 import BINARY, CONTINUATION, PING, PONG, TEXT, Client, frame
from .sites import Pair

MEGABYTE = bytes(range(256)) * 4096
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate"


def opened(target: bytes = b"/", *lines: bytes):
    """Open it and see what the server does."""

    def client(talk: Client) -> None:
        talk.open(target, *lines)
        if talk.is_open:
            talk.until_end()

    return client


def echoed(*messages: bytes, opcode: int = BINARY):
    def client(talk: Client) -> None:
        talk.open()
        for message in messages:
            talk.send(frame(opcode, message))
            talk.frames(1)
        talk.finish()

    return client


def closed(code: int | None, reason: bytes = b""):
    """Have the client close."""

    def client(talk: Client) -> None:
        talk.open()
        talk.finish(code, reason)

    return client


def at(target: bytes, *lines: bytes):
    def client(talk: Client) -> None:
        talk.open(target, *lines)
        if talk.is_open:
            talk.finish()

    return client


def fragments(talk: Client) -> None:
    talk.open()
    talk.send(frame(TEXT, "frag é".encode()[:6], fin=False))
    talk.send(frame(PING, b"between"))
    talk.frames(1)
    talk.send(frame(CONTINUATION, "é".encode()[1:], fin=False))
    talk.send(frame(CONTINUATION, b"", fin=False))
    talk.send(frame(PONG, b"unsolicited"))
    talk.send(frame(CONTINUATION, b" end"))
    talk.frames(1)
    talk.finish()


def pings(talk: Client) -> None:
    talk.open()
    for number in range(5):
        talk.send(frame(PING, b"%d" % number))
        talk.frames(1)
        talk.text(f"message {number}")
        talk.frames(1)
    talk.finish()


def vanish(*, reset: bool):
    def client(talk: Client) -> None:
        talk.open()
        talk.text("here")
        talk.frames(1)
        talk.vanish() if reset else talk.leave()

    return client


def half_closed(talk: Client) -> None:
    talk.open()
    talk.text("here")
    talk.frames(1)
    talk.socket.shutdown(socket.SHUT_WR)
    talk.until_end()


def leave_in_message(talk: Client) -> None:
    talk.open()
    talk.send(frame(TEXT, b"one", fin=False))
    talk.leave()


def flood(talk: Client) -> None:
    """Send and read at once, each as fast as it can."""
    talk.open()
    got: list[tuple[int, bytes]] = []
    talk.quiet = True
    reading = threading.Thread(target=lambda: got.extend(talk.frames(1000)))
    reading.start()
    for number in range(1000):
        talk.text(f"in {number}")
    talk.text("end")
    reading.join()
    talk.note("in order", got == [(TEXT, b"out %d" % number) for number in range(1000)])
    talk.quiet = False
    talk.until_end()


def many(talk: Client) -> None:
    """Send many messages without waiting; all come back in order."""
    talk.open()
    sent = [b"%d" % number * (number % 50 + 1) for number in range(2000)]
    got: list[tuple[int, bytes]] = []
    talk.quiet = True
    reading = threading.Thread(target=lambda: got.extend(talk.frames(len(sent))))
    reading.start()
    talk.send(b"".join(frame(TEXT, message) for message in sent))
    reading.join()
    talk.note("in order", got == [(TEXT, message) for message in sent])
    talk.quiet = False
    talk.finish()


def slow_reader(talk: Client) -> None:
    talk.open()
    threading.Event().wait(0.2)
    talk.quiet = True
    got = talk.frames(60)
    talk.note("all", got == [(BINARY, bytes([n]) * 100_000) for n in range(60)])
    talk.quiet = False
    talk.until_end()


def deflated(*lines: bytes):
    def client(talk: Client) -> None:
        talk.open(b"/", *lines)
        shrink, grow = zlib.compressobj(wbits=-15), zlib.decompressobj(-15)
        for message in (b"small", b"text " * 1000, b"text " * 1000):
            data = shrink.compress(message) + shrink.flush(zlib.Z_SYNC_FLUSH)
            talk.send(frame(TEXT, data[:-4], reserved=4))
            ((_, payload),) = talk.frames(1)
            talk.note("grown", grow.decompress(payload + b"\0\0\xff\xff") == message)
        talk.text("not deflated")
        talk.frames(1)
        talk.finish()

    return client


def numbers(talk: Client) -> None:
    talk.open()
    for number in range(20):
        talk.text(str(number))
        threading.Event().wait(0.003)
    talk.until_end()


NO_EMPTY = ("daphne",)  # it sends no empty messages
NEVER_TOLD = ("daphne",)  # its clients wait for ever
IMPATIENT = ("daphne",)  # it closes before all is sent, if the client reads slowly
LOSES = (
    "granian",
)  # it loses what comes while receive() is cancelled; behind the relay it does not
CASES = [
    Case("echo.text", echoed(b"hello", "häß 🙂".encode(), opcode=TEXT)),
    Case("echo.binary", echoed(b"\x00\xff")),
    Case("echo.empty-text", echoed(b"", b"after", opcode=TEXT), without=NO_EMPTY),
    Case("echo.empty-binary", echoed(b"", b"after"), without=NO_EMPTY),
    Case("echo.1mb", echoed(MEGABYTE, b"after")),
    Case("echo.1mb-text", echoed("é".encode() * 500_000, opcode=TEXT)),
    Case("echo.10mb", echoed(MEGABYTE * 10, b"after")),
    Case("echo.sizes", echoed(*(b"x" * size for size in (1, 125, 126, 16_383, 16_384, 16_385,
                                                         32_768, 65_535, 65_536, 262_144)))),
    Case("echo.fragments", fragments),
    Case("echo.pings", pings),
    Case("echo.target", at(b"/caf%C3%A9%20%E4/\xc3\xa9?q=\xe9&a=1", b"X-A: 1", b"x-b: \xe9", b"X-A: 2",
                           b"Origin: http://example.org", b"Cookie: a=1")),
    Case("state", closed(1000)),
    Case("quiet_echo.many", many),
    Case("flood", flood),
    Case("pour", slow_reader, without=IMPATIENT),
    Case("cancelled_websocket_receive", numbers, without=LOSES),
    Case("echo.deflate", deflated(DEFLATE)),
    Case("echo.deflate-takeover",
         deflated(DEFLATE + b"; server_no_context_takeover; client_max_window_bits")),
    Case("both_keys", opened()),
    Case("subprotocol", opened(b"/", b"Sec-WebSocket-Protocol: chat, superchat")),
    Case("subprotocol.two-lines",
         opened(b"/", b"Sec-WebSocket-Protocol: a", b"Sec-WebSocket-Protocol: b, c")),
    Case("subprotocol.none", opened()),
    Case("accept_headers", opened()),
    Case("accept_without_receive", opened()),
    *(Case(f"echo.close-{code}", closed(code, b"reason \xc3\xa9"))
      for code in (1000, 1001, 1003, 1008, 1011, 1012, 3000, 4999)),
    Case("echo.close-none", closed(None)),
    Case("echo.close-long", closed(4000, b"r" * 123)),
    *(Case(f"close.{query}", opened(f"/?{query}".encode()))
      for query in ("", "1000", "1001", "1008&policy", "1011", "1012&service", "3000", "4999&x",
                    "4000&" + "r" * 123)),
    Case("close_and_return", opened()),
    Case("deny", opened()),
    Case("deny_code", opened()),
    Case("deny_response", opened()),
    Case("deny_raises", opened()),
    Case("deny_returns", opened(), without=NEVER_TOLD),
    Case("accept_raises", opened()),
    Case("accept_returns", opened(), without=NEVER_TOLD),
    Case("receive_raises", echoed(b"x", opcode=TEXT)),
    Case("send_first", opened()),
    Case("accept_twice", opened()),
    Case("send_closed", opened()),
    Case("send_left", closed(1001)),
    Case("receive_left", closed(1001)),
    Case("bad_message", opened(), without=NEVER_TOLD),
    Case("bad_text", opened()),
    Case("echo.left", vanish(reset=False)),
    Case("echo.reset", vanish(reset=True)),
    Case("echo.half-closed", half_closed),
    Case("echo.left-in-message", leave_in_message),
]  # fmt: skip


def test_websocket(pair: Pair) -> None:
    check(pair, CASES)
