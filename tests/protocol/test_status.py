"""What documents of `status` say for people."""

import pytest

from chansup.protocol.status import HeldStatus


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (HeldStatus(0, 0, 100, 0, 0, 0), "0 WebSockets are held"),
        (HeldStatus(7, 2, 100, 30, 1, 4),
         "7 WebSockets are held; 2 wait for a process; 30 moves, 1 messages lost; 4 could not be held"),
        (HeldStatus(100, 0, 100, 0, 0, 0),
         "100 WebSockets are held; the limit of descriptors allows no more"),
        (HeldStatus(0, 0, 100, 0, 0, 0, obstacle="granian"),
         "a deploy closes WebSockets with 1012: granian"),
        (HeldStatus(1, 0, 100, 0, 0, 0, only_deploys="counters differ"),
         "1 WebSockets are held; a crash closes them: counters differ"),
    ],
)  # fmt: skip
def test_websockets_that_are_held(held: HeldStatus, words: str) -> None:
    assert held.in_words() == words
