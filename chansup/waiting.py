"""Waiting for an event, but not for ever."""

import asyncio

STEP = 1.0  # seconds after which the time that went by is looked at


async def wait_for(seconds: float, event: asyncio.Event) -> bool:
    """Wait for `event`, at most `seconds`; return whether it happened.

    If the supervisor was frozen meanwhile, that counts as one step and a half at most: whoever is
    waited for is not blamed.
    """
    loop = asyncio.get_running_loop()
    left = max(seconds, 0.0)
    while not event.is_set() and left > 0:
        step = min(left, STEP)
        begun = loop.time()
        try:
            # Not wait_for: on Python 3.11 it loses a cancellation that meets the event.
            async with asyncio.timeout(step):
                await event.wait()
        except TimeoutError:
            left -= min(loop.time() - begun, 1.5 * step)
    return event.is_set()
