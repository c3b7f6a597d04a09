"""Processes that knew a hub that was killed, and have not told this one their groups yet.

A message to a group that is sent meanwhile would not reach them. It goes to the members that are
known, at once, and is kept for those to come: whoever rejoins the group gets what it has missed, in
order. What cannot be kept so long is counted for each member that missed it.
"""

import asyncio
import contextlib
import os
from collections import Counter, deque
from collections.abc import Callable, Mapping

from chansup.layer.hub import limits
from chansup.layer.hub.channel import Channel, Message
from chansup.layer.hub.parking import CATCHING_UP, Parking
from chansup.layer.hub.queues import Queues
from chansup.layer.policies import Capacities
from chansup.protocol.hub_report import Drop

KEPT = 30.0  # seconds that messages are kept for processes that have not returned
_FORGOTTEN = 600.0  # seconds after which it does not matter any more what they missed
_SHARE = 0.25  # of the memory that kept messages may take
_MAX_GROUPS = 10_000  # whose misses are counted


class Returning:
    """Who is to come, and the messages kept for them."""

    def __init__(
        self,
        queues: Queues,
        parking: Parking,
        processes: Mapping[bytes, int],
        ended: Callable[[bytes], None],
    ) -> None:
        """`processes` with their pids: one that has `ended` is not waited for any more."""
        self._queues = queues
        self._parking = parking
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._awaited: dict[bytes, int | None] = {}  # pidfds
        self._kept: deque[tuple[bytes, Message]] = deque()
        self._size = 0
        self._missed: Counter[bytes] = Counter()  # messages that are not kept, by group
        self._began = queues.now
        for process, pid in processes.items():
            self._await(process, pid)

    def _await(self, process: bytes, pid: int) -> None:
        descriptor = None
        if pid:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                self._ended(process)
                return
            except OSError:
                pass  # its time will come
            else:
                self._loop.add_reader(descriptor, self._end, process)
        self._awaited[process] = descriptor

    def __contains__(self, process: object) -> bool:
        return process in self._awaited

    def keep(self, group: bytes, message: Message) -> None:
        """Keep a message for those who will say that they are in that group."""
        if not self._awaited:
            return
        size = limits.MESSAGE + len(message.body)
        memory = self._queues.memory
        if self._size + size > memory.limit * _SHARE or not memory.has(size):
            self._miss(group)
            return
        self._size += size
        self._queues.keep(message)
        self._kept.append((group, message))

    def _miss(self, group: bytes) -> None:
        if group in self._missed or len(self._missed) < _MAX_GROUPS:
            self._missed[group] += 1
        else:
            self._queues.drops.add(Drop.LATE, "*")  # for one member, at least

    def rejoin(self, group: bytes, channel: Channel, capacities: Capacities) -> None:
        """Give a channel what it missed of a group, of which it is a member again."""
        queues = self._queues
        channel.capacity(capacities)
        channel.lenient_until = max(channel.lenient_until, queues.now + CATCHING_UP)
        queues.drops.add(Drop.LATE, channel.pattern, self._missed[group])
        missed = [message for name, message in self._kept if name == group]
        if not missed:
            return
        known = queues.groups[group]
        for message in missed:
            message.group = known
        if channel.hold is not None or channel.reader is not None:
            for message in missed:
                self._parking.put(channel, message)
            return
        for message in missed:
            if queues.is_full(channel, capacities):
                queues.drops.add(Drop.FULL, channel.pattern)
                continue
            queues.keep(message)
            channel.entries.append(message)
        channel.entries = deque(sorted(channel.entries, key=_number))
        channel.soonest = 0.0

    def _end(self, process: bytes) -> None:
        self._ended(process)
        self.returned(process)

    def returned(self, process: bytes) -> None:
        """Take notice that a process has told all its groups, or is not waited for any more."""
        if process not in self._awaited:
            return
        self._stop_watching(self._awaited.pop(process))
        if not self._awaited:
            self._forget_kept()
            self._missed.clear()

    def sweep(self) -> None:
        """Keep nothing for ever."""
        passed = self._queues.now - self._began
        if passed > KEPT:
            self._forget_kept()
        if passed > _FORGOTTEN:
            for process in list(self._awaited):
                self.returned(process)

    def _forget_kept(self) -> None:
        for group, message in self._kept:
            if self._awaited:
                self._miss(group)
            self._queues.release(message)
        self._kept.clear()
        self._size = 0

    @property
    def is_over(self) -> bool:
        """Whether nobody is waited for."""
        return not self._awaited

    def _stop_watching(self, descriptor: int | None) -> None:
        if descriptor is not None:
            self._loop.remove_reader(descriptor)
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def close(self) -> None:
        """Wait for nobody: the hub ends, or another one takes over."""
        if self._awaited:
            self._queues.drops.add(Drop.LATE, "*", len(self._kept))  # for one member each, at least
        for descriptor in self._awaited.values():
            self._stop_watching(descriptor)
        self._awaited.clear()
        self._forget_kept()


def _number(message: Message) -> int:
    return message.number
