"""What a process that the app forks must not keep of the launcher.

`multiprocessing` with its "fork" method and ``os.fork()`` copy signal handlers. With those of the
launcher, a child would not die of ``Process.terminate()``, and asyncio's wakeup descriptor, a
socket that parent and child share, would bring the child's signals to the parent.
"""

import faulthandler
import os
import signal
from types import MethodType
from typing import Any

from chansup.protocol.launch import STACK_DUMP_SIGNAL

# Whose handlers are the launcher's: all others the app has set itself, and keeps.
_LOOPS = {"asyncio", "uvloop", "twisted"}
_SERVERS = {"uvicorn", "granian", "hypercorn", "daphne", "gunicorn"}
_OURS = frozenset({"chansup"} | _LOOPS | _SERVERS)


def let_go_of_signals() -> None:
    """Give every process that this one forks the default actions of signals."""
    os.register_at_fork(after_in_child=_reset)


def _reset() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if _package(signal.getsignal(number)) in _OURS:
            by_default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, by_default)
    faulthandler.unregister(STACK_DUMP_SIGNAL)


def _package(handler: Any) -> str:
    """Return the package that a signal handler belongs to; "" if there is no such handler."""
    if isinstance(handler, MethodType):
        handler = type(handler.__self__)
    module = getattr(handler, "__module__", None)
    return module.partition(".")[0] if isinstance(module, str) else ""
