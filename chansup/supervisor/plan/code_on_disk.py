"""Whether processes that start now run other code of chansup than the supervisor does."""

import asyncio
from collections.abc import Callable

import chansup
from chansup.supervisor.plan import installed

_INTERVAL = 0.2  # seconds between two looks at the files while many processes start


class CodeOnDisk:
    """The code that this supervisor was started with, and what has taken its place."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._own = self._now = installed.fingerprint()
        self._looked_at = float("-inf")  # loop time

    @property
    def is_other(self) -> bool:
        """Whether it has changed since the supervisor was started."""
        return self._now != self._own

    @property
    def identity(self) -> object:
        """What tells one code from another."""
        return self._now

    def starts(self) -> None:
        """Take notice that a process starts, and with which code."""
        if asyncio.get_running_loop().time() - self._looked_at >= _INTERVAL:
            self.look()

    def look(self) -> None:
        """Look whether it has changed, and log that once."""
        now = asyncio.get_running_loop().time()
        self._looked_at = now
        before, self._now = self._now, installed.fingerprint()
        if self._now != before and self.is_other:
            self._warn(self.difference())

    def difference(self) -> str:
        """Return, for people, that it has changed; empty if it has not."""
        if not self.is_other:
            return ""
        version = installed.version()
        other = "other code" if version in (None, chansup.__version__) else f"version {version}"
        return (
            f"chansup on disk is {other} now, this supervisor runs {chansup.__version__} as it was "
            "at its start: processes that start from now on run the code on disk. `chansup reload` "
            "replaces those that run; a restart of chansup itself replaces the supervisor, too"
        )
