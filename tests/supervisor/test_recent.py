"""What was done in the last minute, as `chansup status` says it."""

from typing import Any

import pytest

from chansup.protocol import relay_board as board
from chansup.protocol.channel_report import ChannelCounts
from chansup.protocol.hub_report import HubReport, Queue
from chansup.protocol.status import ConsumerPool, Consumption
from chansup.supervisor.stats.recent import Recent
from tests.control.consumed import times

NOTHING = Consumption(0.0)


def row(waiting: int, *waits: int) -> list[float]:
    cells = [0.0] * board.CELLS
    cells[board.WAITING] = waiting
    for place, number in enumerate(waits):
        cells[board.WAITS + place] = number
    return cells


def test_only_the_last_minute_of_a_queue_counts() -> None:
    queues = Recent()
    assert queues.is_due(0.0)
    queues.sample({"web": row(0)}, NOTHING, 0.0)
    assert not queues.is_due(4.9)
    assert queues.is_due(5.0)
    slow = row(3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10)
    assert queues.queue("web", slow).waited == 10
    queues.sample({"web": slow}, NOTHING, 30.0)
    queues.sample({"web": slow}, NOTHING, 61.0)
    assert queues.queue("web", slow).waited == 0
    fast = [now + then for now, then in zip(slow, row(0, 96, 4), strict=True)]
    status = queues.queue("web", fast)
    assert (status.waiting, status.waited, status.at_most) == (3, 100, 0.001)
    assert queues.queue("new", row(1, 2)).waited == 2


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
def test_a_queue_in_words(waits: tuple[int, ...], words: str) -> None:
    assert Recent().queue("web", row(2, *waits)).in_words() == words


def at(**counts: Any) -> Consumption:
    channels = {"images": ChannelCounts(**counts)}
    return Consumption(0.0, [ConsumerPool("media", "default", 3, 2, 2, channels)])


def test_only_the_last_minute_of_a_channel_counts() -> None:
    recent = Recent()
    assert recent.is_due(0.0)
    recent.sample({}, at(), 0.0)
    assert not recent.is_due(4.9)
    assert recent.is_due(5.0)
    slow = at(handled=8, failed=2, wait=times(*[20.0] * 10), in_flight=1, depth=3, oldest=4.2)
    status = recent.channels(slow)["media"][0]
    assert (status.handled, status.failed, status.in_flight, status.waiting) == (10, 2, 1, 3)
    assert status.in_words() == (
        "3 waiting, the oldest for 4.2 s; 1 in hand; 10 done in the last minute, 2 of them failed,"
        " 95 % waited at most 20 s"
    )
    recent.sample({}, slow, 30.0)
    recent.sample({}, slow, 61.0)
    status = recent.channels(slow)["media"][0]
    assert (status.handled, status.failed, status.at_most) == (0, 0, None)
    assert status.in_words() == "3 waiting, the oldest for 4.2 s; 1 in hand"
    assert recent.channels(at())["media"][0].in_words() == "0 in hand"


def test_the_last_minute_of_the_hub() -> None:
    recent = Recent()
    assert recent.layer(Consumption(0.0)) is None
    before = HubReport(dropped={"full": {"*": 3}, "gone": {"*": 5}})
    recent.sample({}, Consumption(0.0, [], before), 0.0)
    now = HubReport(
        dropped={"full": {"*": 4}, "gone": {"*": 50}, "expired": {"a": 1}},
        pending={"*": Queue(2, 7, 0.25), "a": Queue(1, 3, 2.0)},
        memory=3_000_000, memory_limit=256 * 2**20,
    )  # fmt: skip
    status = recent.layer(Consumption(60.0, [], now))
    assert status is not None
    assert status.in_words() == (
        "10 messages waiting, the oldest for 2.0 s; 2.86 MiB of 256 MiB used; 2 refused or"
        " expired in the last minute"
    )
