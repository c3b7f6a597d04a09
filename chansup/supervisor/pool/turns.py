"""The order in which slots whose processes boot at the same time are handed over."""

import asyncio
from types import TracebackType


class Turn:
    """The place of one slot. It is given on when the slot is left, at the latest."""

    def __init__(self, before: "Turn | None") -> None:
        self._before = before
        self._given = asyncio.Event()

    async def come(self) -> None:
        """Wait until those that took their place before have given it on."""
        if self._before is not None:
            await self._before._given.wait()
            self._before = None

    def give(self) -> None:
        """Let the next one continue, as soon as it was one's own turn."""
        self._given.set()

    def __enter__(self) -> "Turn":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.give()


class Turns:
    """Places in a row."""

    def __init__(self) -> None:
        self._last: Turn | None = None

    def take(self) -> Turn:
        """Return the next place."""
        self._last = Turn(self._last)
        return self._last
