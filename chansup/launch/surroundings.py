"""What the launchers of workers do around the app: the log of chansup, the event loop."""

import asyncio
import logging
import sys
from collections.abc import Callable


def log_to_stderr() -> None:
    """Write what chansup has to say; what the app logs is the app's business."""
    log = logging.getLogger("chansup")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.WARNING)
    log.propagate = False


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return how to make the fastest event loop that there is."""
    try:
        import uvloop
    except ImportError:  # the app's environment may be without it
        return None
    return uvloop.new_event_loop
