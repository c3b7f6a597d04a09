"""What the supervisor costs: throughput, memory, processor time, and with 200 children.

Throughput is compared in rounds that alternate between chansup and the same server started by hand
with as many processes, both up at the same time, so that a slow minute of the machine hits both.
"""

import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks import report
from benchmarks.contenders import SERVERS, ByHand, Chansup, Contender, OwnReload, Site
from benchmarks.process import StartError, free_port, memory, processor_seconds
from benchmarks.wrk import CLIENTS, requests_per_second
from tests.load import RequestError, get

MODULE = "benchmarks.cost"
PARTS = ("throughput", "idle", "many")
COMMAND = "chansup status"  # as a person waits for it
SUPERVISOR = "status"  # as the supervisor answers it
LAUNCHER_MEBIBYTES = 60  # that one more process of a server may take
READY_TIMEOUT = 300.0  # seconds for all children


@dataclass(frozen=True)
class Plan:
    """How long, and how many. Times are seconds."""

    rounds: int = 7
    seconds: float = 8.0  # of each round
    idle_seconds: float = 30.0
    idle_children: int = 50
    many_children: int = 200


async def measure(servers: list[str], plan: Plan, parts: list[str]) -> report.Report:
    """Run the chosen parts and report."""
    result = report.Report("Cost of the supervisor")
    if "throughput" in parts:
        for server in servers:
            await _throughput(server, plan, result)
        result.notes.append(
            f"Throughput: {plan.rounds} rounds of {plan.seconds:.0f} s each, alternating, with "
            f"{'wrk' if shutil.which('wrk') else 'a Python client'} and {CLIENTS} connections, "
            "two server processes; medians, smallest and largest in brackets; ratio: the median "
            "of the rounds' ratios."
        )
    if "idle" in parts:
        for kind in ("programs", "launchers"):
            await _idle(kind, plan, result)
        result.notes.append(
            f"Idle: over {plan.idle_seconds:.0f} s with nothing to do but to watch. programs: "
            "`sleep infinity`; launchers: uvicorn processes that send heartbeats."
        )
    if "many" in parts:
        for kind in ("programs", "launchers"):
            await _many(kind, plan, result)
        result.notes.append(
            f"Many children: `{COMMAND}` is the whole command, Python's start included; "
            f"`{SUPERVISOR}` and `/healthz` are the supervisor's part alone, over the control "
            "socket and the admin address. Median [worst], asked in turn; 'starting': until all "
            "children were ready."
        )
    return result


# --- throughput


async def _throughput(server: str, plan: Plan, result: report.Report) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="cost-") as first,
        tempfile.TemporaryDirectory(prefix="cost-") as second,
    ):
        ours: Contender = Chansup(server, _site(first))
        theirs: Contender = (
            ByHand(server, _site(second))
            if server == "daphne"
            else OwnReload(server, _site(second))
        )
        rates: dict[str, list[float]] = {ours.label: [], theirs.label: []}
        errors = 0
        try:
            async with ours, theirs:
                for contender in (ours, theirs):
                    await requests_per_second(contender.address, min(2.0, plan.seconds))
                for number in range(plan.rounds):
                    report.progress(f"{server}: round {number + 1} of {plan.rounds}")
                    # Whoever comes second finds a warmer machine: take turns.
                    order = (ours, theirs) if number % 2 == 0 else (theirs, ours)
                    for contender in order:
                        rate, failed = await requests_per_second(contender.address, plan.seconds)
                        rates[contender.label].append(rate)
                        errors += failed if contender is ours else 0
        except StartError as error:
            report.progress(str(error))
            result.claim(f"{server}: throughput", str(error).splitlines()[0], False)
            return
    mine, others = rates[ours.label], rates[theirs.label]
    ratios = [one / other for one, other in zip(mine, others, strict=True)]
    ratio = statistics.median(ratios)
    result.rows.append(
        {
            "throughput": server,
            "chansup, req/s": _spread(mine),
            "by hand": theirs.label,
            "by hand, req/s": _spread(others),
            "ratio": f"{ratio:.3f} [{min(ratios):.3f}–{max(ratios):.3f}]",
            "failed under chansup": errors,
        }
    )
    result.details[f"throughput, {server}"] = rates
    result.claim(
        f"{server}: throughput through chansup is at least 0.98 of the server by hand",
        f"{ratio:.3f}",
        ratio >= 0.98 and errors == 0,
    )


