"""What becomes of a channel whose client moves to another process.

A relayed WebSocket has an id that it keeps while it moves from one app worker to the next. A
channel that was made for it is *bound* to that id. When its reader is gone, by a planned move or by
a crash, the channel keeps its groups and keeps collecting. The channel that the next process
binds to the same id takes over what was collected, in order, and the names:
messages to the former name reach it, too.
"""

from collections import deque

from chansup.layer.hub import limits
from chansup.layer.hub.channel import Channel, Group, Hold, Message
from chansup.layer.hub.queues import Queues
from chansup.protocol.hub_report import Drop

KEPT = 20.0  # seconds that a channel waits for its next process
CONNECTING = 15.0  # seconds that the new process has to set itself up
JOINING = 2.0  # seconds after that which it has to join groups again
CATCHING_UP = 30.0  # seconds that it may have more waiting than it has room for
_ALIASES = 8  # former names that a channel is reached by


def _number(message: Message) -> int:
    return message.number


class Parking:
    """Channels that are bound to connections."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues
        self.bound: dict[bytes, Channel] = {}
        self.holding: dict[Channel, None] = {}
        self._kept: dict[Channel, None] = {}

    def bind(self, connection: bytes, channel: Channel) -> None:
        """Bind a new channel, which takes over from the one that was bound before.

        Bound once more it says that its app is set up: groups that it did not join, it does not
        want, but for a moment's grace.
        """
        if channel.connection not in (None, connection):
            raise ValueError("one channel for two connections")
        former = self.bound.get(connection)
        if former is channel and channel.hold is not None and channel.hold.predecessor is None:
            deadline = self._queues.now + JOINING
            channel.hold.deadline = min(channel.hold.deadline, deadline)
        self.bound[connection] = channel
        channel.connection = connection
        if former is None or former is channel:
            return
        hold = channel.hold = Hold(self._queues.now + JOINING)
        self.holding[channel] = None
        former.lenient_until = channel.lenient_until = self._queues.now + CATCHING_UP
        if former.reader is None and not self._is_awaited(former):
            self._take_over(former, channel)
        else:  # it may yet take what it was sent, or say what it has taken
            former.successor = channel
            hold.predecessor = former

    def _is_awaited(self, channel: Channel) -> bool:
        """Whether its process is still to say that the connection leaves it."""
        if channel.kept_until is not None or channel.process is None:
            return False
        return bool(channel.process.connections) or self._queues.now < self._queues.returning_until

    def park(
        self, connection: bytes, name: bytes, last: int, body: bytes, milliseconds: int
    ) -> None:
        """Keep a channel: its process says that the connection leaves it.

        `last` is the number of the last message that it had taken, `body` of one that it had taken
        and perhaps not dealt with, if there is one.
        """
        queues = self._queues
        channel = queues.channels.get(name)
        if channel is None or channel.connection != connection or channel.name != name:
            return
        queues.take_back(channel)
        for message in [one for one in channel.entries if 0 < one.number <= last]:
            channel.entries.remove(message)
            queues.release(message)
            if channel.process is not None and message.group is None:
                channel.process.waiting -= 1
        if body and queues.memory.has(limits.MESSAGE + len(body)):
            # The number tells the next process, when the hub is replaced, that it has this one.
            message = Message(body, last, queues.now, queues.now + milliseconds / 1000)
            queues.keep(message)
            queues.give_back(channel, [message])
        if channel.successor is not None:
            self.succeed(channel)
        else:
            self._keep(channel, queues.now)

    def keep(self, channel: Channel) -> bool:
        """Say whether to keep a channel though its process has gone."""
        if channel.connection is None or self.bound.get(channel.connection) is not channel:
            return False
        if channel.kept_until is None:
            self._keep(channel, self._queues.now - 10.0)
        return True

    def keep_for(self, channel: Channel, seconds: float) -> None:
        """Keep a channel without a process for a while."""
        self._keep(channel, self._queues.now + seconds - KEPT)

    def _keep(self, channel: Channel, since: float) -> None:
        channel.kept_until = channel.lenient_until = since + KEPT
        self._kept[channel] = None
        if channel.process is not None:
            for message in channel.entries:
                if message.group is None:
                    channel.process.waiting -= 1
            channel.process.channels.discard(channel)
            channel.process = None

    def succeed(self, channel: Channel) -> None:
        """Let the successor take over: the reader is gone."""
        successor, channel.successor = channel.successor, None
        if successor is not None and successor.hold is not None:
            self._take_over(channel, successor)

    def _take_over(self, former: Channel, channel: Channel) -> None:
        queues = self._queues
        hold = channel.hold
        assert hold is not None
        if former.process is not None:
            for message in former.entries:
                if message.group is None:
                    former.process.waiting -= 1
        before = None
        if former.hold is not None:  # moved on before it had joined everything
            former.entries.extend(former.hold.entries)
            former.hold.entries.clear()
            before = former.hold.predecessor
        hold.entries = deque(sorted([*former.entries, *hold.entries], key=_number))
        former.entries = deque()
        hold.predecessor = before
        if before is not None:
            before.successor = channel
        hold.deadline = queues.now + CONNECTING
        channel.pattern = former.pattern
        for group in list(former.groups):
            began = group.members[former]
            if group not in channel.groups:
                hold.unjoined.add(group)
                queues.join(group, channel, began)
            queues.leave(group, former)
        for name in (former.name, *former.aliases):
            if queues.channels.get(name) is former:
                queues.channels[name] = channel
                channel.aliases.append(name)
        for name in channel.aliases[:-_ALIASES]:
            del queues.channels[name]
        del channel.aliases[:-_ALIASES]
        self.forget(former)
        self.release(channel)

    def put(self, channel: Channel, message: Message) -> None:
        """Append a message to a channel, behind what the channel holds back."""
        hold = channel.hold
        if hold is None:
            self._queues.put(channel, message)
            return
        if hold.predecessor is not None and message.group in hold.predecessor.groups:
            return  # what the former one does not take, it hands over
        self._queues.keep(message)
        hold.entries.append(message)
        self.release(channel)

    def stop_reading(self, channel: Channel) -> None:
        """Take back what was delivered from a channel with "!", and not taken."""
        self._queues.take_back(channel)
        if channel.successor is not None:
            self.succeed(channel)
        self._queues.consider(channel)

    def joined(self, channel: Channel, group: Group) -> None:
        """Take notice that the new process has joined a group."""
        if channel.hold is not None:
            channel.hold.unjoined.discard(group)
            self.release(channel)

    def left(self, channel: Channel, group: Group) -> None:
        """Take notice that the new process wants no more of a group."""
        if channel.hold is not None and group in channel.hold.unjoined:
            channel.hold.unjoined.discard(group)
            self._drop(channel, {group})
            self.release(channel)

    def release(self, channel: Channel) -> None:
        """Let go of what need not wait any longer, in order."""
        hold = channel.hold
        if hold is None or hold.predecessor is not None:
            return
        entries, unjoined = hold.entries, hold.unjoined
        freed = []
        while entries and entries[0].group not in unjoined:
            freed.append(entries.popleft())
        if not entries and not unjoined:
            channel.hold = None
            self.holding.pop(channel, None)
        channel.entries.extend(freed)
        if channel.process is not None:
            for message in freed:
                if message.group is None:
                    channel.process.waiting += 1
        self._queues.pump(channel)

    def sweep(self) -> None:
        """End what has waited for too long."""
        now = self._queues.now
        for channel in list(self.holding):
            hold = channel.hold
            if hold is None:
                self.holding.pop(channel, None)
            elif hold.deadline <= now:
                if hold.predecessor is not None:  # its process does not let go
                    self.stop_reading(hold.predecessor)
                    continue
                unjoined = set(hold.unjoined)
                hold.unjoined.clear()
                self._drop(channel, unjoined)
                for group in unjoined:
                    if group in channel.groups:
                        self._queues.leave(group, channel)
                self.release(channel)
        for channel in list(self._kept):
            if channel.kept_until is None:
                del self._kept[channel]
            elif channel.kept_until <= now:
                self.forget(channel)

    def _drop(self, channel: Channel, groups: set[Group]) -> None:
        hold = channel.hold
        assert hold is not None
        kept = [message for message in hold.entries if message.group not in groups]
        for message in hold.entries:
            if message.group in groups:
                self._queues.drop(message, Drop.MOVED, channel.pattern)
        hold.entries.clear()
        hold.entries.extend(kept)

    def forget(self, channel: Channel) -> None:
        """Remove a channel, whatever it waits for."""
        if channel.forgotten:
            return
        self._queues.remove(channel)
        if channel.connection is not None and self.bound.get(channel.connection) is channel:
            del self.bound[channel.connection]
        if channel.successor is not None:
            self.succeed(channel)
        former = channel.hold.predecessor if channel.hold is not None else None
        if former is not None and former.successor is channel:
            former.successor = None
        self.holding.pop(channel, None)
        self._kept.pop(channel, None)

    def clear(self) -> None:
        """Forget messages held for groups that are no more."""
        for channel in list(self.holding):
            if channel.hold is not None:
                channel.hold.unjoined.clear()
                self.release(channel)

    def count(self) -> int:
        """Return how many channels wait for their next process."""
        return len(self._kept)
