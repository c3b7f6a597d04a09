"""The holder: it has a duplicate of each WebSocket that is to outlive its process.

A process says which those are, and when it lets go of one. What was let go of, and all that a dead
process had, is given to others. Nothing here is ever read from a socket or written to it.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Protocol

from chansup.protocol import carry
from chansup.protocol.carry import WITH_DESCRIPTOR, ChildMessage, PacketError
from chansup.supervisor.carry import counters
from chansup.supervisor.carry.carrier import Carrier
from chansup.supervisor.carry.counters import HolderCounters, HolderReport
from chansup.supervisor.carry.giving import Giving
from chansup.supervisor.carry.held import Held, Segment
from chansup.supervisor.carry.holdings import Holdings
from chansup.supervisor.carry.quarantine import MAX_DEATHS
from chansup.supervisor.logs.levels import Level

CRASH_SPREAD = 0.5  # seconds, at most, over which the WebSockets of a dead process are given away
CRASH_HASTE = 4  # times the rate of a deploy: nobody reads from them meanwhile
ROOM_AGAIN = 0.8  # of the limit: below it, the next time that it is reached is worth a line
MAX_FAILURES = 3  # of processes that do not take one
RESTART, TRY_LATER = 1012, 1013  # close codes, as registered with IANA
GRACE = 2.0  # seconds for the end of a process that has closed its channel


class Say(Protocol):
    """Writes a line to the log."""

    def __call__(self, text: str, level: Level = "info") -> None:
        """Write `text`."""


class Holder:
    """That of one site."""

    def __init__(self, say: Say, limit: int) -> None:
        """Hold `limit` WebSockets at most: `limits.most_held`."""
        self.counters = HolderCounters()
        self.handover_rate = 500.0  # WebSockets per second, of a dead process
        self.why_no_crash = ""  # why WebSockets do not survive the death of their process here
        self._say = say
        self._carriers: list[Carrier] = []
        self._holdings = Holdings(limit, self._unneeded)
        self._giving = Giving(self._expired)
        self._graces: dict[Carrier, asyncio.TimerHandle] = {}
        self._is_full = False  # and that was said
        self._is_stopping = False
        self._handlers: dict[type, Callable[..., None]] = {
            carry.Ready: self._ready,
            carry.Segment: self._segment,
            carry.Open: self._open,
            carry.Closed: self._closed,
            carry.Plain: self._plain,
            carry.Parked: self._parked,
            carry.Adopted: self._adopted,
            carry.Resumed: self._resumed,
            carry.Settled: self._settled,
            carry.Failed: self._failed,
            carry.Leaving: self._leaving,
            carry.Left: self._left,
        }

    # Questions

    @property
    def held(self) -> int:
        """How many WebSockets it holds."""
        return self._holdings.number

    @property
    def limit(self) -> int:
        """How many it can hold."""
        return self._holdings.limit

    @property
    def waiting(self) -> int:
        """How many of them have no process."""
        return len(self._giving)

    def report(self) -> HolderReport:
        """Return all numbers, as they are now."""
        memory = self._holdings.memory()
        return HolderReport(self.held, self.waiting, self.limit, memory, deepcopy(self.counters))

    # What the supervisor says

    def add(self, carrier: Carrier) -> None:
        """Hear a process that was started."""
        self._carriers.append(carrier)

        def take(message: ChildMessage, descriptor: int | None) -> None:
            self._take(carrier, message, descriptor)

        carrier.channel.start(take, lambda reason: self._deaf(carrier, reason), self._giving.soon)

    def set_adopters(
        self, adopters: Sequence[Carrier], *, is_hopeful: bool, timeout: float, rate: float
    ) -> None:
        """Give WebSockets to these from now on, which wait up to `timeout` seconds for one.

        `is_hopeful`: there will be one, if there is none. `rate`: WebSockets per second.
        """
        self.handover_rate = rate
        if not self._is_stopping:
            self._giving.set_adopters(adopters, is_hopeful=is_hopeful, timeout=timeout)

    def stop(self) -> None:
        """Have everything end with its process: the site stops."""
        self._is_stopping = True
        for carrier in self._carriers:
            carrier.leave(adoptable=False)
        self._giving.stop()

    def ended(self, carrier: Carrier) -> None:
        """Take the end of a process: what it had goes to others."""
        if carrier not in self._carriers:
            return
        carrier.channel.read_all()  # what it said before it died counts
        carrier.channel.close()
        self._end_grace(carrier)
        self._carriers.remove(carrier)
        for held in carrier.suspects():
            held.deaths += 1
            self._giving.quarantine.leave(held)
            if held.deaths == MAX_DEATHS:
                self._say(f"poison: {held.deaths} processes died with one WebSocket", "error")
        now = asyncio.get_running_loop().time()
        orphans = []
        for held in carrier.sockets.values():
            if carrier.survives_crash and held.survives_crash:
                held.reason, held.orphaned_at = "crash", now
                orphans.append(held)
            else:
                self._end(held, "" if carrier.gives_up else "not_exact")
        orphans += carrier.pending.values()  # still as they were given to it
        carrier.sockets, carrier.pending = {}, {}
        self._holdings.orphan_memory(carrier)
        rate = CRASH_HASTE * self.handover_rate
        self._giving.put(orphans, min(CRASH_SPREAD, len(orphans) / rate))

    def close(self) -> None:
        """Let go of everything."""
        for carrier in list(self._carriers):
            self._abandon(carrier, "")
            self._holdings.orphan_memory(carrier)
        for held in self._giving.take_all():
            self._end(held, "")

    # What processes say

    def _take(self, carrier: Carrier, message: ChildMessage, descriptor: int | None) -> None:
        try:
            if descriptor is None and isinstance(message, WITH_DESCRIPTOR):
                self._has_no_descriptor(carrier, message)
            elif descriptor is None:
                self._handlers[type(message)](carrier, message)
            else:
                self._handlers[type(message)](carrier, message, descriptor)
        except PacketError:
            if descriptor is not None:
                os.close(descriptor)
            raise

    def _ready(self, carrier: Carrier, message: carry.Ready) -> None:
        if carrier.ready is not None:
            raise PacketError("ready, a second time")
        carrier.ready = message
        why = message.why_not
        if not message.survives_crash and why != self.why_no_crash:
            self._say(
                f"{carrier.name}: its WebSockets survive a deploy, but not its death: {why}",
                "warning",
            )
        self.why_no_crash = "" if message.survives_crash else why

    def _segment(self, carrier: Carrier, message: carry.Segment, descriptor: int) -> None:
        self._holdings.add_segment(carrier, message.number, descriptor)

    def _open(self, carrier: Carrier, message: carry.Open, descriptor: int) -> None:
        place = self._holdings.place(carrier, message.slot)
        if self._holdings.is_full:
            os.close(descriptor)
            self._decline(carrier, message)
            return
        carrier.sockets[message.slot] = self._holdings.hold(
            descriptor, place, survives_crash=message.survives_crash
        )

    def _has_no_descriptor(self, carrier: Carrier, message: ChildMessage) -> None:
        if not isinstance(message, carry.Open):
            raise PacketError("no descriptor is left for its memory")
        self._decline(carrier, message)

    def _decline(self, carrier: Carrier, message: carry.Open) -> None:
        self.counters.add(counters.NOT_CARRIED, "descriptors")
        self._say_full()
        carrier.channel.tell(carry.Declined(message.slot, "descriptors"))

    def _closed(self, carrier: Carrier, message: carry.Closed) -> None:
        if (held := carrier.let_go(message.slot)) is not None:
            self._end(held, "")

    def _plain(self, carrier: Carrier, message: carry.Plain) -> None:
        if (held := carrier.let_go(message.slot)) is not None:
            self.counters.add(counters.NOT_CARRIED, message.reason)
            self._end(held, "")

    def _parked(self, carrier: Carrier, message: carry.Parked) -> None:
        if (held := carrier.let_go(message.slot)) is not None:
            held.reason, held.is_clean = "deploy", message.is_clean
            self._orphan(held)

    def _orphan(self, held: Held) -> None:
        held.orphaned_at = asyncio.get_running_loop().time()
        self._giving.put([held])

    def _adopted(self, carrier: Carrier, message: carry.Adopted) -> None:
        place = self._holdings.place(carrier, message.slot)
        try:
            held = carrier.takes(message.ticket, message.slot)
        except KeyError:
            raise PacketError(f"adopted with an unknown ticket, {message.ticket}") from None
        self._holdings.move(held, place)
        held.count += 1
        held.failures = 0
        if message.again and not held.deaths:
            held.deaths = 1  # that which makes it come again
        self.counters.add(counters.ADOPTED, held.reason)
        self.counters.add(counters.LOST, number=message.lost)
        self.counters.add(counters.REDELIVERED, number=message.again)
        self._giving.soon()

    def _resumed(self, carrier: Carrier, message: carry.Resumed) -> None:
        if (held := carrier.sockets.get(message.slot)) is not None:
            pause = asyncio.get_running_loop().time() - held.orphaned_at
            self.counters.pauses.add(pause)

    def _settled(self, carrier: Carrier, message: carry.Settled) -> None:
        carrier.settles(message.slot)
        if (held := carrier.sockets.get(message.slot)) is not None and held.deaths:
            held.deaths = 0
            self._giving.quarantine.leave(held)
            self._giving.soon()

    def _failed(self, carrier: Carrier, message: carry.Failed) -> None:
        slot = carrier.slot_of(message.ticket)
        held = carrier.let_go(slot) if slot is not None else None
        if held is None:
            held = carrier.pending.pop(message.ticket, None)
        if held is None:
            raise PacketError(f"failed with an unknown ticket, {message.ticket}")
        self.counters.add(counters.FAILED, message.reason)
        if message.details:
            self._say(f"{carrier.name}: {message.reason}: {message.details}", "warning")
        if message.reason == "leaving":
            carrier.leaves = True
        else:
            held.failures += 1
        if message.closed:
            self._end(held, "poison" if held.deaths >= MAX_DEATHS else "")
        elif held.failures >= MAX_FAILURES:
            self._end(held, "refused")
        else:
            self._giving.quarantine.leave(held)
            self._giving.put([held])
        self._giving.soon()

    def _leaving(self, carrier: Carrier, message: carry.Leaving) -> None:
        carrier.leaves = True

    def _left(self, carrier: Carrier, message: carry.Left) -> None:
        carrier.leaves = True

    def _deaf(self, carrier: Carrier, reason: str) -> None:
        """Take the end of a channel: of the process itself, most likely; "": it was closed."""
        if reason:
            self._say(f"{carrier.name}: {reason}: its WebSockets end with it", "error")
            self._abandon(carrier, "channel")
        elif carrier.load:
            loop = asyncio.get_running_loop()
            self._graces[carrier] = loop.call_later(GRACE, self._abandon, carrier, "channel")

    def _abandon(self, carrier: Carrier, label: str) -> None:
        """Let go of all that a process has: it continues with plain connections."""
        self._end_grace(carrier)
        carrier.channel.close()
        for held in [*carrier.sockets.values(), *carrier.pending.values()]:
            if label:
                self.counters.add(counters.NOT_CARRIED, label)
            self._end(held, "")
        carrier.sockets.clear()
        carrier.pending.clear()

    def _end_grace(self, carrier: Carrier) -> None:
        timer = self._graces.pop(carrier, None)
        if timer is not None:
            timer.cancel()

    # Letting go

    def _expired(self, held: Held) -> None:
        if self._is_stopping:
            self._end(held, "", RESTART)
        else:
            self._end(held, "no_process", TRY_LATER)

    def _end(self, held: Held, label: str, code: int = 0) -> None:
        """Let go of one for good. `label`: why, if that is the holder's doing."""
        if label:
            self.counters.add(counters.ENDED, label)
        self._giving.quarantine.leave(held)
        self._holdings.end(held, code)
        self._is_full = self._is_full and self.held > ROOM_AGAIN * self.limit

    def _unneeded(self, segment: Segment) -> None:
        for carrier in self._carriers:
            carrier.forget(segment)

    def _say_full(self) -> None:
        if not self._is_full:
            self._is_full = True
            self._say(
                f"{self.held} WebSockets are held, and the limit of descriptors allows no more:"
                " those beyond it end with their process. Raise the hard limit (ulimit -Hn, or"
                " LimitNOFILE= in a systemd unit)",
                "warning",
            )
