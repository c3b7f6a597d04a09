"""A steady clock for an event loop, finer than the loop's own timers, which know milliseconds."""

import asyncio
import contextlib
import ctypes
import math
import os
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK, TFD_CLOEXEC


class _Setting(ctypes.Structure):
    _fields_ = (
        ("interval_seconds", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("first_seconds", ctypes.c_long),
        ("first_nanoseconds", ctypes.c_long),
    )


class Ticks:
    """Calls `tick` every `interval` seconds, until it is closed. Uses a timerfd(2)."""

    def __init__(self, interval: float, tick: Callable[[], None]) -> None:
        self._tick = tick
        self._loop = asyncio.get_running_loop()
        libc = ctypes.CDLL(None, use_errno=True)
        self._file = libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        # Rounded up: what is due right after an early tick would wait for the next one.
        seconds, nanoseconds = divmod(math.ceil(interval * 1e9), 1_000_000_000)
        setting = _Setting(seconds, nanoseconds, seconds, nanoseconds)
        libc.timerfd_settime(self._file, 0, ctypes.byref(setting), None)
        self._loop.add_reader(self._file, self._on_tick)

    def close(self) -> None:
        """End it."""
        self._loop.remove_reader(self._file)
        os.close(self._file)

    def _on_tick(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._file, 8)  # how many ticks there were; who is late makes up for them
        self._tick()
