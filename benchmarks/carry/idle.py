"""What idle WebSockets of direct mode take that outlive their process, and what is left of it.

Thousands of them go through a deploy and a kill. Then they are asked whether they still work, and
leave.
"""

import asyncio
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import report
from benchmarks.contenders import Carry, Site, all_gone, kill
from benchmarks.process import free_port
from benchmarks.relay.options import changed
from benchmarks.relay.sockets import EchoSockets
from tests.load import get

MODULE = "benchmarks.carry.idle"
JOURNAL_BAR = 6 * 1024  # bytes of shared memory for one
HOLDER_BAR = 1024  # bytes of the supervisor for one
KEPT_BAR = 4096  # bytes that living processes keep for so many that may come:
SLOTS = 256
HELD = "chansup_carry_held"
JOURNAL = "chansup_carry_journal_bytes"
RESIDENT = "chansup_supervisor_resident_memory_bytes"
FDS = "chansup_supervisor_open_fds"


@dataclass(frozen=True)
class Plan:
    """How many, and for how long. Times are seconds."""

    sockets: int = 10_000
    processes: int = 2
    settle: float = 5.0  # before each look
    patience: float = 60.0


async def measure(plan: Plan) -> report.Report:
    """Open all, move all, close all, and report."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    del soft
    result = report.Report("Direct mode: memory of idle WebSockets that outlive their process")
    with tempfile.TemporaryDirectory(prefix="carry-") as root:
        site = Site(Path(root), plan.processes, 0)
        site.releases.deploy("1")
        contender = Carry("uvicorn", site, admin=f"127.0.0.1:{free_port()}")
        async with contender:
            await _look(contender, plan, result)
    return result


async def _look(contender: Carry, plan: Plan, result: report.Report) -> None:
    before = await _numbers(contender)
    sockets = EchoSockets(contender.address, plan.sockets, rate=0)
    async with sockets:
        await asyncio.sleep(plan.settle)
        opened = await _numbers(contender)
        pids = {slot["pid"] for slot in await _slots(contender)}
        contender.site.releases.deploy("2")
        begun = time.monotonic()
        code = await contender.begin_reload()
        deployed = time.monotonic() - begun
        gone = await all_gone(pids, plan.patience)
        await asyncio.sleep(plan.settle)
        moved = await _numbers(contender)
        await kill(min(slot["pid"] for slot in await _slots(contender)))
        await asyncio.sleep(plan.settle)
        answered = await sockets.ask_all()
        killed = await _numbers(contender)
    report.progress(f"  {sockets.result.summary()}")
    await asyncio.sleep(plan.settle)
    after = await _numbers(contender)
    for when, numbers in (
        ("none open", before),
        (f"{plan.sockets:,} open", opened),
        ("after a deploy", moved),
        ("after a kill", killed),
        ("all closed", after),
    ):
        result.rows.append(
            {
                "when": when,
                "held": int(numbers[HELD]),
                "journals, KiB": numbers[JOURNAL] / 1024,
                "supervisor, MiB": numbers[RESIDENT] / 1024**2,
                "its descriptors": int(numbers[FDS]),
            }
        )
    number = plan.sockets
    journal = (opened[JOURNAL] - before[JOURNAL]) / number
    holder = (opened[RESIDENT] - before[RESIDENT]) / number
    result.claim(
        f"{number:,} idle WebSockets go through a deploy and a kill, and none is closed",
        f"{sockets.result.closed} closed, {answered:,} answered; the deploy took {deployed:.1f} s, "
        f"exit code {code}, old processes gone: {gone}",
        sockets.result.closed == 0 and answered == number and code == 0 and gone,
    )
    result.claim(
        f"one takes at most {JOURNAL_BAR // 1024} KiB of shared memory",
        f"{journal / 1024:.2f} KiB",
        journal <= JOURNAL_BAR,
    )
    result.claim(
        f"one takes at most {HOLDER_BAR // 1024} KiB of the supervisor",
        f"{holder / 1024:.2f} KiB",
        holder <= HOLDER_BAR,
    )
    result.claim(
        f"all is given back when they have left, but for a page for {SLOTS} of them",
        f"{after[HELD]:.0f} held, {after[JOURNAL] / 1024:.0f} KiB of journals, "
        f"{after[FDS] - before[FDS]:+.0f} descriptors",
        after[HELD] == 0 and after[JOURNAL] <= KEPT_BAR * (number / SLOTS + plan.processes),
    )


async def _slots(contender: Carry) -> list[dict[str, int]]:
    status, _ = await contender.status()
    assert status is not None
    slots: list[dict[str, int]] = status["pools"][0]["slots"]  # type: ignore[index]
    return slots


async def _numbers(contender: Carry) -> dict[str, float]:
    await asyncio.sleep(1.1)  # a page is kept for a second
    page = (await get(contender.admin, "/metrics")).body.decode()
    lines = [line.rpartition(" ") for line in page.splitlines() if not line.startswith("#")]
    return {name: float(number) for name, _, number in lines if "{" not in name}


def main() -> int:
    """Run from the command line."""
    options = report.parser(MODULE, __doc__)
    options.add_argument("--sockets", type=int, help="open WebSockets")
    options.add_argument("--processes", type=int, choices=range(2, 9), metavar="2-8")
    arguments = options.parse_args()
    plan = Plan(sockets=200, settle=2.0) if arguments.quick else Plan()
    plan = changed(plan, arguments)
    return report.run(MODULE, arguments, lambda: measure(plan))


if __name__ == "__main__":
    sys.exit(main())
