"""Sums over the relay boards of interface processes, living and gone."""

import os

from chansup.protocol import relay_board as board
from chansup.protocol.relay_board import RelayBoard
from chansup.supervisor.stats.relay_counts import RelayCounts


def test_counters_of_the_gone_stay_and_their_gauges_go() -> None:
    counts = RelayCounts()
    first, second = RelayBoard(None), RelayBoard(None)
    for number, relay in enumerate((first, second), 1):
        relay.row(3)[board.RETRIES] = number
        relay.row(3)[board.WAITING] = 10 * number
        relay.row(0)[board.REJECTED] = 100 * number
    assert counts.row(3, [first, second])[board.RETRIES] == 3
    assert counts.row(3, [first, second])[board.WAITING] == 30
    counts.keep(first)
    assert counts.row(3, [second])[board.RETRIES] == 3
    assert counts.row(3, [second])[board.WAITING] == 20
    assert counts.row(0, [])[board.REJECTED] == 100
    assert sum(counts.row(1, [second])) == 0


def test_what_a_child_wrote_is_not_trusted() -> None:
    descriptor = board.create()
    ours, childs = RelayBoard(descriptor), RelayBoard(descriptor)
    os.close(descriptor)
    childs.row(5)[board.BYTES] = float("nan")
    childs.row(5)[board.RETRIES] = -4
    childs.row(5)[board.FAILED] = float("inf")
    childs.row(5)[board.LOST] = 2
    counts = RelayCounts()
    counts.keep(ours)
    assert sum(counts.row(5, [])) == 2
