"""What a hub that is killed leaves to the next one: who was connected, and what was done for whom.

It stands in shared memory that outlives the hub: the supervisor's, or a file beside the socket. A
row tells of one connection how many of its requests were carried out and how many messages it was
given. Rows are written before anything of it leaves the hub. So the next hub knows which of the
requests that had no answer are to be repeated, whose memberships are still to come, and how many
messages were lost on the way.
"""

import mmap
import os
import stat
import struct
from collections.abc import Iterable
from typing import NamedTuple

from chansup.protocol.versions import LEDGER

_MAGIC = b"chshub%d\0" % LEDGER.newest
_HEADER = struct.Struct("=8sQ")  # magic, messages that are lost if the hub ends now
_ROW = struct.Struct("=16sIIIIQQQ")
_PLACE = 64  # bytes of the header, and of a row
_SPARE = 64  # rows beside two for each client
_FREE, _OPEN, _CLOSED = range(3)
_TOKEN = 16  # bytes of a process's name
_STATE, _GIVEN, _DONE, _LOST = 24, 32, 40, 8  # where these stand
_STATES = struct.Struct("=II")  # state, whether the process is in groups
_NUMBER = struct.Struct("=Q")
_NUMBERS = struct.Struct("=QQ")  # requests that were done, which of the last 64 were refused
KNOWN = 64  # requests, the last ones, of which it is known whether they were refused


class Former(NamedTuple):
    """A connection that is over, or was another hub's."""

    given: int  # messages
    done: int  # requests
    refused: int  # the last of them, a bit for each: the lowest is of the very last


class Row:
    """The place of one connection."""

    __slots__ = ("_ledger", "key", "number")

    def __init__(self, ledger: "Ledger", number: int, key: tuple[bytes, int]) -> None:
        self._ledger = ledger
        self.number = number
        self.key = key

    def give(self, messages: int) -> None:
        """Write how many messages the client was given so far."""
        _NUMBER.pack_into(self._ledger.memory, (self.number + 1) * _PLACE + _GIVEN, messages)

    def done(self, requests: int, refused: int) -> None:
        """Write how many requests were carried out so far, and which of the last were refused."""
        place = (self.number + 1) * _PLACE + _DONE
        _NUMBERS.pack_into(self._ledger.memory, place, requests, refused)


class Ledger:
    """The memory. What another hub left there is read at once."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.memory = memory
        self.lost = 0  # messages that were lost with another hub, if there was one
        self.processes: dict[bytes, int] = {}  # that were connected and in groups, and their pids
        self._joined: set[bytes] = set()
        self._rows: dict[tuple[bytes, int], int] = {}
        self._free: list[int] = []
        self._closed: dict[int, tuple[bytes, int]] = {}  # may be used again, the oldest first
        count = len(memory) // _PLACE - 1
        magic, lost = _HEADER.unpack_from(memory, 0)
        self._is_foreign = magic != _MAGIC  # new, or of a hub of another version
        if self._is_foreign:
            self._free = list(range(count - 1, -1, -1))
            return
        self.lost = lost
        for number in range(count - 1, -1, -1):
            self._read(number)

    def _read(self, number: int) -> None:
        token, link, pid, state, joined, *_ = _ROW.unpack_from(self.memory, (number + 1) * _PLACE)
        if state == _FREE:
            self._free.append(number)
            return
        self._rows[token, link] = number
        if joined:
            self._joined.add(token)
        if state == _CLOSED:
            self._closed[number] = (token, link)
        elif joined:
            self.processes[token] = pid

    def find(self, token: bytes, link: int) -> Former | None:
        """Return the record of a connection."""
        number = self._rows.get((token, link))
        if number is None:
            return None
        *_, given, done, refused = _ROW.unpack_from(self.memory, (number + 1) * _PLACE)
        return Former(given, done, refused)

    def open(self, token: bytes, link: int, pid: int) -> Row | None:
        """Begin a row, or return None where there is no room."""
        if len(token) != _TOKEN:
            return None
        key = (token, link)
        if key in self._rows:
            return None  # a client that does not number its connections
        if self._free:
            number = self._free.pop()
        elif self._closed:
            number = next(iter(self._closed))
            self._rows.pop(self._closed.pop(number), None)
        else:
            return None
        self._rows[key] = number
        place = (number + 1) * _PLACE
        _ROW.pack_into(
            self.memory, place, token, link, pid, _OPEN, token in self._joined, 0, 0, 0
        )  # fmt: skip
        return Row(self, number, key)

    def open_rows(self) -> set[tuple[bytes, int]]:
        """Return the connections that were not closed."""
        return {key for key, number in self._rows.items() if number not in self._closed}

    def close(self, token: bytes, link: int) -> None:
        """Take notice that a connection is over: nobody waits for it any more."""
        number = self._rows.get((token, link))
        if number is not None and number not in self._closed:
            self._closed[number] = (token, link)
            place = (number + 1) * _PLACE + _STATE
            _STATES.pack_into(self.memory, place, _CLOSED, token in self._joined)

    def close_all(self, token: bytes) -> None:
        """Take notice that a process is no more."""
        for known, link in list(self._rows):
            if known == token:
                self.close(known, link)

    def join(self, token: bytes) -> None:
        """Take notice that a process has put a channel into a group."""
        if token in self._joined:
            return
        self._joined.add(token)
        for (known, _), number in self._rows.items():
            if known == token and number not in self._closed:
                _STATES.pack_into(self.memory, (number + 1) * _PLACE + _STATE, _OPEN, True)

    def risk(self, messages: int) -> None:
        """Write how many messages are lost if the hub ends now."""
        _NUMBER.pack_into(self.memory, _LOST, messages)

    def begin(self) -> None:
        """Leave behind what the former hub lost: it is counted."""
        self.claim()
        self.risk(0)

    def claim(self) -> None:
        """Write from now on: no other hub does any more. What cannot be read is erased."""
        if self._is_foreign:
            self._is_foreign = False
            self.memory[:] = bytes(len(self.memory))
            _HEADER.pack_into(self.memory, 0, _MAGIC, 0)


def size(connections: int) -> int:
    """Return how many bytes a ledger for so many clients has."""
    return (2 * connections + _SPARE + 1) * _PLACE


def inherited(descriptor: int, connections: int) -> Ledger:
    """Return the ledger in an open file, which grows as needed. Raises OSError, ValueError."""
    wanted = max(size(connections), os.fstat(descriptor).st_size // _PLACE * _PLACE)
    os.ftruncate(descriptor, wanted)
    return Ledger(mmap.mmap(descriptor, wanted))


def anonymous(connections: int) -> Ledger:
    """Return a ledger that ends with this hub."""
    return Ledger(mmap.mmap(-1, size(connections)))


def beside(path: str, connections: int) -> Ledger:
    """Return the ledger of a hub that has no supervisor: a file beside its socket, if may be."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(file_beside(path), flags, 0o600)
    except OSError:
        return anonymous(connections)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            return anonymous(connections)
        return inherited(descriptor, connections)
    except (OSError, ValueError):
        return anonymous(connections)
    finally:
        os.close(descriptor)


def file_beside(path: str) -> str:
    """Return where `beside` keeps it."""
    return path + ".ledger"


def bits(refusals: Iterable[int], done: int) -> int:
    """Return which of the last requests were refused, by the numbers of those that were."""
    return sum(1 << done - number for number in refusals if 0 <= done - number < KNOWN)
