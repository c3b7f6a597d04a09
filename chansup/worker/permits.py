"""How many messages a process works on at a time."""

import asyncio
from collections import deque
from collections.abc import Callable


class Permits:
    """So many may be out. Whoever waits for one is served in turn."""

    def __init__(self, total: int, on_exhausted: Callable[[], None]) -> None:
        self.total = total
        self.free = total
        self._on_exhausted = on_exhausted
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Take one, if there is one."""
        if not self.free:
            return False
        self.free -= 1
        if not self.free:
            self._on_exhausted()
        return True

    def give(self) -> None:
        """Give one back."""
        self.free += 1
        self.wake()

    def wake(self) -> None:
        """Let all who wait look again."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    async def change(self) -> None:
        """Wait until one was given back, or somebody called `wake`."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter
