"""Noticing that this process can open no further file: then it can accept no client either.

Asked once in each heartbeat, so it holds for every server: some reset clients then and some let
them wait, some say so and some do not. Sources: accept(2) and open(2) on EMFILE and ENFILE.
"""

import asyncio
import errno
import os
from typing import Any

from chansup.protocol.scoreboard import OUT_OF_DESCRIPTORS, OUT_OF_DESCRIPTORS_NOW

_USED_UP = frozenset({errno.EMFILE, errno.ENFILE})


def look(cells: "memoryview[float]") -> None:
    """Write down whether a descriptor can still be had; the supervisor says it."""
    try:
        descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _USED_UP:
            cells[OUT_OF_DESCRIPTORS] += 1
            cells[OUT_OF_DESCRIPTORS_NOW] = 1.0
            return
    else:
        os.close(descriptor)
    cells[OUT_OF_DESCRIPTORS_NOW] = 0.0


def report_once(loop: asyncio.AbstractEventLoop) -> None:
    """Keep asyncio from printing a traceback each second for clients that it cannot accept."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        of_accept = str(context.get("message", "")).startswith("socket.accept()")
        if not (of_accept and isinstance(error, OSError) and error.errno in _USED_UP):
            loop.default_exception_handler(context)

    if loop.get_exception_handler() is None:
        loop.set_exception_handler(handle)
