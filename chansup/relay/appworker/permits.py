"""Who may have how many requests in this worker: `concurrency` permits, shared by the interfaces.

Each interface process holds permits and uses them again and again, so that an ordinary request
costs no message. One that has none left says how many it needs. It gets the free ones, the poorest
first. If nothing is, the others are asked for some of theirs, as soon as these are idle: those that
need nothing, until they have none left, and those that are in need, too, until all have the same.
Free of I/O: the methods return the frames to send. At no time do the interfaces hold more than
`concurrency` permits together.
"""

from collections.abc import Hashable
from typing import NamedTuple


class Order(NamedTuple):
    """A message to one interface: permits granted, or wanted back."""

    holder: Hashable
    granted: int = 0
    recalled: int = 0


class _Holder:
    __slots__ = ("held", "needed", "recalled", "served")

    def __init__(self) -> None:
        self.held = 0
        self.needed = 0
        self.recalled = 0  # of those held, are wanted back
        self.served = 0  # when it was granted something last: the less, the longer ago


class Permits:
    """The permits of one worker."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.free = concurrency
        self._holders: dict[Hashable, _Holder] = {}
        self._grants = 0

    def join(self, holder: Hashable) -> list[Order]:
        """Take in an interface. It begins with half of the free ones."""
        self._holders[holder] = _Holder()
        share = (self.free + 1) // 2
        return [self._grant(holder, share)] if share > 0 else []

    def leave(self, holder: Hashable, still_used: int = 0) -> list[Order]:
        """Take the permits of an interface that is gone; `still_used` come back later, by `end`.

        One that used more than it held leaves fewer than none free, until they come back.
        """
        self.free += self._holders.pop(holder).held - still_used
        return self._distribute()

    def end(self) -> list[Order]:
        """Take back the permit of a request whose interface is gone."""
        self.free += 1
        return self._distribute()

    def need(self, holder: Hashable, number: int) -> list[Order]:
        """Take notice that `number` requests wait in an interface, or, by 0, that none does."""
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

    def _grant(self, holder: Hashable, number: int) -> Order:
        one = self._holders[holder]
        one.held += number
        one.needed = max(0, one.needed - number)
        self.free -= number
        self._grants += 1
        one.served = self._grants
        return Order(holder, granted=number)

    def _distribute(self) -> list[Order]:
        orders: list[Order] = []
        while True:
            needy = [pair for pair in self._holders.items() if pair[1].needed]
            if not needy:
                return orders
            if self.free <= 0:
                return orders + self._recall([one for _, one in needy])
            poorest, _ = min(needy, key=lambda pair: (pair[1].held, pair[1].served))
            share = max(1, self.free // (2 * len(needy)))
            orders.append(self._grant(poorest, min(share, self.free)))

    def _recall(self, needy: list[_Holder]) -> list[Order]:
        """Ask everybody who may have something to spare: nobody knows who has it idle."""
        orders = []
        needed = sum(one.needed for one in needy)
        least = min(one.held for one in needy)
        for holder, one in self._holders.items():
            if one.needed:
                # Between two that are in need nothing goes back and forth, except that nobody is
                # to be without any.
                above = one.held - one.recalled - least
                spare = above // 2 if least or above > 1 else above
            else:
                spare = (one.held + 1) // 2 - one.recalled  # and then half of what is left, …
            number = min(spare, needed - one.needed - one.recalled)
            if number > 0:
                one.recalled += number
                orders.append(Order(holder, recalled=number))
        return orders
