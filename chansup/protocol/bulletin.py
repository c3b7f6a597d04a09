"""A document that a child rewrites, and that the supervisor reads whenever it likes.

One anonymous file (memfd_create(2)) per process, mapped on both sides, for what has no fixed places
as on a scoreboard. The child is the only writer. Nobody waits for anybody, and what a killed child
wrote last can still be read: two halves are written in turn, and the head, one aligned 8-byte
store, says which is whole. A checksum tells a reader that was too slow to look again. Beside the
head stands a number that grows while the child's event loop turns.
"""

import struct
import zlib

from chansup.protocol import shared_memory, versions
from chansup.protocol.shared_memory import SharedMemory

_HALF = 512 * 1024  # bytes, of address space: memory is used as far as it is written
SIZE = 4096 + 2 * _HALF
_FRAME = struct.Struct("=II")  # size, CRC-32
MAX_DOCUMENT = _HALF - _FRAME.size
_TRIES = 10
_BEATS = 2**63  # beats are counted modulo this


def create() -> int:
    """Return the descriptor of a new, empty bulletin, for a child to inherit."""
    return shared_memory.create("chansup-bulletin", versions.BULLETIN, SIZE)


class Bulletin:
    """The memory behind one descriptor."""

    def __init__(self, descriptor: int) -> None:
        """Raises VersionError."""
        self._shared = SharedMemory(descriptor, versions.BULLETIN, SIZE)
        self._memory = self._shared.bytes
        self._head: memoryview[int] = self._memory[:16].cast("Q")  # edition, beats

    def write(self, document: bytes) -> bool:
        """Replace the document; False if it is larger than MAX_DOCUMENT: the former one stays."""
        if len(document) > MAX_DOCUMENT:
            return False
        edition = self._head[0] + 1
        place = 4096 + (edition % 2) * _HALF
        frame = _FRAME.pack(len(document), zlib.crc32(document))
        self._memory[place : place + len(frame) + len(document)] = frame + document
        self._head[0] = edition
        return True

    def read(self) -> bytes | None:
        """Return the newest document, or None if there is none, or none that can be trusted."""
        for _ in range(_TRIES):
            edition = self._head[0]
            if not edition:
                return None
            place = 4096 + (edition % 2) * _HALF
            size, checksum = _FRAME.unpack_from(self._memory, place)
            if size <= MAX_DOCUMENT:
                begin = place + _FRAME.size
                document = bytes(self._memory[begin : begin + size])
                if zlib.crc32(document) == checksum and self._head[0] == edition:
                    return document  # else it may be a later one, and the next an earlier one
        return None

    def beat(self) -> None:
        """Say that the event loop of the child turns."""
        self._head[1] = (self._head[1] + 1) % _BEATS

    def beats(self) -> int:
        """Return a number that changes with each beat; 0 before the first."""
        return self._head[1]

    def close(self) -> None:
        """Unmap the memory; nothing can be read or written afterwards."""
        self._head.release()
        self._shared.close()