def _site(root: str) -> Site:
    site = Site(Path(root), import_seconds=0)
    site.releases.deploy("1")
    return site


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} [{min(values):,.0f}–{max(values):,.0f}]"


# --- children


def _with_children(kind: str, count: int, site: Site, extra: str = "") -> Chansup:
    """Return a deployment of `count` children in all, of which one at least serves."""
    admin = f"127.0.0.1:{free_port()}"
    if kind == "launchers":
        site.processes = count
    else:
        site.processes = 1
        extra += f'\n[programs.idle]\ncommand = "sleep infinity"\nprocesses = {count - 1}\n'
    # On a small machine many interpreters start slowly, and that is not what is measured.
    extra += f"\n[rollout]\nstart_timeout = {READY_TIMEOUT}\n"
    return Chansup("uvicorn", site, extra, admin)


def _fits(kind: str, count: int) -> bool:
    if kind == "programs":
        return True
    return psutil.virtual_memory().available > count * LAUNCHER_MEBIBYTES * 2**20


def _ready_children(status: dict[str, Any] | None) -> int:
    return sum(pool["ready"] for pool in status["pools"]) if status else 0


async def _all_ready(contender: Chansup, count: int) -> bool:
    deadline = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < deadline and contender.main.is_running:
        status, _ = await contender.status()
        if _ready_children(status) >= count:
            return True
        await asyncio.sleep(0.5)
    return False


async def _idle(kind: str, plan: Plan, result: report.Report) -> None:
    count = plan.idle_children
    claim = f"supervisor of {count} idle {kind}: at most 40 MB and 0.5 % of a core"
    if not _fits(kind, count):
        report.progress(f"not enough memory for {count} {kind}: left out")
        return
    with tempfile.TemporaryDirectory(prefix="cost-") as root:
        contender = _with_children(kind, count, _site(root))
        report.progress(f"{count} {kind}: idle for {plan.idle_seconds:.0f} s")
        await contender.spawn()
        try:
            if not await _all_ready(contender, count):
                report.progress(contender.main.tail(40))
                result.claim(claim, f"not ready in {READY_TIMEOUT:.0f} s", False)
                return
            await asyncio.sleep(min(5.0, plan.idle_seconds))  # what starting left to do is done
            before, begun = processor_seconds(contender.main.pid), time.monotonic()
            await asyncio.sleep(plan.idle_seconds)
            used = processor_seconds(contender.main.pid) - before
            share = used / (time.monotonic() - begun) * 100
            taken = memory(contender.main.pid)
        finally:
            await contender.stop()
    result.rows.append(
        {
            "idle": f"{count} {kind}",
            "RSS, MB": f"{taken.resident / 1e6:.1f}",
            "PSS, MB": f"{taken.proportional / 1e6:.1f}",
            "processor, % of a core": f"{share:.3f}",
        }
    )
    result.claim(
        claim,
        f"RSS {taken.resident / 1e6:.1f} MB, {share:.3f} %",
        taken.resident <= 40e6 and share <= 0.5,
    )


