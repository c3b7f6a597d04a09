"""The process's end of a channel, played by the test: it says what such a process would say."""

import asyncio
import os
import socket
from collections.abc import Callable

from chansup.protocol import carry
from chansup.protocol.carry import ChildMessage, HolderMessage
from chansup.supervisor.carry.carrier import Carrier
from chansup.supervisor.carry.holder import Holder

PATIENCE = 5.0  # seconds


class Child:
    """A process that carries WebSockets, without a process."""

    def __init__(self, holder: Holder, name: str = "one") -> None:
        self.holder = holder
        self.carrier = Carrier(name)
        self.sock = self.carrier.channel.theirs.dup()
        self.sock.setblocking(False)
        self.carrier.channel.theirs.close()
        self.heard: list[HolderMessage] = []
        self.sockets: dict[int, int] = {}  # descriptors that came with an Adopt, by ticket
        self.slots: set[int] = set()  # in use
        self._answered: set[int] = set()  # tickets
        holder.add(self.carrier)

    def say(self, message: ChildMessage, descriptor: int | None = None) -> None:
        carry.send(self.sock, message, descriptor)

    def begin(self, *, survives_crash: bool = True) -> None:
        self.say(carry.Ready(survives_crash, "" if survives_crash else "counters differ"))
        memory = os.memfd_create("arena")
        os.ftruncate(memory, 4096)
        self.say(carry.Segment(0), memory)
        os.close(memory)

    def open(self, slot: int) -> socket.socket:
        """Have a WebSocket held; return its client."""
        client, server = socket.socketpair()
        client.setblocking(False)
        self.slots.add(slot)
        self.say(carry.Open(slot), server.fileno())
        server.close()
        return client

    def listen(self) -> list[HolderMessage]:
        """Return all that it was told so far."""
        while True:
            try:
                message, descriptor = carry.receive_from_holder(self.sock)
            except BlockingIOError:
                return self.heard
            self.heard.append(message)
            if isinstance(message, carry.Adopt):
                assert descriptor is not None
                self.sockets[message.ticket] = descriptor
            elif descriptor is not None:
                os.close(descriptor)

    def orders(self) -> list[carry.Adopt]:
        """Return what it is to adopt."""
        return [one for one in self.listen() if isinstance(one, carry.Adopt)]

    def adopt(self, order: carry.Adopt, slot: int, *, again: int = 0) -> None:
        self.say(carry.Adopted(order.ticket, slot, again=again))

    def adopt_all(self) -> None:
        """Take all that it was given, as a process that works."""
        for order in self.orders():
            if order.ticket not in self._answered:
                self._answered.add(order.ticket)
                slot = next(slot for slot in range(1024) if slot not in self.slots)
                self.slots.add(slot)
                self.adopt(order, slot)
                self.say(carry.Resumed(slot))
                self.say(carry.Settled(slot))

    def park_all(self) -> None:
        """Let go of all that it has."""
        self.adopt_all()
        for slot in self.slots:
            self.say(carry.Parked(slot))
        self.slots.clear()

    def die(self) -> None:
        self.sock.close()
        self.let_go()
        self.holder.ended(self.carrier)

    def let_go(self) -> None:
        for descriptor in self.sockets.values():
            os.close(descriptor)
        self.sockets.clear()


async def until(seen: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not seen():
            await asyncio.sleep(0.001)


def is_open(client: socket.socket) -> bool:
    """Whether somebody still has the other end of a client's connection."""
    try:
        return client.recv(100) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
