"""Ends this process although threads go on that nobody waits for."""

import atexit
import os
import sys
import threading
from typing import NoReturn


def is_held_up() -> bool:
    """Whether a thread would keep the process alive after its main thread has ended."""
    others = (thread for thread in threading.enumerate() if not thread.daemon)
    return any(thread is not threading.main_thread() for thread in others)


def leave(code: int) -> NoReturn:
    """End the process now, with exit code `code`. What the app has registered at `atexit` runs.

    A thread cannot be interrupted, and Python's own end waits for each one.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # nobody reads it any more
    os._exit(code)
