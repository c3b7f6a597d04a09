"""What clients do with queues and groups. Knows nothing of sockets."""

from typing import NamedTuple

from chansup.layer.hub import limits
from chansup.layer.hub.channel import Channel, Group, Message, Process, Reader
from chansup.layer.hub.limits import Memory
from chansup.layer.hub.parking import Parking
from chansup.layer.hub.queues import FEW, Queues
from chansup.layer.hub.registry import LINGER
from chansup.layer.hub.returning import Returning
from chansup.layer.policies import Capacities
from chansup.protocol.hub_report import Drop

CLAIMING = 30.0  # seconds that a client has to say what it holds, after a takeover
_IDLE = 2.0  # seconds that a channel is kept for nothing
_IDLE_BOUND = 60.0  # the same, where it belongs to a client's connection


class Unclaimed(NamedTuple):
    """A message that a client of the former hub has in hand, until it says so."""

    channel: Channel
    message: Message
    deadline: float


class Store(Queues):
    """What the hub keeps."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self.parking = Parking(self)
        self.returning: Returning | None = None  # who knew another hub, and what is kept for them
        self.sent = 0
        self.group_sent = 0
        self.observed: dict[bytes, None] = {}  # names that somebody asked about
        self.unclaimed: dict[tuple[bytes, int], Unclaimed] = {}

    # Messages

    def send(self, name: bytes, body: bytes, capacities: Capacities) -> str:
        """Put a message into a channel, or say why not."""
        size = limits.MESSAGE + len(body)
        known = self.channels.get(name)
        if known is None and not self.memory.has(size + self.cost(name)):
            self.drops.add(Drop.MEMORY, capacities.find(name)[1])
            return Drop.MEMORY
        channel = known or self.create(name)
        reason = self._refusal(channel, capacities, size)
        if reason:
            self.drops.add(reason, channel.pattern)
            if known is None:
                self.parking.forget(channel)
            else:
                self.consider(channel)
            return reason
        self.number += 1
        self.sent += 1
        message = Message(body, self.number, self.now, self.now + capacities.expiry)
        if channel.hold is None:
            self.put(channel, message)
        else:
            self.parking.put(channel, message)
        return ""

    def group_send(self, name: bytes, body: bytes, capacities: Capacities) -> None:
        """Put a message into each channel of a group that has room for it."""
        self.group_sent += 1
        group = self.groups.get(name)
        now = self.now
        if group is None:
            if self.returning is not None:
                self.number += 1
                message = Message(body, self.number, now, now + capacities.expiry)
                self.returning.keep(name, message)
            return
        if group.oldest < now - capacities.group_expiry:
            self.expire_members(group, capacities.group_expiry)
        memory = self.memory
        size = limits.MESSAGE + len(body) + limits.ENTRY * len(group.members)
        if not memory.has(size):
            self.drops.add(Drop.MEMORY, capacities.default[1], len(group.members))
            return
        self.number += 1
        message = Message(body, self.number, now, now + capacities.expiry, group)
        if self.returning is not None:
            self.returning.keep(name, message)
        together: dict[Reader, list[int]] = {}
        full: dict[str, int] = {}
        crowded = False
        holders = 0
        for channel in group.members:
            limit = (
                channel.limit if channel.capacities is capacities else channel.capacity(capacities)
            )
            entries = channel.entries
            reader = channel.reader
            size = len(entries)
            if size:
                if size >= limit and self.is_full(channel, capacities):
                    if self._is_abandoned(channel):
                        self.drops.add(Drop.GONE, channel.pattern)
                    else:
                        full[channel.pattern] = full.get(channel.pattern, 0) + 1
                    continue
                if 4 * size >= limit:
                    crowded = True
            if limit <= FEW:
                crowded = True
            if reader is None or reader.crowded or channel.hold or channel.sent != size:
                self.parking.put(channel, message)
                continue
            entries.append(message)
            channel.sent = size + 1
            holders += 1
            ids = together.get(reader)
            if ids is None:
                together[reader] = [channel.id]
            else:
                ids.append(channel.id)
        if holders:
            if not message.holders:
                memory.used += limits.MESSAGE + len(body)
            message.holders += holders
            memory.used += holders * limits.ENTRY
            memory.copies += holders
            self.flying += holders
            self.delivered += holders
        for reader, ids in together.items():
            reader.deliver_to_many(ids, message, crowded)
        for pattern, number in full.items():
            self.drops.add(Drop.FULL, pattern, number)

    @staticmethod
    def _is_abandoned(channel: Channel) -> bool:
        """Say whether nobody will come for a channel: it is not a fault of those who read."""
        return channel.process is not None and not channel.process.connections

    def _refusal(self, channel: Channel, capacities: Capacities, size: int) -> str:
        if len(channel.entries) >= channel.capacity(capacities) and self.is_full(
            channel, capacities
        ):
            return Drop.FULL
        if channel.hold is not None and self.is_full(channel, capacities):
            return Drop.FULL
        process = channel.process
        if (
            process is not None
            and process.waiting >= channel.capacity(capacities)
            and (channel.reader is None or channel.reader.crowded)
        ):
            return Drop.FULL
        return "" if self.memory.has(size) else Drop.MEMORY

    # What was held while another hub took over

    def hold_for(self, channel: Channel, message: Message) -> None:
        """Keep a message, which is counted already, for the client that has it in hand."""
        found = Unclaimed(channel, message, self.now + CLAIMING)
        self.unclaimed[channel.name, message.number] = found

    def claim(self, name: bytes, number: int) -> tuple[Channel, Message] | None:
        """Return what a client has in hand, if it was kept for it."""
        found = self.unclaimed.pop((name, number), None)
        if found is None:
            return None
        self.flying += 1
        return found.channel, found.message

    # Readers

    def listen(self, channel: Channel, reader: Reader, id: int) -> None:
        """Deliver to this reader from now on: one message, or all of a channel with "!"."""
        if not channel.specific:
            channel.demands.append((reader, id))
            self.pump(channel)
            return
        self.parking.stop_reading(channel)
        if self.channels.get(channel.name) is not channel:
            return  # another process has just taken over
        channel.reader = reader
        channel.left = False
        channel.id = id
        channel.kept_until = None
        self.expire(channel)
        self.pump(channel)

    def unlisten(self, channel: Channel) -> None:
        """Take notice that the process that reads a channel with "!" reads it no more."""
        channel.left = True
        self.parking.stop_reading(channel)

    # Groups

    def group_add(self, group_name: bytes, name: bytes, age: float, capacities: Capacities) -> bool:
        """Add a channel to a group. Say whether there was room for it."""
        known = self.channels.get(name)
        group = self.groups.get(group_name)
        began = self.now - age
        if group is None or known not in group.members:
            size = limits.MEMBERSHIP + (0 if group else limits.GROUP)
            if not self.memory.has(size + (0 if known else self.cost(name))):
                return False
        channel = known or self.create(name)
        if group is None:
            group = self.groups[group_name] = Group(group_name, began)
            self.memory.used += limits.GROUP
        group.expiry = capacities.group_expiry
        if channel not in group.members:
            self.join(group, channel, began)
        elif age == 0 or began > group.members[channel]:
            group.members[channel] = began
        if channel.hold is not None:
            self.parking.joined(channel, group)
        return True

    def rejoin(self, group_name: bytes, name: bytes, age: float, capacities: Capacities) -> bool:
        """Add a channel to a group that it was in, and give it what it missed meanwhile."""
        known = self.channels.get(name)
        was_member = known is not None and self.groups.get(group_name) in known.groups
        if not self.group_add(group_name, name, age, capacities):
            return False
        if not was_member and self.returning is not None:
            self.returning.rejoin(group_name, self.channels[name], capacities)
        return True

    def group_discard(self, group_name: bytes, name: bytes) -> None:
        """Remove a channel from a group, if it is in there."""
        channel = self.channels.get(name)
        group = self.groups.get(group_name)
        if channel is not None and group in channel.groups:
            assert group is not None
            self.leave(group, channel)
            if channel.hold is not None:
                self.parking.left(channel, group)
            self.consider(channel)

    # Processes

    def connected(self, process: Process) -> None:
        """Count one more connection of a process."""
        process.connections += 1
        self.absent.pop(process, None)

    def disconnected(self, process: Process) -> None:
        """Count one connection of a process less."""
        process.connections -= 1
        if not process.connections:
            for channel in process.channels.copy():
                if channel.successor is not None:
                    self.parking.succeed(channel)
            process.left = self.now
            self.absent[process] = None

    # Time

    def sweep(self) -> None:
        """Do what time brings with it."""
        for key, unclaimed in list(self.unclaimed.items()):
            if unclaimed.deadline <= self.now:
                del self.unclaimed[key]
                self.give_back(unclaimed.channel, [self.again(unclaimed.message, failed=True)])
        self.parking.sweep()
        if self.returning is not None:
            self.returning.sweep()
            if self.returning.is_over:
                self.returning = None
        for channel in list(self.idle):
            if (
                channel.entries
                or channel.groups
                or channel.reader
                or channel.demands
                or channel.hold
            ):
                del self.idle[channel]
            elif self.now - channel.idle > (_IDLE_BOUND if channel.connection else _IDLE):
                self.parking.forget(channel)
        for process in list(self.absent):
            if self.now - process.left > LINGER:
                del self.absent[process]
                self.processes.pop(process.name, None)
                self.memory.used -= limits.PROCESS
                for channel in list(process.channels):
                    if not self.parking.keep(channel):
                        self.parking.forget(channel)
        self.drops.tell_rest()

    def sweep_all(self) -> None:
        """Drop old messages and memberships wherever they are."""
        for channel in self.channels.values():
            if channel.entries:
                self.expire(channel)
                self.consider(channel)
        for group in list(self.groups.values()):
            if group.oldest < self.now - group.expiry:
                self.expire_members(group, group.expiry)

    def flush(self) -> None:
        """Forget all messages and groups. Those who read keep reading."""
        for channel in list(self.channels.values()):
            for group in list(channel.groups):
                self.leave(group, channel)
            self.clear(channel, Drop.FLUSHED)
            if channel.specific:
                channel.reader = None
            self.consider(channel)
        for unclaimed in self.unclaimed.values():
            self.release(unclaimed.message)
        self.unclaimed.clear()
        self.parking.clear()

    def at_risk(self) -> int:
        """Return how many messages are lost if the hub is killed now: nobody has been given them.

        What was dropped and not reported counts with them.
        """
        drops = self.drops
        unreported = drops.total - drops.reported if drops.reported is not None else 0
        return max(0, self.memory.copies - self.flying) + unreported
