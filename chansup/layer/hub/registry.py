"""Channels, groups and processes by their names, and the memory that they take."""

import time

from chansup.layer.hub import limits
from chansup.layer.hub.channel import Channel, Group, Process
from chansup.layer.hub.drops import Drops
from chansup.layer.hub.limits import Memory, NoRoomError

LINGER = 10.0  # seconds that a process may be without a connection before it counts as gone
_UNKNOWN = 60.0  # the same, of a process that never had one


class Registry:
    """What there is. `now` is the time of the monotonic clock; whoever calls sets it."""

    def __init__(self, memory: Memory) -> None:
        self.now = time.monotonic()
        self.memory = memory
        self.drops = Drops()
        self.channels: dict[bytes, Channel] = {}
        self.groups: dict[bytes, Group] = {}
        self.processes: dict[bytes, Process] = {}
        self.memberships = 0
        self.idle: dict[Channel, None] = {}  # may be of no use
        self.absent: dict[Process, None] = {}  # without a connection

    # Channels and processes

    def cost(self, name: bytes) -> int:
        """Return what a channel takes that does not exist."""
        prefix, mark, _ = name.partition(b"!")
        is_new = mark and _process_key(prefix + mark) not in self.processes
        return limits.CHANNEL + (limits.PROCESS if is_new else 0)

    def for_reader(self, name: bytes, share: float = limits.FOR_CHANNELS) -> Channel:
        """Return a channel that somebody wants to read from. Raises NoRoomError."""
        channel = self.channels.get(name)
        if channel is None:
            if not self.memory.has_beyond(self.cost(name), share):
                raise NoRoomError
            channel = self.create(name)
        return channel

    def process_of_client(self, name: bytes) -> Process:
        """Return the process that a client is. Raises NoRoomError."""
        is_known = _process_key(name) in self.processes
        if not is_known and not self.memory.has_beyond(limits.PROCESS, limits.FOR_PROCESSES):
            raise NoRoomError
        return self.process(name)

    def create(self, name: bytes) -> Channel:
        """Return a new channel."""
        process = None
        prefix, mark, _ = name.partition(b"!")
        if mark:
            process = self.process(prefix + mark)
        channel = self.channels[name] = Channel(name, process)
        if process is not None:
            process.channels.add(channel)
        self.memory.used += limits.CHANNEL
        self.idle[channel] = None
        channel.idle = self.now
        return channel

    def process(self, name: bytes) -> Process:
        """Return the process of channels that begin with `name`, under which it may be new.

        A process may use more than one prefix: it is known by what stands behind the last period.
        """
        key = _process_key(name)
        process = self.processes.get(key)
        if process is None:
            self.memory.used += limits.PROCESS
            process = self.processes[key] = Process(key, self.now + _UNKNOWN - LINGER)
            self.absent[process] = None
        return process

    def consider(self, channel: Channel) -> None:
        """Forget a channel soon if it is of no use."""
        if channel.entries or channel.groups or channel.reader or channel.demands:
            return
        if self.channels.get(channel.name) is channel:
            channel.idle = self.now
            self.idle[channel] = None

    # Groups

    def join(self, group: Group, channel: Channel, began: float) -> None:
        """Make a channel a member."""
        group.members[channel] = began
        group.oldest = min(group.oldest, began)
        channel.groups[group] = None
        self.memory.used += limits.MEMBERSHIP
        self.memberships += 1

    def leave(self, group: Group, channel: Channel) -> None:
        """End a membership that exists."""
        del group.members[channel]
        del channel.groups[group]
        self.memory.used -= limits.MEMBERSHIP
        self.memberships -= 1
        if not group.members:
            self.groups.pop(group.name, None)
            self.memory.used -= limits.GROUP


def _process_key(name: bytes) -> bytes:
    return name.rpartition(b".")[2]
