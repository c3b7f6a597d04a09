"""How many messages a process works on at a time, and whose turn it is to take the next one.

Whoever takes a message must have a consumer for it at once. So a listener waits for its turn while
all are busy, and who had a message last comes last. A listener whose queue is empty may wait for a
message beside others: whoever gets the last permit has the others called back. One whose queue is
known to hold more gets an answer at once, so only as many of these take as there are permits: else
each message would be accompanied by others that only go to and fro.
"""

import asyncio
from collections.abc import Callable


class Turn:
    """A listener, as it waits for its turn."""

    __slots__ = ("expects", "future", "last")

    def __init__(self) -> None:
        self.expects = False  # that there is a message
        self.last = 0  # when it had a message: a number that grows
        self.future: asyncio.Future[None] | None = None


class Permits:
    """So many may be out."""

    def __init__(self, total: int, on_exhausted: Callable[[], None]) -> None:
        self.free = total
        self._on_exhausted = on_exhausted
        self._waiting: list[Turn] = []
        self._holding: list[Turn] = []
        self._expecting = 0  # that take now
        self._clock = 0
        self._closed = False

    async def turn(self, turn: Turn) -> None:
        """Wait until it is the turn of somebody who would take a message."""
        turn.future = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._deal()
        await turn.future

    def ended(self, turn: Turn, *, expects: bool) -> None:
        """Take the news that a take has ended, or continues and is not answered at once."""
        if turn.expects:
            self._expecting -= 1
        turn.expects = expects
        self._deal()

    async def wait(self, turn: Turn) -> None:
        """Take a permit, as soon as there is one: for who has a message and cannot put it back.

        These come first, and wait on when all others are told not to.
        """
        if self.take(turn):
            return
        turn.future = asyncio.get_running_loop().create_future()
        self._holding.append(turn)
        await turn.future

    def take(self, turn: Turn) -> bool:
        """Take a permit, if there is one."""
        if not self.free:
            return False
        self._clock += 1
        turn.last = self._clock
        self.free -= 1
        if not self.free:
            self._on_exhausted()
        return True

    def give(self) -> None:
        """Give one back."""
        self.free += 1
        self._deal()

    def close(self) -> None:
        """Let nobody wait any more."""
        self._closed = True
        self._deal()

    def _deal(self) -> None:
        while self._holding and self.free:
            holder = self._holding.pop(0)
            if holder.future is not None and not holder.future.done():
                self.take(holder)
                holder.future.set_result(None)
        for turn in sorted(self._waiting, key=lambda turn: turn.last):
            room = self.free - (self._expecting if turn.expects else 0)
            if room <= 0 and not self._closed:
                continue
            if turn.expects:
                self._expecting += 1
            self._waiting.remove(turn)
            if turn.future is not None and not turn.future.done():
                turn.future.set_result(None)
