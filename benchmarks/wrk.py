"""As many requests as a server answers, from wrk, or from a Python client where it is missing."""

import asyncio
import re
import shutil
import time
from pathlib import Path

from benchmarks.process import Process
from tests.load import KeepAlive

CLIENTS = 50  # connections that are kept busy


async def requests_per_second(
    address: str, seconds: float, clients: int = CLIENTS
) -> tuple[float, int]:
    """Keep that many connections busy; return the rate, and how many requests failed."""
    if shutil.which("wrk") is None:
        return await _rate_of_own_client(address, seconds, clients)
    wrk = await Process.start(
        ["wrk", "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", f"http://{address}/"],
        directory=Path("/"),
        environment={},
    )
    try:
        await wrk.wait(seconds + 30)
    finally:
        await wrk.stop()
    said = wrk.tail(100)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if rate is None:
        raise RuntimeError(f"wrk said:\n{said}")
    errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    statuses = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    failed = sum(int(count) for count in errors.groups()) if errors else 0
    return float(rate[1]), failed + (int(statuses[1]) if statuses else 0)


async def _rate_of_own_client(address: str, seconds: float, clients: int) -> tuple[float, int]:
    load = KeepAlive(address, clients, interval=0)
    async with load:
        before, begun = load.result.succeeded, time.monotonic()
        await asyncio.sleep(seconds)
        rate = (load.result.succeeded - before) / (time.monotonic() - begun)
    return rate, load.result.failed
