"""Frames of a client, for tests."""

import os
import struct

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(opcode: int, payload: bytes, fin: bool = True, mask: bytes | None = None) -> bytes:
    """Return a masked frame."""
    mask = os.urandom(4) if mask is None else mask
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = b"\xfe" + struct.pack("!H", size)
    else:
        length = b"\xff" + struct.pack("!Q", size)
    long_mask = (mask * (size // 4 + 1))[:size]
    masked = bytes(one ^ other for one, other in zip(payload, long_mask, strict=True))
    return bytes([0x80 * fin | opcode]) + length + mask + masked
