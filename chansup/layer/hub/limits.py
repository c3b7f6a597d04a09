"""What the hub holds at most. The sizes of what it keeps are estimates."""

import msgspec

MESSAGE = 220  # bytes beside its body
ENTRY = 16  # bytes for a message's place in one channel
CHANNEL = 1200
MEMBERSHIP = 300
GROUP = 500
PROCESS = 1000

FOR_CHANNELS = 0.25  # of the limit, beyond it: for channels that somebody listens to
FOR_PROCESSES = 0.5  # the same, for processes that connect

# What sets these, for messages to people: the config file, where there is a supervisor
MEMORY = "[channel_layer] memory, or --memory of a hub alone"
CONNECTIONS = "[channel_layer] connections, or --connections of a hub alone"
USERS = "it is none of those that the site's pools run as, nor --user of a hub alone"


class NoRoomError(Exception):
    """A client needs more than the hub may hold."""

    def __str__(self) -> str:
        return f"the hub holds as much as it may ({MEMORY})"


class Limits(msgspec.Struct, frozen=True):
    """Set on the hub's command line."""

    memory: int = 256 * 1024 * 1024  # bytes of all that is queued, and of channels and groups
    connections: int = 1024
    output: int = 1024 * 1024  # bytes that wait for one client, above which it waits for its turn


class Memory:
    """How much of it is used.

    Sending, binding and joining stop at the limit. For those who read there is some more: else
    nobody could come and empty full queues.
    """

    __slots__ = ("copies", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.copies = 0  # places of messages in queues and in hands

    def has(self, size: int) -> bool:
        """Say whether `size` bytes more fit in."""
        return self.used + size <= self.limit

    def has_beyond(self, size: int, share: float) -> bool:
        """Say whether they fit in if the limit were higher by that share."""
        return self.used + size <= self.limit * (1 + share)
