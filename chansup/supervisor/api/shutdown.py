"""The end of a run: who asked for it, how urgent it is, and with which exit code."""

import asyncio

from chansup.errors import ExitCode


class Shutdown:
    """Asked for once, hurried at most once more, done in the end."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()
        self.done = asyncio.Event()  # nothing but the supervisor itself is left
        self.exit_code = ExitCode.OK

    def ask(self, exit_code: ExitCode = ExitCode.OK) -> bool:
        """Ask for it; False if somebody did before."""
        if self.asked.is_set():
            return False
        self.exit_code = exit_code
        self.asked.set()
        return True
