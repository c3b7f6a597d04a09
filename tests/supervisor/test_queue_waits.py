"""The wait for app workers, as `chansup status` says it."""

import pytest

from chansup.protocol import relay_board as board
from chansup.supervisor.stats.queue_waits import QueueWaits


def row(waiting: int, *waits: int) -> list[float]:
    cells = [0.0] * board.CELLS
    cells[board.WAITING] = waiting
    for place, number in enumerate(waits):
        cells[board.WAITS + place] = number
    return cells


def test_only_the_last_minute_counts() -> None:
    queues = QueueWaits()
    assert queues.is_due(0.0)
    queues.sample({"web": row(0)}, 0.0)
    assert not queues.is_due(4.9)
    assert queues.is_due(5.0)
    slow = row(3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10)
    assert queues.status("web", slow).waited == 10
    queues.sample({"web": slow}, 30.0)
    queues.sample({"web": slow}, 61.0)
    assert queues.status("web", slow).waited == 0
    fast = [now + then for now, then in zip(slow, row(0, 96, 4), strict=True)]
    status = queues.status("web", fast)
    assert (status.waiting, status.waited, status.at_most) == (3, 100, 0.001)
    assert queues.status("new", row(1, 2)).waited == 2


@pytest.mark.parametrize(
    ("waits", "words"),
    [
        ((), "2 waiting for a worker"),
        ((100,), "2 waiting for a worker; of 100 in the last minute, 95 % waited at most 1 ms"),
        ((9, 1), "2 waiting for a worker; of 10 in the last minute, 95 % waited at most 2.5 ms"),
        (
            (*[0] * 10, 5),
            "2 waiting for a worker; of 5 in the last minute, 95 % waited at most 2.5 s",
        ),
        (
            (*[0] * 15, 5),
            "2 waiting for a worker; of 5 in the last minute, 95 % waited more than a minute",
        ),
    ],
)
def test_in_words(waits: tuple[int, ...], words: str) -> None:
    assert QueueWaits().status("web", row(2, *waits)).in_words() == words
