"""Messages, channels, groups and processes, as the hub keeps them.

Two kinds of channels. An ordinary one is a queue that anybody reads: who wants a message says so,
and gets one. A channel with "!" in its name belongs to the process that the part up to the "!"
names: it listens, and gets all as they come.
"""

import math
from collections import deque
from typing import Protocol

from chansup.layer.policies import Capacities
from chansup.protocol.hub_report import DEFAULT_PATTERN


class Reader(Protocol):
    """The connection of a client, as far as queues are concerned."""

    crowded: bool  # it reads more slowly than it is sent to: deliver later
    flight: "dict[int, tuple[Channel, Message]]"  # of ordinary channels, delivered, not taken yet

    def deliver(self, id: int, message: "Message", crowded: bool) -> None:
        """Send a message. `crowded`: the channel fills up."""

    def deliver_to_many(self, ids: list[int], message: "Message", crowded: bool) -> None:
        """Send a message to many channels of one client."""

    def hand(self, id: int, message: "Message") -> None:
        """Send a message of an ordinary channel."""


class Message:
    """A message. One that went to a group stands in the queues of many channels."""

    __slots__ = ("body", "born", "deadline", "group", "holders", "number")
    attempts = 0  # that have failed

    def __init__(
        self, body: bytes, number: int, born: float, deadline: float, group: "Group | None" = None
    ) -> None:
        self.body = body
        self.number = number
        self.born = born
        self.deadline = deadline
        self.group = group
        self.holders = 0  # queues that it stands in


class Returned(Message):
    """A message that somebody had in hand already."""

    __slots__ = ("attempts", "expiry")

    def __init__(
        self, body: bytes, number: int, born: float, deadline: float, attempts: int, expiry: float
    ) -> None:
        super().__init__(body, number, born, deadline)
        self.attempts = attempts
        self.expiry = expiry  # seconds that it may wait each time


class Process:
    """A process that channels with "!" belong to."""

    __slots__ = ("channels", "connections", "left", "name", "waiting")

    def __init__(self, name: bytes, now: float) -> None:
        self.name = name
        self.connections = 0
        self.channels: set[Channel] = set()
        self.left = now  # when the last connection was lost
        self.waiting = 0  # messages that were not delivered to it yet, but for those to groups


IN_ORDER = math.inf  # the first entry is too old before all others
_NOBODY: deque[tuple[Reader, int]] = deque(maxlen=0)  # an empty one takes 600 bytes


class Channel:
    """A queue, and who reads it."""

    __slots__ = (
        "aliases", "capacities", "connection", "demands", "entries", "forgotten", "groups", "hold",
        "id", "idle", "kept_until", "left", "lenient_until", "limit", "name", "pattern", "process",
        "reader", "sent", "soonest", "specific", "successor",
    )  # fmt: skip

    def __init__(self, name: bytes, process: Process | None) -> None:
        self.name = name
        self.specific = process is not None  # has a "!" in its name
        self.process = process  # None also when it is parked
        self.entries: deque[Message] = deque()
        self.soonest = IN_ORDER  # when something behind the first entry may be too old
        self.groups: dict[Group, None] = {}
        self.forgotten = False
        self.left = False  # its process has let go of it, and reads no more
        self.pattern = DEFAULT_PATTERN
        self.capacities: Capacities | None = None  # of whoever sent to it last
        self.limit = 0  # how many messages it may hold according to these
        self.idle = 0.0  # since when there has been no reason to keep it
        # Ordinary
        self.demands: deque[tuple[Reader, int]] = _NOBODY if self.specific else deque()
        # With "!"
        self.reader: Reader | None = None
        self.id = 0  # under which the reader listens
        self.sent = 0  # the first so many entries were delivered, and not taken yet
        # Of one client's connection, which may move to another process
        self.connection: bytes | None = None
        self.kept_until: float | None = None  # parked: waits for the process that takes it over
        self.hold: Hold | None = None
        self.successor: Channel | None = None  # takes over as soon as the reader has let go
        self.aliases: list[bytes] = []
        self.lenient_until = 0.0  # it may hold more: its client was on the way, and catches up

    def capacity(self, capacities: Capacities) -> int:
        """Return how many messages it may hold."""
        if capacities is not self.capacities:
            self.capacities = capacities
            self.limit, self.pattern = capacities.find(self.name)
        return self.limit


class Hold:
    """What came for a channel before its new process has joined all the groups of the former one.

    In order: messages for a group that was not joined yet keeps all behind it waiting, until
    `deadline`.
    """

    __slots__ = ("deadline", "entries", "predecessor", "unjoined")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.entries: deque[Message] = deque()
        self.unjoined: set[Group] = set()
        self.predecessor: Channel | None = None  # still has a reader


class Group:
    """Channels that get each message that is sent to the group."""

    __slots__ = ("expiry", "members", "name", "oldest")

    def __init__(self, name: bytes, now: float) -> None:
        self.name = name
        self.members: dict[Channel, float] = {}  # and when they were added
        self.oldest = now  # no member was added before
        self.expiry = 0.0  # of whoever added a member last
