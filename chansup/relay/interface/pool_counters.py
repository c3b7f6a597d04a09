"""What the relay counts for one pool, in a row of the relay board."""

from bisect import bisect_left

from chansup.protocol import relay_board as board


class PoolCounters:
    """The cells of one pool."""

    __slots__ = ("cells",)

    def __init__(self, cells: "memoryview[float]") -> None:
        self.cells = cells
        for gauge in board.GAUGES:
            cells[gauge] = 0.0

    def add(self, cell: int, number: float = 1) -> None:
        """Add to a counter or a gauge."""
        self.cells[cell] += number

    def waited(self, seconds: float) -> None:
        """Count how long a request waited for a worker."""
        cells = self.cells
        cells[board.WAIT_SUM] += seconds
        cells[board.WAITS + bisect_left(board.WAIT_BOUNDS, seconds)] += 1

    def rejected(self, reason: str) -> None:
        """Count a request that got no worker."""
        self.cells[board.REJECTED + board.REJECTIONS.index(reason)] += 1

    def handed_over(self, reason: str, result: str, pause: float) -> None:
        """Count a handover that came to its end, and the pause of one that went well."""
        row = board.REASONS.index(reason) * len(board.HANDOVERS)
        self.cells[board.HANDED_OVER + row + board.HANDOVERS.index(result)] += 1
        if result == "moved":
            self.cells[board.PAUSE_SUM] += pause
            self.cells[board.PAUSES + bisect_left(board.PAUSE_BOUNDS, pause)] += 1
