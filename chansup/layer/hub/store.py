"""Queues and groups. Knows nothing of sockets."""

import math
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from chansup.layer.hub import limits
from chansup.layer.hub.channel import (
    IN_ORDER,
    Channel,
    Group,
    Message,
    Process,
    Reader,
    Returned,
)
from chansup.layer.hub.drops import Drop, Drops
from chansup.layer.hub.limits import Memory
from chansup.layer.hub.observation import Observation
from chansup.layer.hub.parking import Parking
from chansup.layer.hub.returning import Returning
from chansup.layer.policies import MAX_SECONDS, Capacities

FEW = 16  # messages: a channel that holds no more is always called crowded
LINGER = 10.0  # seconds that a process may be without a connection before it counts as gone
CLAIMING = 30.0  # seconds that a client has to say what it holds, after a takeover
_UNKNOWN = 60.0  # the same, of a process that never had one
LENIENCE = 100  # times its capacity a channel may hold while its client moves, and soon after
_IDLE = 2.0  # seconds that a channel is kept for nothing
_IDLE_BOUND = 60.0  # the same, where it belongs to a client's connection
_LOOK = 0.1  # seconds between two looks at all that is in a channel


class NoRoom(Exception):
    """A client needs more than the hub may hold."""

    def __str__(self) -> str:
        return f"the hub holds as much as it may ({limits.MEMORY})"


class Unclaimed(NamedTuple):
    """A message that a client of the former hub has in hand, until it says so."""

    channel: Channel
    message: Message
    deadline: float


