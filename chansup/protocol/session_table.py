"""Which app worker knows which session, in memory that all interface processes of a site share.

A hash table in one anonymous file (memfd_create(2)) that the supervisor makes and each interface
process inherits. An entry is two aligned cells of 8 bytes: a part of the hash with the pid of the
worker, and when it was used last. Reading needs no lock. Who writes has a bucket for itself by a
record lock (fcntl(2)) that is never waited for: if another process has it just now, the session
goes to the other bucket that it may be in. Where both are full, the entry that was not used for
longest gives way.
"""

import fcntl
import time
from hashlib import blake2b
from typing import NamedTuple

from chansup.protocol import shared_memory, versions
from chansup.protocol.shared_memory import SharedMemory

BUCKETS = 8192
WAYS = 8  # entries in a bucket
ENTRIES = BUCKETS * WAYS
SIZE = ENTRIES * 16  # bytes; only pages that were written to take memory
_PID_BITS = 22  # PID_MAX_LIMIT of Linux is 2**22
_PID_MASK = (1 << _PID_BITS) - 1
_TOUCH = 1.0  # seconds: it is not written more often that an entry was used


class Place(NamedTuple):
    """Where a session may be: two buckets, and the part of the hash that its entry has."""

    buckets: tuple[int, int]
    mark: int


def create() -> int:
    """Return the descriptor of a new, empty table, for children to inherit."""
    return shared_memory.create("chansup-sessions", versions.SESSIONS, SIZE)


class SessionTable:
    """The table behind one descriptor; `None`: private memory."""

    def __init__(self, descriptor: int | None = None) -> None:
        """Raises VersionError."""
        self._descriptor = descriptor
        self._memory = SharedMemory(descriptor, versions.SESSIONS, SIZE)
        cells = self._memory.bytes
        self._entries: memoryview[int] = cells[: ENTRIES * 8].cast("Q")
        self._used: memoryview[float] = cells[ENTRIES * 8 :].cast("d")  # monotonic

    def find(self, place: Place) -> int | None:
        """Return the pid of the worker that knows the session, if it is told here."""
        found = self._entry(place)
        if found is None:
            return None
        now = time.monotonic()
        if now - self._used[found] > _TOUCH:
            self._used[found] = now
        return self._entries[found] & _PID_MASK

    def keep(self, place: Place, pid: int) -> float | None:
        """Write down that a worker knows a session.

        Return for how many seconds the one that had to give way had not been used; None if none
        had to. 0.0: there was no room for the new one.
        """
        word = place.mark << _PID_BITS | pid
        for bucket in self._in_order(place):
            if not self._lock(bucket):
                continue
            try:
                entry = self._entry(place)
                if entry is None or entry // WAYS != bucket:
                    entry = min(self._range(bucket), key=self._used.__getitem__)
                now, former = time.monotonic(), self._entries[entry]
                idle = now - self._used[entry]
                self._entries[entry], self._used[entry] = word, now
            finally:
                self._unlock(bucket)
            is_same = not former or former >> _PID_BITS == place.mark
            return None if is_same else idle
        return 0.0

    def _in_order(self, place: Place) -> list[int]:
        """Return the buckets, first the one that has the entry, else the one with more room."""
        entry = self._entry(place)
        if entry is not None:
            return [entry // WAYS]
        return sorted(set(place.buckets), key=lambda one: min(self._used[self._slice(one)]))

    def _entry(self, place: Place) -> int | None:
        for bucket in place.buckets:
            for number, word in enumerate(self._entries[self._slice(bucket)]):
                if word >> _PID_BITS == place.mark:
                    return bucket * WAYS + number
        return None

    def _slice(self, bucket: int) -> slice:
        return slice(bucket * WAYS, (bucket + 1) * WAYS)

    def _range(self, bucket: int) -> range:
        return range(bucket * WAYS, (bucket + 1) * WAYS)

    def _lock(self, bucket: int) -> bool:
        if self._descriptor is None:
            return True
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 8, bucket * 8)
        except OSError:
            return False
        return True

    def _unlock(self, bucket: int) -> None:
        if self._descriptor is not None:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 8, bucket * 8)


def place_of(pool: str, value: str) -> Place:
    """Return where the session of a pool with that value is, if it is anywhere."""
    digest = blake2b(f"{pool}\0{value}".encode(errors="surrogateescape"), digest_size=16).digest()
    number = int.from_bytes(digest)
    first, number = number % BUCKETS, number // BUCKETS
    second, number = number % BUCKETS, number // BUCKETS
    return Place((first, second), number % ((1 << 64 - _PID_BITS) - 1) + 1)
