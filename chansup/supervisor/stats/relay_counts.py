"""What the relays of all interface processes counted, by row of the relay board."""

from collections.abc import Iterable

from chansup.protocol.relay_board import CELLS, GAUGES, RelayBoard
from chansup.protocol.roster import MAX_POOLS


class RelayCounts:
    """Counters of processes that are gone, to which those that live are added."""

    def __init__(self) -> None:
        self._totals = [[0.0] * CELLS for _ in range(MAX_POOLS)]

    def keep(self, board: RelayBoard) -> None:
        """Take over what a process counted that has ended; its gauges are of the past."""
        for number, totals in enumerate(self._totals):
            for cell, value in enumerate(board.read(number)):
                if cell not in GAUGES:
                    totals[cell] += value

    def row(self, number: int, living: Iterable[RelayBoard]) -> list[float]:
        """Return the sums of one row, over all processes that ever were."""
        sums = list(self._totals[number])
        for board in living:
            for cell, value in enumerate(board.read(number)):
                sums[cell] += value
        return sums
