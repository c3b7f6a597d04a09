"""What a supervisor left behind that was killed together with its guard: ended by the next start.

The run id that marks everything a supervisor starts stands in a file of the runtime directory as
long as the supervisor runs. One that is there at the start is of a supervisor that was killed.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from chansup.protocol.run_mark import GUARD_PROGRAM, VARIABLE

FILE = "run"
_RUN_ID = re.compile(r"[0-9a-f]{32}\Z")
_PATIENCE = 70.0  # seconds; the guard's program gives up sooner


class RunRecord:
    """The file with the run id, in a directory that this supervisor has claimed."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE
        self._run: str | None = None

    def former(self, environ: Mapping[str, str] = os.environ) -> str | None:
        """Return the id of a run that left processes behind, or None.

        A supervisor that itself was started by such a process belongs to them: then it is None.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(descriptor, encoding="ascii", errors="replace") as file:
                run = file.read(64).strip()
        except OSError:
            return None
        if not _RUN_ID.match(run) or environ.get(VARIABLE) == run:
            return None
        return run if _is_marked(run) else None

    def write(self, run: str) -> None:
        """Note the run that begins. Without the file, only a later clean-up is missing."""
        self._run = run
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(self.path, flags, 0o600)
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(f"{run}\n")

    def restore(self) -> list[str]:
        """Write the file again if it vanished; return it then."""
        if self._run is None or os.path.lexists(self.path):
            return []
        self.write(self._run)
        return [str(self.path)] if self.path.exists() else []

    def remove(self) -> None:
        """Remove the file: the run ends, and leaves nothing behind."""
        if self._run is not None:
            self._run = None
            with suppress(OSError):
                self.path.unlink()


def end(run: str) -> None:
    """Kill everything that carries the mark of a run. Blocks until nothing is left."""
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(
            [sys.executable, "-I", "-S", str(GUARD_PROGRAM)],
            input=f"{run}\n".encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            timeout=_PATIENCE,
            check=False,
        )


def _is_marked(run: str) -> bool:
    """Whether any process carries the mark of a run."""
    mark = f"{VARIABLE}={run}".encode()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                if mark in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    return True
    return False