async def _many(kind: str, plan: Plan, result: report.Report) -> None:
    count = plan.many_children
    claim = f"{count} {kind} become ready, and the supervisor goes on answering"
    if not _fits(kind, count):
        report.progress(f"not enough memory for {count} {kind}: left out")
        return
    with tempfile.TemporaryDirectory(prefix="cost-") as root:
        contender = _with_children(kind, count, _site(root))
        report.progress(f"{count} {kind}: starting")
        await contender.spawn()
        try:
            starting, ready_after = await _ask_until(contender, count, lambda ready: ready)
            if ready_after is None:
                report.progress(contender.main.tail(40))
                result.claim(claim, f"not ready in {READY_TIMEOUT:.0f} s", False)
                return
            end = time.monotonic() + min(10.0, plan.idle_seconds)
            after, _ = await _ask_until(contender, count, lambda _: time.monotonic() > end)
            taken = memory(contender.main.pid)
            begun = time.monotonic()
        finally:
            await contender.stop()
        stopped_in = time.monotonic() - begun
    row: report.Row = {
        "many": f"{count} {kind}",
        "all ready in, s": f"{ready_after:.1f}",
        "stopped in, s": f"{stopped_in:.1f}",
        "RSS, MB": f"{taken.resident / 1e6:.1f}",
        "PSS, MB": f"{taken.proportional / 1e6:.1f}",
    }
    for when, latencies in (("starting", starting), ("after", after)):
        for what, seconds in latencies.items():
            row[f"{what} {when}, ms"] = _milliseconds(seconds)
    result.rows.append(row)
    worst = max([*starting[SUPERVISOR], *after[SUPERVISOR]])
    result.claim(
        f"{count} {kind}: the supervisor answers `status` in 200 ms while they start and after",
        f"worst of {len(starting[SUPERVISOR]) + len(after[SUPERVISOR])}: {worst * 1000:.0f} ms",
        worst <= 0.2,
    )
    whole = statistics.median(after[COMMAND])
    result.claim(
        f"{count} {kind}: the whole command `chansup status` takes at most 200 ms (median)",
        f"{whole * 1000:.0f} ms",
        whole <= 0.2,
    )


async def _ask_until(
    contender: Chansup, count: int, enough: Callable[[bool], bool]
) -> tuple[dict[str, list[float]], float | None]:
    """Ask for the status in every way; return how long each took, and when all was ready."""
    latencies: dict[str, list[float]] = {COMMAND: [], SUPERVISOR: [], "/healthz": []}
    addresses = {
        SUPERVISOR: (f"unix:{contender.runtime_directory}/control.sock", "/status"),
        "/healthz": (contender.admin, "/healthz"),
    }
    deadline = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < deadline and contender.main.is_running:
        for what, (address, path) in addresses.items():
            begun = time.monotonic()
            try:
                await get(address, path, timeout=10)
            except RequestError:
                continue  # not up yet
            latencies[what].append(time.monotonic() - begun)
        status, took = await contender.status()
        if status is not None:
            latencies[COMMAND].append(took)
        ready = _ready_children(status) >= count
        if enough(ready):
            return latencies, time.monotonic() - contender.main.spawned
        await asyncio.sleep(0.1)
    return latencies, None


def _milliseconds(seconds: list[float]) -> str | None:
    if not seconds:
        return None
    return f"{statistics.median(seconds) * 1000:.0f} [{max(seconds) * 1000:.0f}]"


def main() -> int:
    """Run from the command line."""
    options = report.parser(MODULE, __doc__)
    options.add_argument("--servers", nargs="+", choices=SERVERS, default=["uvicorn"])
    options.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options.add_argument("--rounds", type=int, choices=range(1, 51), metavar="1-50")
    options.add_argument("--children", type=int, choices=range(2, 501), metavar="2-500")
    arguments = options.parse_args()
    plan = Plan()
    if arguments.quick:
        plan = Plan(rounds=2, seconds=2.0, idle_seconds=5.0, idle_children=20, many_children=20)
    if arguments.rounds:
        plan = replace(plan, rounds=arguments.rounds)
    if arguments.children:
        plan = replace(plan, many_children=arguments.children)
    return report.run(MODULE, arguments, lambda: measure(arguments.servers, plan, arguments.parts))


if __name__ == "__main__":
    sys.exit(main())
