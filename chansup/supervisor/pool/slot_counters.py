"""What the processes of a slot counted on their scoreboards, those that are gone included."""

from collections.abc import Iterable

from chansup.protocol import scoreboard
from chansup.supervisor.process.process import Process


class SlotCounters:
    """Counters of processes that are gone, to which those that live are added."""

    def __init__(self) -> None:
        self._totals = [0.0] * scoreboard.CELLS

    def keep(self, process: Process) -> None:
        """Take over what a process counted that has ended, and close its scoreboard."""
        if process.scoreboard is None:
            return
        _add(self._totals, process.scoreboard, scoreboard.COUNTERS)
        # Those that a killed process still had were closed silently.
        cut = process.scoreboard.read(scoreboard.WEBSOCKETS_OPEN)
        self._totals[scoreboard.close_cell(1006)] += cut
        process.scoreboard.close()
        process.scoreboard = None

    def cells(self, living: Iterable[Process], current: Process | None) -> list[float]:
        """Return the scoreboard of the slot: counters of all processes it ever had.

        Gauges are those of the processes that live; loop lag is that of the current one.
        """
        cells = list(self._totals)
        for process in living:
            if process.scoreboard is not None:
                _add(cells, process.scoreboard)
        board = current.scoreboard if current is not None else None
        cells[scoreboard.LOOP_LAG] = board.cells[scoreboard.LOOP_LAG] if board else 0.0
        return cells


def _add(totals: list[float], board: scoreboard.Scoreboard, which: range | None = None) -> None:
    for cell in which or range(scoreboard.CELLS):
        totals[cell] += board.read(cell)
