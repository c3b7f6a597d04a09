"""The boot of a process: from spawned to ready, or to too late."""

import asyncio
import time
from pathlib import Path
from typing import Protocol

from chansup.config import readiness
from chansup.supervisor.logs.levels import Level
from chansup.supervisor.process import probe
from chansup.supervisor.process.process import Process
from chansup.waiting import wait_for

LAST_WORDS = 0.5  # seconds for the stack dump of a process that is late, before it is killed
NO_ACCEPT = (
    "it accepts no connections: it must take its socket from descriptor 3 ({fd}) or LISTEN_FDS"
)
UNDEAD = 5.0  # seconds after SIGKILL until a process counts as stuck in the kernel


class Say(Protocol):
    """Writes a line about a process to the log."""

    def __call__(self, text: str, process: Process, level: Level = "info") -> None:
        """Write `text`."""


async def wait(process: Process, say: Say) -> bool:
    """Wait until `process` is ready; False when it ended, or was too late and is killed."""
    asking = asyncio.create_task(_ask(process))
    try:
        decided = await wait_for(process.specification.start_timeout, process.settled)
    finally:
        asking.cancel()
    if not decided:
        await _end_late(process, say)
    if process.ready.is_set() and process.alive:
        say(f"ready after {time.monotonic() - process.started_monotonic:.1f} s", process)
        return True
    return False


async def _ask(process: Process) -> None:
    """Ask a program that does not say by itself when it is ready."""
    asked = readiness.parse(process.specification.ready)
    if isinstance(asked, readiness.Accepts):
        await process.accepts()
        process.became_ready()
    elif not isinstance(asked, readiness.Notify):
        await probe.wait(asked, Path(process.specification.command.directory))
        process.became_ready()


async def _end_late(process: Process, say: Say) -> None:
    limit = process.specification.start_timeout
    why = f": {NO_ACCEPT}" if process.specification.ready == "accepts" else ""
    say(f"not ready within start_timeout = {limit:g} s{why}, killing it", process)
    process.late = True
    if process.specification.launcher:
        process.dump_stacks()
        await wait_for(LAST_WORDS, process.ended)
    process.kill_alone()
    await wait_for(UNDEAD, process.ended)
