"""What the hub holds at most. The sizes of what it keeps are estimates."""

import msgspec

MESSAGE = 220  # bytes beside its body
ENTRY = 16  # bytes for a message's place in one channel
CHANNEL = 1200
MEMBERSHIP = 300
GROUP = 500


class Limits(msgspec.Struct, frozen=True):
    """Set on the hub's command line."""

    memory: int = 256 * 1024 * 1024  # bytes of all that is queued, and of channels and groups
    connections: int = 1024
    output: int = 1024 * 1024  # bytes that wait for one client, above which it waits for its turn


class Memory:
    """How much of it is used."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def has(self, size: int) -> bool:
        """Say whether `size` bytes more fit in."""
        return self.used + size <= self.limit
