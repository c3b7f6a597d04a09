"""Giving WebSockets to processes, at the end of each turn of the loop in which that makes sense."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import count

from chansup.protocol import carry
from chansup.supervisor.carry.adoption import Adoptions
from chansup.supervisor.carry.carrier import Carrier
from chansup.supervisor.carry.held import Held
from chansup.supervisor.carry.quarantine import MAX_DEATHS, Quarantine

_POISON = 1011  # close code: RFC 6455, section 7.4.1


class Giving:
    """Those that wait, and the messages that give them away."""

    def __init__(self, expired: Callable[[Held], None]) -> None:
        """`expired` is called with one for which there is no process."""
        self.quarantine = Quarantine()
        self._adoptions: Adoptions[Carrier] = Adoptions(self.quarantine, self._give, expired)
        self._tickets = count(1)
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = False  # at the end of this turn

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._adoptions)

    def set_adopters(
        self, adopters: Sequence[Carrier], *, is_hopeful: bool, timeout: float
    ) -> None:
        """Give to these from now on; see `Holder.set_adopters`."""
        adoptions = self._adoptions
        adoptions.timeout, adoptions.is_hopeful = timeout, is_hopeful
        adoptions.adopters = [one for one in adopters if one.can_adopt]
        self.soon()

    def stop(self) -> None:
        """Give nothing to anybody any more: who waits has waited too long."""
        self.set_adopters((), is_hopeful=False, timeout=0.0)

    def put(self, orphans: Sequence[Held], spread: float = 0.0) -> None:
        """Have all of them go elsewhere within `spread` seconds."""
        self._adoptions.put(orphans, asyncio.get_running_loop().time(), spread)
        self.soon()

    def take_all(self) -> list[Held]:
        """Return all that wait, and forget them; nothing is given any more."""
        if self._timer is not None:
            self._timer.cancel()
        return self._adoptions.take_all()

    def soon(self) -> None:
        """Look at what waits, at the end of this turn."""
        if not self._is_due and len(self._adoptions):
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._is_due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        adoptions = self._adoptions
        adoptions.adopters = [one for one in adoptions.adopters if one.can_adopt]
        again = adoptions.run(loop.time())
        if again is not None:
            self._timer = loop.call_later(again, self._run)

    def _give(self, held: Held, carrier: Carrier) -> bool:
        segment = held.segment
        if not carrier.knows(segment):
            if not carrier.channel.offer(carry.Memory(segment.key), segment.descriptor):
                return False
            carrier.learns(segment)
        ticket = next(self._tickets)
        close = _POISON if held.deaths >= MAX_DEATHS else 0
        order = carry.Adopt(ticket, segment.key, held.index, held.reason, held.count + 1, close)
        if not carrier.channel.offer(order, held.descriptor):
            return False
        carrier.pending[ticket] = held
        return True
