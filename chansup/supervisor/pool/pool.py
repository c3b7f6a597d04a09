"""N slots that do the same job, and the listening sockets that they share."""

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.plan.specification import Kind, PoolSpecification
from chansup.supervisor.pool.host import AdopterFinder, Publisher
from chansup.supervisor.pool.slot import Slot, SlotHost
from chansup.supervisor.process import accepting
from chansup.supervisor.process.process import Process
from chansup.supervisor.process.resources import Inheritance
from chansup.supervisor.sockets import visitor
from chansup.supervisor.sockets.addresses import Addresses
from chansup.supervisor.sockets.hub_socket import HubSocket
from chansup.supervisor.sockets.listeners import Listeners


class PoolHost(SlotHost, Protocol):
    """What a pool asks of the site."""

    @property
    def addresses(self) -> Addresses:
        """The listening sockets of the interface."""

    @property
    def hub(self) -> HubSocket:
        """The socket of the hub."""

    @property
    def roster(self) -> Publisher:
        """Who tells interface processes of app workers."""

    @property
    def adopters(self) -> AdopterFinder:
        """Who takes the WebSockets of processes that end."""

    @property
    def settle(self) -> float:
        """Seconds for what was accepted to arrive."""


_MOMENT = 2.0  # seconds in which others may have taken every connection
_PAUSE = 0.1  # seconds between two visits


class Pool:
    """The slots of one ``[interface]``, ``[workers.NAME]`` or ``[programs.NAME]``, or the hub."""

    def __init__(self, site: PoolHost, specification: PoolSpecification) -> None:
        self.site = site
        self.name = specification.name
        self.specification = specification
        self.slots: list[Slot] = []
        self._leaving: dict[Slot, asyncio.Task[None]] = {}  # scaled away, still draining
        self.begun = asyncio.Event()  # what it waits for was there; or it was stopped before
        self.stopped = False
        self.available = asyncio.Event()  # it was ready at least once

    # Questions

    @property
    def kind(self) -> Kind:
        """Which table of the config describes it."""
        return self.specification.kind

    @property
    def started(self) -> bool:
        """Whether what it waits for was there."""
        return self.begun.is_set()

    @property
    def desired(self) -> int:
        """How many processes it wants."""
        return len(self.slots)

    @property
    def ready(self) -> int:
        """How many slots are filled by a ready process."""
        return sum(slot.serves for slot in self.slots)

    @property
    def enough(self) -> int:
        """How many ready processes make the pool count as ready: half, rounded up, by default."""
        minimum = self.specification.settings.min_ready
        return min(self.desired, (self.desired + 1) // 2 if minimum is None else minimum)

    @property
    def steers(self) -> bool:
        """Whether new connections can be kept away from single slots."""
        return bool(self.specification.binds) and self.site.addresses.has_choice

    @property
    def settle(self) -> float:
        """Seconds for what was accepted to arrive, before its process is asked to stop."""
        return self.site.settle

    def all_slots(self) -> list[Slot]:
        """Return its slots, with those that leave and still drain."""
        return [*self.slots, *self._leaving]

    def slots_not_of(self, generation: Generation) -> list[Slot]:
        """Return the slots that do not run `generation` yet."""
        return [slot for slot in self.slots if not slot.runs(generation)]

    def first_to_replace(self, slots: Sequence[Slot]) -> Slot:
        """Return which of `slots` goes first.

        Where WebSockets move, the one with the fewest: when the fuller ones are emptied, the new
        processes that these are to be spread over are there, and each WebSocket moves once.
        """
        if not (self.specification.serves or self.specification.carries):
            return slots[0]
        return min(slots, key=lambda slot: slot.current.websockets if slot.current else 0)

    def inheritance(self, slot: Slot, specification: PoolSpecification) -> list[Inheritance]:
        """Return the listening sockets for a process of `slot`."""
        if self.kind == "hub":
            hub = self.site.hub
            return [Inheritance(hub.fileno(), hub.address, steered=False)]
        return [
            Inheritance(sock.fileno(), str(one.address), one.steered)
            for bind in specification.binds
            for one in self.site.addresses.of(bind)
            for sock in [one.socket_of(slot.number)]
        ]

    async def accepted(self, slot: Slot, process: Process) -> None:
        """Return when `process` has accepted a connection on each listener of `slot`."""
        for bind in process.specification.binds:
            for one in self.site.addresses.of(bind):
                if self.ready:
                    await _accepted_beside_others(one, slot.number, process.pid)
                else:
                    await visitor.accepted(one, slot.number)

    # Size

    def resize(self, desired: int, generation: Generation) -> None:
        """Add slots, or begin to stop those that are too many: `wait_drained` waits for them.

        Raises AddressError when a listener for a new slot cannot be had.
        """
        if self.stopped:  # by a rollout, while somebody wanted to scale it
            return
        if self.specification.binds:
            self.site.addresses.ensure(desired)
        self.begun.set()
        while len(self.slots) < desired:
            slot = Slot(self, len(self.slots))
            self.slots.append(slot)
            slot.start(generation)
        leaving = self.slots[desired:]
        del self.slots[desired:]
        self.changed()  # away from those that leave, before they are asked to
        for slot in leaving:
            self._leaving[slot] = asyncio.create_task(slot.stop())

    async def wait_drained(self) -> None:
        """Wait until the slots that were taken away are empty."""
        while self._leaving:
            await asyncio.wait(self._leaving.values())
            self._leaving = {slot: task for slot, task in self._leaving.items() if not task.done()}
        if self.specification.binds:
            self.site.addresses.shrink(len(self.slots))

    async def stop(self) -> None:
        """Stop every slot, for good; returns when all processes are gone."""
        self.stopped = True
        self.begun.set()
        await asyncio.gather(*(slot.stop() for slot in [*self.slots, *self._leaving]))

    # Where new connections go

    def changed(self) -> None:
        """Look again at which slots are ready, and send connections and requests to them."""
        if self.started and self.ready >= self.desired:
            self.available.set()
        if self.kind == "interface":
            self.site.addresses.steer(self.slots)
            self.site.adopters.look()
        self.site.roster.changed()

    async def published(self) -> None:
        """Wait until interface processes have been told what changed."""
        await self.site.roster.published()

    def tell_leaving(self, process: Process) -> None:
        """Tell `process` what becomes of the WebSockets that it has."""
        self.site.adopters.tell_leaving(process)


async def _accepted_beside_others(listeners: Listeners, slot: int, pid: int) -> None:
    """Return when `pid`, or a child of it, accepts beside others that have the same listener.

    It has taken a connection. Or others were faster each time, and it waits for the next one; where
    the kernel does not let us see that, it has run for a moment.
    """
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while not await visitor.taken(listeners, slot, partial(accepting.has, pid)):
        if loop.time() - begun >= _MOMENT:
            inode = os.fstat(listeners.socket_of(slot).fileno()).st_ino
            if accepting.waits(pid, inode) is not False:
                return
        await asyncio.sleep(_PAUSE)
