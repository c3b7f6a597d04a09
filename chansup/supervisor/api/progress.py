"""The events of one command, on their way to whoever asked for it."""

import asyncio
from collections.abc import AsyncIterator

from chansup.protocol.status import Event


class Progress:
    """Takes events as they happen, gives them out one by one, and ends with the result."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Event] = asyncio.Queue()  # a few per slot: it stays short

    def tell(self, event: Event) -> None:
        """Add an event."""
        self._events.put_nowait(event)

    async def events(self) -> AsyncIterator[Event]:
        """Yield events up to the result."""
        while True:
            event = await self._events.get()
            yield event
            if event.type == "result":
                return
