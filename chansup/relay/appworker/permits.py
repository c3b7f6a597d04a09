"""Who may have how many requests in this worker: `concurrency` permits, shared by the interfaces.

Each interface process holds permits and uses them again and again, so that an ordinary request
costs no message. One that has none left says how many it needs. It gets what is free; if nothing
is, those that hold more than it does are asked to give some back. Free of I/O: the methods return
what is to be sent. At no time do the interfaces hold more than `concurrency` permits together.
"""

from collections.abc import Hashable
from typing import NamedTuple


class Order(NamedTuple):
    """A message to one interface: permits granted, or wanted back."""

    holder: Hashable
    granted: int = 0
    recalled: int = 0


class _Holder:
    __slots__ = ("held", "needed", "recalled")

    def __init__(self) -> None:
        self.held = 0
        self.needed = 0
        self.recalled = 0  # of those held, are on their way back


class Permits:
    """The permits of one worker."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.free = concurrency
        self._holders: dict[Hashable, _Holder] = {}

    def join(self, holder: Hashable) -> list[Order]:
        """Take in an interface. It begins with half of what is free."""
        self._holders[holder] = _Holder()
        share = (self.free + 1) // 2
        return [self._grant(holder, share)] if share else []

    def leave(self, holder: Hashable, still_used: int = 0) -> list[Order]:
        """Take the permits of an interface that is gone; `still_used` come back later, by `end`."""
        self.free += self._holders.pop(holder).held - still_used
        return self._distribute()

    def end(self) -> list[Order]:
        """Take back the permit of a request whose interface is gone."""
        self.free += 1
        return self._distribute()

    def need(self, holder: Hashable, number: int) -> list[Order]:
        """Take notice that `number` requests wait in an interface."""
        self._holders[holder].needed = number
        return self._distribute()

    def returned(self, holder: Hashable, number: int) -> list[Order]:
        """Take permits back. Raises ValueError for more than were held."""
        one = self._holders[holder]
        if number > one.held:
            raise ValueError(f"{number} permits came back, {one.held} were given")
        one.held -= number
        one.recalled = max(0, one.recalled - number)
        self.free += number
        return self._distribute()

    def held(self, holder: Hashable) -> int:
        """Return how many permits an interface has."""
        return self._holders[holder].held

    def _grant(self, holder: Hashable, number: int) -> Order:
        one = self._holders[holder]
        one.held += number
        one.needed = max(0, one.needed - number)
        self.free -= number
        return Order(holder, granted=number)

    def _distribute(self) -> list[Order]:
        orders: list[Order] = []
        while self.free:
            needy = [name for name, one in self._holders.items() if one.needed]
            if not needy:
                return orders
            poorest = min(needy, key=lambda name: self._holders[name].held)
            share = max(1, self.free // (2 * len(needy)))
            orders.append(self._grant(poorest, min(share, self.free)))
        return orders + self._recall()

    def _recall(self) -> list[Order]:
        """Ask the rich for what the poor need; one permit for each that needs some, at a time."""
        orders = []
        coming = sum(one.recalled for one in self._holders.values())
        for one in sorted(self._holders.values(), key=lambda one: one.held):
            if not one.needed:
                continue
            if coming:
                coming -= 1
                continue
            rich = max(self._holders, key=lambda name: self._left(name))
            if self._left(rich) > one.held:
                self._holders[rich].recalled += 1
                orders.append(Order(rich, recalled=1))
        return orders

    def _left(self, name: Hashable) -> int:
        return self._holders[name].held - self._holders[name].recalled
