"""A document that one process rewrites while another one reads it."""

import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from chansup.protocol import bulletin
from chansup.protocol.bulletin import MAX_DOCUMENT, SIZE, Bulletin
from chansup.protocol.shared_memory import HEAD_SIZE

FIRST = HEAD_SIZE + 4096  # place of each half in the file
SECOND = FIRST + (SIZE - 4096) // 2


@pytest.fixture
def descriptor() -> Iterator[int]:
    found = bulletin.create()
    yield found
    os.close(found)


@pytest.fixture
def board(descriptor: int) -> Iterator[Bulletin]:
    found = Bulletin(descriptor)
    yield found
    found.close()


def test_what_was_written_last_is_read(descriptor: int, board: Bulletin) -> None:
    reader = Bulletin(descriptor)
    assert reader.read() is None
    for document in (b"first", b"", b"a longer one", b"x" * MAX_DOCUMENT, b"short"):
        assert board.write(document)
        assert reader.read() == document
        assert reader.read() == document
    reader.close()
    again = Bulletin(descriptor)  # whoever maps it later, too
    assert again.read() == b"short"
    again.close()


def test_what_is_too_large_leaves_the_former_one(board: Bulletin) -> None:
    board.write(b"before")
    assert not board.write(b"x" * (MAX_DOCUMENT + 1))
    assert board.read() == b"before"


def test_a_writer_that_starts_anew_goes_on(descriptor: int, board: Bulletin) -> None:
    board.write(b"one")
    second = Bulletin(descriptor)
    second.write(b"two")
    assert board.read() == b"two"
    second.close()


def test_nobody_can_cut_it_off(descriptor: int) -> None:
    assert os.fstat(descriptor).st_size == HEAD_SIZE + SIZE
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 10)


def test_a_document_that_was_spoiled_is_not_read(descriptor: int, board: Bulletin) -> None:
    board.write(b"whole")  # edition 1 stands in the second half
    place = SECOND
    size, checksum = struct.unpack("=II", os.pread(descriptor, 8, place))
    assert size == 5
    for spoiled in (
        struct.pack("=II", size, checksum ^ 1),
        struct.pack("=II", size + 1, checksum),
        struct.pack("=II", MAX_DOCUMENT + 1, checksum),
        struct.pack("=II", 2**32 - 1, checksum),
    ):
        os.pwrite(descriptor, spoiled, place)
        assert board.read() is None
    os.pwrite(descriptor, struct.pack("=II", size, checksum), place)
    assert board.read() == b"whole"
    os.pwrite(descriptor, b"W", place + 8)
    assert board.read() is None
    assert board.write(b"anew")
    assert board.read() == b"anew"


def test_memory_full_of_garbage_is_survived(descriptor: int, board: Bulletin) -> None:
    chance = random.Random(1)
    for _ in range(50):
        os.pwrite(descriptor, chance.randbytes(8), HEAD_SIZE)
        for place in (FIRST, SECOND):
            os.pwrite(descriptor, chance.randbytes(64), place)
        assert board.read() is None


WRITER = """
import itertools, sys
from chansup.protocol.bulletin import Bulletin
board = Bulletin(int(sys.argv[1]))
for number in itertools.count(1):
    assert board.write(b"%d" % number + b"," * (1 + number * 37 % 50_000) + b"%d" % number)
"""


def test_a_reader_that_races_a_writer_sees_whole_documents_in_order(
    descriptor: int, board: Bulletin
) -> None:
    command = [sys.executable, "-c", WRITER, str(descriptor)]
    seen = different = 0
    deadline = time.monotonic() + 30
    with subprocess.Popen(command, pass_fds=[descriptor]) as writer:
        try:
            while different < 300:
                assert time.monotonic() < deadline
                assert writer.poll() is None
                document = board.read()
                if document is None:  # none yet, or overtaken again and again
                    continue
                first, *_, last = document.split(b",")
                assert first == last
                assert len(document) == 2 * len(first) + 1 + int(first) * 37 % 50_000
                assert int(first) >= seen
                different += int(first) > seen
                seen = int(first)
        finally:
            writer.kill()
    document = board.read()  # what was written last can be read yet, or what was before
    assert document is not None
    assert int(document.split(b",")[0]) >= seen
