"""The first moments of the command `chansup`: what comes before its imports.

Of `chansup run` signals wait from here on for the supervisor, which reads them. Until then any of
them would end it silently, while what it needs is still imported.
"""

import signal
import sys
from typing import NoReturn

_LEFT_ALONE = {
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP),
    *(signal.SIGABRT, signal.SIGSYS),  # faults of the process itself
    *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT),  # job control
}
_WITH_A_VALUE = ("-c", "--config")


def command(arguments: list[str]) -> str:
    """Return which command `arguments` name; "" if none."""
    words = iter(arguments)
    for word in words:
        if word in _WITH_A_VALUE:
            next(words, None)
        elif not word.startswith("-"):
            return word
    return ""


def main() -> NoReturn:
    """Run one command, and exit with its code."""
    if command(sys.argv[1:]) == "run":
        held = set(signal.valid_signals()) - _LEFT_ALONE
        signal.pthread_sigmask(signal.SIG_BLOCK, held)
    from chansup.cli.main import main as run

    run()
