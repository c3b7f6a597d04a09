"""Ends this process although threads continue that nobody waits for."""

import atexit
import os
import sys
import threading
import time
from typing import NoReturn


def is_held_up() -> bool:
    """Whether a thread would keep the process alive after its main thread has ended."""
    return bool(_others())


def _others() -> list[threading.Thread]:
    threads = (thread for thread in threading.enumerate() if not thread.daemon)
    return [thread for thread in threads if thread is not threading.main_thread()]


def leave(code: int, patience: float) -> NoReturn:
    """End the process, with exit code `code`. What the app has registered at `atexit` runs.

    A thread cannot be interrupted, and Python's own end waits for each one. Here they have
    `patience` seconds. The threads of a pool never end by themselves.
    """
    deadline = time.monotonic() + patience
    for thread in _others():
        thread.join(max(0.0, deadline - time.monotonic()))
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # nobody reads it any more
    os._exit(code)
