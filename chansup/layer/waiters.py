"""Futures that somebody may have ceased to wait for."""

import asyncio
from typing import Any


def wake(waiter: "asyncio.Future[Any]") -> None:
    """Let whoever waits continue."""
    if not waiter.done():
        waiter.set_result(None)


def fail(waiter: "asyncio.Future[Any]", error: BaseException) -> None:
    """Let whoever waits know that it was in vain."""
    if not waiter.done():
        waiter.set_exception(error)
