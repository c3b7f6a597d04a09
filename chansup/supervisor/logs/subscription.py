"""Lines for those who follow the log."""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence

from chansup.protocol.status import LogLine
from chansup.text import OWN_SLOT

SUBSCRIPTION = 2_000  # lines that may wait for a slow reader


class Subscription:
    """Lines as they come, for one reader: iterate over it with ``async for``.

    It ends with `aclose`, with the log, or when nobody holds it any more.
    """

    def __init__(self, wanted: Callable[[str], bool] | None, limit: int) -> None:
        self.missed = 0  # lines that came while `limit` lines waited
        self._wanted = wanted
        self._limit = limit
        self._waiting: deque[LogLine] = deque()
        self._unreported = 0
        self._news = asyncio.Event()
        self._closed = False

    def publish(self, slot: str, pid: int, lines: Sequence[str], now: float) -> None:
        """Take lines, as far as there is room."""
        if self._closed or (self._wanted is not None and not self._wanted(slot)):
            return
        room = max(self._limit - len(self._waiting), 0)
        if room and self._unreported:
            notice = f"{number_of_lines(self._unreported)} left out here: this reader is too slow"
            self._waiting.append(LogLine(now, OWN_SLOT, os.getpid(), notice))
            self._unreported = 0
        self._waiting.extend(LogLine(now, slot, pid, text) for text in lines[:room])
        lost = max(len(lines) - room, 0)
        self.missed += lost
        self._unreported += lost
        self._news.set()

    def close(self) -> None:
        """Take no more; the iteration stops after the lines that wait."""
        self._closed = True
        self._news.set()

    async def aclose(self) -> None:
        """Take no more, as an asynchronous generator would."""
        self._waiting.clear()
        self.close()

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> LogLine:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()


def number_of_lines(count: int) -> str:
    """Return "1 line", "2 lines", …"""
    return "1 line" if count == 1 else f"{count} lines"
