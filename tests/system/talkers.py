"""Clients on open WebSockets that send numbered messages, and look at what comes back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

PATIENCE = 20.0  # seconds for the last answer


class Talker:
    """One client. The app echoes what it sends."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.sent = 0
        self.heard: list[int] = []
        self.closed: int | None = None  # the close code
        self._stops = False
        self._tasks = [asyncio.create_task(self._hear())]

    def talk(self, pause: float) -> None:
        """Send a message each `pause` seconds from now on."""
        self._tasks.append(asyncio.create_task(self._talk(pause)))

    async def say(self) -> None:
        """Send the next message."""
        with contextlib.suppress(ConnectionClosed):
            await self._connection.send(f"{self.sent}")
            self.sent += 1

    async def _talk(self, pause: float) -> None:
        while not self._stops and self.closed is None:
            await self.say()
            await asyncio.sleep(pause)

    async def _hear(self) -> None:
        try:
            async for message in self._connection:
                self.heard.append(int(message))
        finally:
            self.closed = self._connection.close_code

    async def finish(self) -> None:
        """Send a last message, and wait for its answer."""
        self._stops = True
        await self.say()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while self.closed is None and self.sent - 1 not in self.heard[-3:]:
                    await asyncio.sleep(0.005)

    async def leave(self) -> None:
        """Close the connection."""
        for task in self._tasks[1:]:
            task.cancel()
        await self._connection.close()
        self._tasks[0].cancel()

    @property
    def lost(self) -> int:
        """How many messages were never answered."""
        return self.sent - len(set(self.heard))


class Talkers:
    """All clients of one test."""

    def __init__(self, all_of_them: list[Talker]) -> None:
        self.all = all_of_them

    def talk(self, pause: float) -> None:
        """Have each send a message each `pause` seconds."""
        for one in self.all:
            one.talk(pause)

    async def finish(self) -> None:
        """Have each get its last answer."""
        await asyncio.gather(*(one.finish() for one in self.all))

    @property
    def closed(self) -> list[int]:
        """The close codes of those that are closed."""
        return [one.closed for one in self.all if one.closed is not None]

    @property
    def lost(self) -> list[int]:
        """The numbers of messages without an answer, of each."""
        return [one.lost for one in self.all]

    @property
    def in_order(self) -> bool:
        """Whether each heard its answers in order, and none twice."""
        return all(one.heard == sorted(set(one.heard)) for one in self.all)


@asynccontextmanager
async def talkers(address: str, number: int) -> AsyncIterator[Talkers]:
    """Open `number` WebSockets at `address`."""
    async with asyncio.timeout(60):
        connections = []
        for _ in range(number):
            connection = await connect(f"ws://{address}/", ping_interval=None, open_timeout=30)
            connections.append(Talker(connection))
    found = Talkers(connections)
    try:
        yield found
    finally:
        await asyncio.gather(*(one.leave() for one in found.all), return_exceptions=True)
