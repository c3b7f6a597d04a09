"""The processes at the other end of a layer, and what they say."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

PATIENCE = 120.0  # seconds for whatever one of them is to say


class Other:
    """A process at the other end."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def says(self, patience: float = PATIENCE) -> Any:
        """Return what it prints next. Raises TimeoutError, and EOFError when it has ended."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), patience)
        if not line:
            raise EOFError("a process of the benchmark has ended")
        return json.loads(line)

    async def tell(self, value: Any) -> None:
        """Write a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value).encode() + b"\n")
        await self._process.stdin.drain()


@contextlib.asynccontextmanager
async def other(name: str, address: str, *job: object) -> AsyncIterator[Other]:
    """Run the other process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.layer.member", name, address, *map(str, job)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Other(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def closed(layer: Any) -> None:
    """Close a layer, whatever its kind calls that."""
    close = getattr(layer, "close", None) or getattr(layer, "close_pools", None)
    with contextlib.suppress(Exception):
        await close()
