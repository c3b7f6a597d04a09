"""Waiting for an event, but not for ever."""

import asyncio


async def within(seconds: float, event: asyncio.Event) -> bool:
    """Wait for `event`, at most `seconds`; return whether it happened."""
    try:
        await asyncio.wait_for(event.wait(), max(seconds, 0.0))
    except TimeoutError:
        return event.is_set()
    return True