class Store:
    """What the hub keeps. `now` is the time of the monotonic clock; whoever calls sets it."""

    def __init__(self, memory: Memory) -> None:
        self.now = time.monotonic()
        self.memory = memory
        self.drops = Drops()
        self.channels: dict[bytes, Channel] = {}
        self.groups: dict[bytes, Group] = {}
        self.processes: dict[bytes, Process] = {}
        self.parking = Parking(self)
        self.returning: Returning | None = None  # who knew another hub, and what is kept for them
        self.flying = 0  # places of messages that were given to clients, and not taken yet
        self.hands_out = True  # what is in ordinary channels; not while another hub takes over
        self.number = 0  # of the last message
        self.sent = 0
        self.group_sent = 0
        self.delivered = 0
        self.redelivered = 0
        self.observation = Observation(self)
        self.unclaimed: dict[tuple[bytes, int], Unclaimed] = {}
        self.memberships = 0
        self.returning_until = 0.0  # then those who knew another hub will have found this one
        self._idle: dict[Channel, None] = {}
        self._absent: dict[Process, None] = {}

    # Messages

    def send(self, name: bytes, body: bytes, capacities: Capacities) -> str:
        """Put a message into a channel, or say why not."""
        size = limits.MESSAGE + len(body)
        known = self.channels.get(name)
        if known is None and not self.memory.has(size + self._cost(name)):
            self.drops.add(Drop.MEMORY, capacities.find(name)[1])
            return Drop.MEMORY
        channel = known or self.create(name)
        reason = self._refusal(channel, capacities, size)
        if reason:
            self.drops.add(reason, channel.pattern)
            if known is None:
                self.forget(channel)
            else:
                self.consider(channel)
            return reason
        self.number += 1
        self.sent += 1
        message = Message(body, self.number, self.now, self.now + capacities.expiry)
        self.put(channel, message)
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
            self._expire_members(group, capacities.group_expiry)
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
                self.put(channel, message)
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
        """Say whether nobody will come for a channel: it is no fault of those who read."""
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

    def is_full(self, channel: Channel, capacities: Capacities) -> bool:
        """Say whether a channel holds as many messages as it may."""
        self.expire(channel)
        held = len(channel.hold.entries) if channel.hold is not None else 0
        limit = channel.capacity(capacities)
        if channel.lenient_until > self.now:
            limit *= LENIENCE
        return len(channel.entries) + held >= limit

    def put(self, channel: Channel, message: Message) -> None:
        """Append a message to a channel, and deliver it if somebody waits."""
        if channel.hold is not None:
            former = channel.hold.predecessor
            if former is not None and message.group in former.groups:
                return  # what the former one does not take, it hands over
            self.keep(message)
            channel.hold.entries.append(message)
            self.parking.release(channel)
            return
        self.keep(message)
        entries = channel.entries
        if entries and message.deadline < entries[-1].deadline:
            channel.soonest = min(channel.soonest, message.deadline)
        if not channel.specific:
            if channel.demands and not channel.entries and self.hands_out:
                self._hand_out(channel, message)
            else:
                channel.entries.append(message)
            return
        channel.entries.append(message)
        self._count_waiting(channel, message, 1)
        self.pump(channel)

    def keep(self, message: Message) -> None:
        """Count a message once more."""
        if not message.holders:
            self.memory.used += limits.MESSAGE + len(message.body)
        message.holders += 1
        self.memory.used += limits.ENTRY
        self.memory.copies += 1

    def release(self, message: Message) -> None:
        """Count a message once less."""
        message.holders -= 1
        self.memory.used -= limits.ENTRY
        self.memory.copies -= 1
        if not message.holders:
            self.memory.used -= limits.MESSAGE + len(message.body)

    def drop(self, message: Message, reason: str, pattern: str) -> None:
        """Let go of a message that stands in no queue any more."""
        self.drops.add(reason, pattern)
        self.release(message)

    def pump(self, channel: Channel) -> None:
        """Deliver what waits, if somebody reads."""
        entries = channel.entries
        if not channel.specific:
            while entries and channel.demands and self.hands_out:
                message = entries.popleft()
                if message.deadline <= self.now:
                    self.drop(message, Drop.EXPIRED, channel.pattern)
                else:
                    self._hand_out(channel, message)
            return
        reader = channel.reader
        if reader is None:
            return
        while channel.sent < len(entries) and not reader.crowded:
            message = entries[channel.sent]
            channel.sent += 1
            self._count_waiting(channel, message, -1)
            self.delivered += 1
            self.flying += 1
            crowded = 4 * len(entries) >= channel.limit or channel.limit <= FEW
            reader.deliver(channel.id, message, crowded)

    def _hand_out(self, channel: Channel, message: Message) -> None:
        reader, id = channel.demands.popleft()
        reader.flight[id] = (channel, message)
        self.delivered += 1
        self.flying += 1
        if message.attempts:
            self.redelivered += 1
        reader.hand(id, message)

    def expire(self, channel: Channel) -> None:
        """Drop what is too old and was not delivered: what was, the client drops."""
        if channel.sent:
            return
        entries = channel.entries
        while entries and entries[0].deadline <= self.now:
            message = entries.popleft()
            self._count_waiting(channel, message, -1)
            self.drop(message, self._why(channel, Drop.EXPIRED), channel.pattern)
        if channel.soonest <= self.now:
            self._expire_behind(channel)

    def _expire_behind(self, channel: Channel) -> None:
        """Drop what is too old and stands behind what came back, or may stay longer."""
        kept: deque[Message] = deque()
        soonest, last = math.inf, 0.0
        in_order = True
        for message in channel.entries:
            if message.deadline <= self.now:
                self._count_waiting(channel, message, -1)
                self.drop(message, self._why(channel, Drop.EXPIRED), channel.pattern)
                continue
            kept.append(message)
            soonest = min(soonest, message.deadline)
            in_order = in_order and message.deadline >= last
            last = message.deadline
        if len(kept) < len(channel.entries):
            channel.entries = kept
        channel.soonest = IN_ORDER if in_order else max(soonest, self.now + _LOOK)

    def give_back(self, channel: Channel, messages: list[Message]) -> None:
        """Put messages, which are counted already, back to the head, the oldest first."""
        if channel.specific:
            for place, message in enumerate(messages, channel.sent):
                channel.entries.insert(place, message)
                self._count_waiting(channel, message, 1)
        else:
            channel = self.channels.get(channel.name) or self.create(channel.name)
            for message in messages:
                self._insert(channel.entries, message)
        channel.soonest = 0.0
        self.pump(channel)
        self.consider(channel)

    @staticmethod
    def _insert(entries: deque[Message], message: Message) -> None:
        """Put a message before all that are younger; others that came back may be older."""
        key = (message.born, message.number)
        place = 0
        for entry in entries:
            if (entry.born, entry.number) >= key:
                break
            place += 1
        entries.insert(place, message)

    def again(self, message: Message, failed: bool) -> Message:
        """Return a message that was held as it goes back: its expiry begins anew."""
        first = message.deadline - message.born
        expiry = message.expiry if isinstance(message, Returned) else first
        found = Returned(
            message.body, message.number, message.born, self.now + expiry,
            message.attempts + failed, expiry,
        )  # fmt: skip
        self.keep(found)
        self.release(message)
        return found

    def put_back(
        self,
        name: bytes,
        body: bytes,
        returned: tuple[int, int, float, int],
        capacities: Capacities,
    ) -> None:
        """Put a message back to the head that a client had taken, and did not use."""
        number, milliseconds, born, attempts = returned
        known = self.channels.get(name)
        size = limits.MESSAGE + len(body) + (0 if known else self._cost(name))
        if known is None and not self.memory.has(size):
            self.drops.add(Drop.MEMORY, capacities.find(name)[1])
            return
        channel = known or self.create(name)
        channel.capacity(capacities)
        if not milliseconds:
            self.drops.add(Drop.EXPIRED, channel.pattern)
        elif not self.memory.has(limits.MESSAGE + len(body)):
            self.drops.add(Drop.MEMORY, channel.pattern)
        else:
            if not number:  # another hub gave it a number
                number = self.number = self.number + 1
            born = max(born, self.now - MAX_SECONDS) if born <= self.now else self.now
            deadline = self.now + milliseconds / 1000
            message = Returned(body, number, born, deadline, attempts, capacities.expiry)
            self.keep(message)
            self.give_back(channel, [message])
            return
        self.consider(channel)

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

    def _count_waiting(self, channel: Channel, message: Message, change: int) -> None:
        if channel.process is not None and message.group is None:
            channel.process.waiting += change

    # Readers

    def listen(self, channel: Channel, reader: Reader, id: int) -> None:
        """Deliver to this reader from now on: one message, or all of a channel with "!"."""
        if not channel.specific:
            channel.demands.append((reader, id))
            self.pump(channel)
            return
        self.stop_reading(channel)
        if self.channels.get(channel.name) is not channel:
            return  # another process has just taken over
        channel.reader = reader
        channel.left = False
        channel.id = id
        channel.kept_until = None
        self.expire(channel)
        self.pump(channel)

    def let_go(self, channel: Channel) -> None:
        """Take notice that the process that reads a channel with "!" reads it no more."""
        channel.left = True
        self.stop_reading(channel)

    def stop_reading(self, channel: Channel) -> None:
        """Take back what was delivered from a channel with "!", and not taken."""
        self.take_back(channel)
        if channel.successor is not None:
            self.parking.succeed(channel)
        self.consider(channel)

    def take_back(self, channel: Channel) -> None:
        """Do the same, and nothing of what follows from it."""
        if channel.process is not None:
            for place in range(channel.sent):
                self._count_waiting(channel, channel.entries[place], 1)
        if channel.sent:
            channel.soonest = 0.0
        self.flying -= channel.sent
        channel.sent = 0
        channel.reader = None

    # Groups

    def group_add(self, group_name: bytes, name: bytes, age: float, capacities: Capacities) -> bool:
        """Add a channel to a group. Say whether there was room for it."""
        known = self.channels.get(name)
        group = self.groups.get(group_name)
        began = self.now - age
        if group is None or known not in group.members:
            size = limits.MEMBERSHIP + (0 if group else limits.GROUP)
            if not self.memory.has(size + (0 if known else self._cost(name))):
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

    def join(self, group: Group, channel: Channel, began: float) -> None:
        """Make a channel a member."""
        group.members[channel] = began
        group.oldest = min(group.oldest, began)
        channel.groups[group] = None
        self.memory.used += limits.MEMBERSHIP
        self.memberships += 1

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

    def leave(self, group: Group, channel: Channel) -> None:
        """End a membership that exists."""
        del group.members[channel]
        del channel.groups[group]
        self.memory.used -= limits.MEMBERSHIP
        self.memberships -= 1
        if not group.members:
            self.groups.pop(group.name, None)
            self.memory.used -= limits.GROUP

    def _expire_members(self, group: Group, group_expiry: float) -> None:
        oldest = self.now
        for channel, began in list(group.members.items()):
            if began < self.now - group_expiry:
                self.leave(group, channel)
                self.consider(channel)
            else:
                oldest = min(oldest, began)
        group.oldest = oldest

    # Channels and processes

    def _cost(self, name: bytes) -> int:
        """Return what a channel takes that does not exist."""
        prefix, mark, _ = name.partition(b"!")
        is_new = mark and _process_key(prefix + mark) not in self.processes
        return limits.CHANNEL + (limits.PROCESS if is_new else 0)

    def for_reader(self, name: bytes, share: float = limits.FOR_CHANNELS) -> Channel:
        """Return a channel that somebody wants to read from. Raises NoRoom."""
        channel = self.channels.get(name)
        if channel is None:
            if not self.memory.has_beyond(self._cost(name), share):
                raise NoRoom
            channel = self.create(name)
        return channel

    def process_of_client(self, name: bytes) -> Process:
        """Return the process that a client is. Raises NoRoom."""
        is_known = _process_key(name) in self.processes
        if not is_known and not self.memory.has_beyond(limits.PROCESS, limits.FOR_PROCESSES):
            raise NoRoom
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
        self._idle[channel] = None
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
            self._absent[process] = None
        return process

    def connected(self, process: Process) -> None:
        """Count one more connection of a process."""
        process.connections += 1
        self._absent.pop(process, None)

    def disconnected(self, process: Process) -> None:
        """Count one connection of a process less."""
        process.connections -= 1
        if not process.connections:
            for channel in process.channels.copy():
                if channel.successor is not None:
                    self.parking.succeed(channel)
            process.left = self.now
            self._absent[process] = None

    def consider(self, channel: Channel) -> None:
        """Forget a channel soon if it is of no use."""
        if channel.entries or channel.groups or channel.reader or channel.demands:
            return
        if self.channels.get(channel.name) is channel:
            channel.idle = self.now
            self._idle[channel] = None

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
        for channel in list(self._idle):
            if (
                channel.entries
                or channel.groups
                or channel.reader
                or channel.demands
                or channel.hold
            ):
                del self._idle[channel]
            elif self.now - channel.idle > (_IDLE_BOUND if channel.connection else _IDLE):
                self.forget(channel)
        for process in list(self._absent):
            if self.now - process.left > LINGER:
                del self._absent[process]
                self.processes.pop(process.name, None)
                self.memory.used -= limits.PROCESS
                for channel in list(process.channels):
                    if not self.parking.keep(channel):
                        self.forget(channel)
        self.drops.tell_rest()

    def sweep_all(self) -> None:
        """Drop old messages and memberships wherever they are."""
        for channel in self.channels.values():
            if channel.entries:
                self.expire(channel)
                self.consider(channel)
        for group in list(self.groups.values()):
            if group.oldest < self.now - group.expiry:
                self._expire_members(group, group.expiry)

    def forget(self, channel: Channel) -> None:
        """Remove a channel and everything in it."""
        if channel.forgotten:
            return
        channel.forgotten = True
        for group in list(channel.groups):
            self.leave(group, channel)
        self.clear(channel)
        for name in (channel.name, *channel.aliases):
            if self.channels.get(name) is channel:
                del self.channels[name]
        if channel.process is not None:
            channel.process.channels.discard(channel)
            channel.process = None
        self.parking.forget(channel)
        self._idle.pop(channel, None)
        self.memory.used -= limits.CHANNEL

    @staticmethod
    def _why(channel: Channel, reason: str) -> str:
        """Return why a message of a channel is dropped: nobody misses what came for who left."""
        return Drop.LEFT if channel.left and not channel.groups else reason

    def clear(self, channel: Channel, reason: str = Drop.GONE) -> None:
        """Drop all that is queued in a channel."""
        if reason == Drop.GONE:
            reason = self._why(channel, reason)
        for place, message in enumerate(channel.entries):
            if place >= channel.sent:
                self._count_waiting(channel, message, -1)
            self.drop(message, reason, channel.pattern)
        channel.entries.clear()
        self.flying -= channel.sent
        channel.sent = 0
        if channel.hold is not None:
            for message in channel.hold.entries:
                self.drop(message, reason, channel.pattern)
            channel.hold.entries.clear()

    def flush(self) -> None:
        """Forget all messages and groups. Those who read go on reading."""
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

    def pending(self) -> Iterator[tuple[Channel, Message]]:
        """Yield each message that waits in a queue."""
        for channel in set(self.channels.values()):
            for message in channel.entries:
                yield channel, message

    def unread(self) -> int:
        """Return how many messages wait for a worker, now or to come; not those of connections."""
        return sum(
            not channel.specific and message.deadline > self.now
            for channel, message in self.pending()
        )

    def at_risk(self) -> int:
        """Return how many messages are lost if the hub is killed now: nobody has been given them.

        What was dropped and not reported counts with them.
        """
        drops = self.drops
        unreported = drops.total - drops.reported if drops.reported is not None else 0
        return max(0, self.memory.copies - self.flying) + unreported

    def statistics(self) -> dict[str, object]:
        """Return what can be counted."""
        patterns = self.observation.by_pattern()
        return {
            "messages_sent": self.sent,
            "group_messages_sent": self.group_sent,
            "messages_delivered": self.delivered,
            "messages_redelivered": self.redelivered,
            "messages_pending": sum(found.messages for found in patterns.values()),
            "oldest_pending": max((found.oldest for found in patterns.values()), default=0.0),
            "pending": patterns,
            "dropped": self.drops.as_dict(),
            "channels": len(self.channels),
            "groups": len(self.groups),
            "memberships": self.memberships,
            "processes": len(self.processes),
            "parked": self.parking.count(),
            "memory": self.memory.used,
            "memory_limit": self.memory.limit,
        }


def _process_key(name: bytes) -> bytes:
    return name.rpartition(b".")[2]
