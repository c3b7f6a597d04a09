"""How much may be under way: byte credits of each stream, and of all streams of a connection.

The sender counts what it sent and the other side has not consumed yet. Up to `ASSURED` bytes each
stream may always have under way, so that nobody waits for a slow neighbour; up to `WINDOW` bytes as
long as the connection has room for the rest. Free of I/O.
"""

WINDOW = 64 * 1024  # bytes of one stream
ASSURED = 16 * 1024
SHARED = 4 * 1024 * 1024  # bytes above ASSURED, of all streams of a connection
MESSAGE_COST = 64  # bytes that each part of a message counts besides its own: it takes room, too
REPORTED = 16 * 1024  # bytes that a receiver lets gather before it says that they are consumed


class Budget:
    """What the streams of one connection have under way above their assured part."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int = SHARED) -> None:
        self.limit = limit
        self.used = 0


class Window:
    """What one stream has under way in one direction, as its sender knows it."""

    __slots__ = ("_above", "_budget", "size", "under_way")

    def __init__(self, budget: Budget, size: int = WINDOW) -> None:
        self._budget = budget
        self._above = 0
        self.size = size
        self.under_way = 0

    @property
    def is_open(self) -> bool:
        """Whether one more frame may be sent."""
        if self.under_way < min(ASSURED, self.size):
            return True
        return self.under_way < self.size and self._budget.used < self._budget.limit

    def sent(self, size: int) -> None:
        """Count `size` bytes (at least 0) that leave."""
        self.under_way += size
        if self.under_way > ASSURED:
            self._account()

    def consumed(self, size: int) -> bool:
        """Take a credit of `size` bytes. Say whether it was for bytes that were sent."""
        if size > self.under_way:
            return False
        self.under_way -= size
        if self._above:
            self._account()
        return True

    def close(self) -> None:
        """Give back what the stream had."""
        self._budget.used -= self._above
        self._above = 0
        self.under_way = 0

    def _account(self) -> None:
        above = max(0, self.under_way - ASSURED)
        self._budget.used += above - self._above
        self._above = above
