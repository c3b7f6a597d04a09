"""The messages in channels. Knows nothing of sockets, nor of channels that move."""

import math
from collections import deque
from collections.abc import Iterator

from chansup.layer.hub import limits
from chansup.layer.hub.channel import IN_ORDER, Channel, Group, Message, Returned
from chansup.layer.hub.limits import Memory
from chansup.layer.hub.registry import Registry
from chansup.layer.policies import MAX_SECONDS, Capacities
from chansup.protocol.hub_report import Drop

FEW = 16  # messages: a channel that holds no more is always called crowded
LENIENCE = 100  # times its capacity a channel may hold while its client moves, and soon after
_LOOK = 0.1  # seconds between two looks at all that is in a channel


class Queues(Registry):
    """What waits, and how it reaches those who read."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self.number = 0  # of the last message
        self.flying = 0  # places of messages that were given to clients, and not taken yet
        self.hands_out = True  # what is in ordinary channels; not while another hub takes over
        self.delivered = 0
        self.redelivered = 0
        self.returning_until = 0.0  # then those who knew another hub will have found this one

    def put(self, channel: Channel, message: Message) -> None:
        """Append a message to a channel that holds nothing back; deliver it if somebody waits."""
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
        self.count_waiting(channel, message, 1)
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
            self.count_waiting(channel, message, -1)
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

    def is_full(self, channel: Channel, capacities: Capacities) -> bool:
        """Say whether a channel holds as many messages as it may."""
        self.expire(channel)
        held = len(channel.hold.entries) if channel.hold is not None else 0
        limit = channel.capacity(capacities)
        if channel.lenient_until > self.now:
            limit *= LENIENCE
        return len(channel.entries) + held >= limit

    def expire(self, channel: Channel) -> None:
        """Drop messages that are too old and was not delivered: what was, the client drops."""
        if channel.sent:
            return
        entries = channel.entries
        while entries and entries[0].deadline <= self.now:
            message = entries.popleft()
            self.count_waiting(channel, message, -1)
            self.drop(message, self._why(channel, Drop.EXPIRED), channel.pattern)
        if channel.soonest <= self.now:
            self._expire_behind(channel)

    def _expire_behind(self, channel: Channel) -> None:
        """Drop messages that are too old and stands behind what came back, or may stay longer."""
        kept: deque[Message] = deque()
        soonest, last = math.inf, 0.0
        in_order = True
        for message in channel.entries:
            if message.deadline <= self.now:
                self.count_waiting(channel, message, -1)
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
                self.count_waiting(channel, message, 1)
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
        """Return a message that was held as it goes back: its expiry starts again."""
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
        size = limits.MESSAGE + len(body) + (0 if known else self.cost(name))
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

    def take_back(self, channel: Channel) -> None:
        """Take back what was delivered from a channel with "!", and not taken."""
        if channel.process is not None:
            for place in range(channel.sent):
                self.count_waiting(channel, channel.entries[place], 1)
        if channel.sent:
            channel.soonest = 0.0
        self.flying -= channel.sent
        channel.sent = 0
        channel.reader = None

    @staticmethod
    def count_waiting(channel: Channel, message: Message, change: int) -> None:
        """Count a message that its process was not given yet."""
        if channel.process is not None and message.group is None:
            channel.process.waiting += change

    def expire_members(self, group: Group, group_expiry: float) -> None:
        """End the memberships that are too old."""
        oldest = self.now
        for channel, began in list(group.members.items()):
            if began < self.now - group_expiry:
                self.leave(group, channel)
                self.consider(channel)
            else:
                oldest = min(oldest, began)
        group.oldest = oldest

    def remove(self, channel: Channel) -> None:
        """Remove a channel and everything in it."""
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
        self.idle.pop(channel, None)
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
                self.count_waiting(channel, message, -1)
            self.drop(message, reason, channel.pattern)
        channel.entries.clear()
        self.flying -= channel.sent
        channel.sent = 0
        if channel.hold is not None:
            for message in channel.hold.entries:
                self.drop(message, reason, channel.pattern)
            channel.hold.entries.clear()

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
