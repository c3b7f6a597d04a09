"""A raw WebSocket client that notes each frame, and sends whatever a test wants, right or wrong."""

import ssl
import struct
from typing import Any

from ..apps.notation import summary
from .http1 import Broken, Conversation

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NAMES = {0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}
MASK = b"\x11\x22\x33\x44"


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, masked: bool = True,
    length_bytes: int | None = None,
) -> bytes:  # fmt: skip
    """Return one frame. `length_bytes`: 0, 2 or 8, where it shall not be the shortest."""
    size = len(payload)
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size < 65536 else 8
    head = bytes([fin << 7 | reserved << 4 | opcode])
    mask_bit = 0x80 if masked else 0
    if length_bytes == 0:
        head += bytes([mask_bit | size])
    elif length_bytes == 2:
        head += bytes([mask_bit | 126]) + struct.pack(">H", size)
    else:
        head += bytes([mask_bit | 127]) + struct.pack(">Q", size)
    return head + (MASK + mask(payload) if masked else payload)


def mask(payload: bytes) -> bytes:
    """Return the payload XOR the mask."""
    key = (MASK * (len(payload) // 4 + 1))[: len(payload)]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return number.to_bytes(len(payload), "big")


def closing(code: int | None = 1000, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack(">H", code) + reason)


class Client(Conversation):
    """One WebSocket, from its handshake on."""

    def __init__(self, address: str, case: str, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(address, case, tls)
        self.is_open = False
        self.quiet = False  # frames are read, and not noted

    def open(self, target: bytes = b"/", *lines: bytes) -> None:
        """Shake hands; a denial is read whole."""
        self.head(
            target,
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            b"Sec-WebSocket-Version: 13",
            *lines,
        )
        self.response()
        self.is_open = any(note[0] == "head" and " 101 " in note[1] for note in self.notes)

    def text(self, content: str) -> None:
        self.send(frame(TEXT, content.encode()))

    def binary(self, content: bytes) -> None:
        self.send(frame(BINARY, content))

    def frame(self) -> tuple[int, bytes]:
        """Read and note a frame; return its opcode and payload."""
        first, second = self.exactly(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", self.exactly(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self.exactly(8))
        payload = self.exactly(size)
        opcode = first & 0x0F
        words: list[Any] = [NAMES.get(opcode, opcode)]
        if opcode == CLOSE and size >= 2:
            words += [struct.unpack(">H", payload[:2])[0], payload[2:].decode("latin-1")]
        else:
            words.append(summary(payload, "latin-1"))
        if not first & 0x80:
            words.append("continues")
        if first & 0x70:
            words.append(f"reserved {first >> 4 & 7}")
        if second & 0x80:
            words.append("masked")
        if not self.quiet:
            self.note(*words)
        return opcode, payload

    def frames(self, count: int) -> list[tuple[int, bytes]]:
        """Read so many frames, or fewer if the server closes."""
        found: list[tuple[int, bytes]] = []
        while len(found) < count:
            found.append(self.frame())
            if found[-1][0] == CLOSE:
                break
        return found

    def until_end(self) -> None:
        """Answer a close frame, and read until the connection ends."""
        try:
            while True:
                opcode, payload = self.frame()
                if opcode == CLOSE:
                    self.send(frame(CLOSE, payload[:2]))
        except Broken:
            self.note("end")

    def finish(self, code: int | None = 1000, reason: bytes = b"") -> None:
        """Close, and read until the connection ends."""
        self.send(closing(code, reason))
        try:
            while True:
                self.frame()
        except Broken:
            self.note("end")
