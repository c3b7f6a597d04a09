"""Replace, or kill, processes of direct mode under thousands of open WebSockets.

The sockets echo numbered messages all the while, and say what each of them noticed.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import report
from benchmarks.contenders import Carry, Site, all_gone, kill
from benchmarks.process import StartError
from benchmarks.relay.options import changed
from benchmarks.relay.outcome import SOCKETS_NOTE, Outcome
from benchmarks.relay.sockets import EchoSockets

MODULE = "benchmarks.carry.moves"
KINDS = ("reload", "kill")
BARS = {("reload", 1000): 0.06, ("reload", 5000): 0.1, ("kill", 1000): 0.5}  # seconds, of 99 %


@dataclass(frozen=True)
class Plan:
    """How much load, and for how long. Times are seconds."""

    sockets: Sequence[int] = (100, 1000, 5000)
    kinds: Sequence[str] = KINDS
    rate: float = 2000.0  # messages per second of all sockets together
    rounds: int = 3
    processes: int = 2
    before: float = 3.0
    after: float = 3.0
    settle_timeout: float = 60.0  # for old processes to go
    import_seconds: float = 1.0


async def measure(plan: Plan) -> report.Report:
    """Do everything at every number of sockets, and report."""
    result = report.Report("Direct mode: WebSockets that outlive their process")
    for kind in plan.kinds:
        for count in plan.sockets:
            outcome = await _run(kind, count, plan)
            result.rows.append({"what": kind, **outcome.row()})
            result.details[f"{kind}, {count}"] = vars(outcome)
            for problem in outcome.problems:
                report.progress(f"{kind}: {problem}")
            _claim(result, kind, outcome)
    result.notes += [
        (
            f"{plan.rounds} round(s) each, {plan.processes} processes: all sockets together send "
            f"{plan.rate:,.0f} messages/s in bursts of 2; the app takes "
            f"{plan.import_seconds:g} s to import. A kill is of one process."
        ),
        SOCKETS_NOTE,
    ]
    return result


async def _run(kind: str, count: int, plan: Plan) -> Outcome:
    outcome = Outcome("chansup, uvicorn", "uvicorn", False, count)
    for number in range(plan.rounds):
        with tempfile.TemporaryDirectory(prefix="carry-") as root:
            site = Site(Path(root), plan.processes, plan.import_seconds)
            site.releases.deploy("1")
            contender = Carry("uvicorn", site)
            report.progress(f"{kind}: {count} sockets, round {number + 1} of {plan.rounds}")
            try:
                pids = await contender.start()
                await _move(kind, contender, pids, plan, outcome)
            except (StartError, TimeoutError) as error:
                outcome.problems.append(f"{error}\n{contender.main.tail(40)}")
                break
            finally:
                await contender.stop()
    return outcome


async def _move(kind: str, contender: Carry, pids: set[int], plan: Plan, outcome: Outcome) -> None:
    sockets = EchoSockets(contender.address, outcome.sockets, rate=plan.rate)
    async with sockets:
        await asyncio.sleep(plan.before)
        outcome.ordinary += sockets.take_waits()
        begun = time.monotonic()
        if kind == "kill":
            victim = min(pids)
            await kill(victim)
            replaced = await all_gone({victim}, plan.settle_timeout)
        else:
            contender.site.releases.deploy("2")
            replaced = await contender.begin_reload() == 0
            replaced = await all_gone(pids, plan.settle_timeout) and replaced
        outcome.seconds.append(time.monotonic() - begun)
        if not replaced:
            said = getattr(contender, "reload_output", "")
            outcome.problems.append(f"not replaced\n{said}\n{contender.main.tail(40)}")
        await asyncio.sleep(plan.after)
        outcome.waits += sockets.take_waits()
        status, _ = await contender.status()
    outcome.count(sockets)
    if status is not None:
        report.progress(f"  {status['pools'][0]['websockets']}")  # type: ignore[index]


def _claim(result: report.Report, kind: str, outcome: Outcome) -> None:
    where = f"{kind}, {outcome.sockets} sockets"
    may_lose = kind == "kill"
    result.claim(
        f"{where}: none is closed, no message comes twice or in another order",
        f"{outcome.closed} closed, {outcome.repeated} repeated, {outcome.disordered} out of order, "
        f"{outcome.absent} gone, in {outcome.rounds} rounds",
        outcome.is_complete
        and not any((outcome.closed, outcome.repeated, outcome.disordered, outcome.absent)),
    )
    result.claim(
        f"{where}: {'at most one message of a socket' if may_lose else 'no message'} is lost",
        f"{outcome.lost} lost, {outcome.lost_of_one} of one socket at most",
        outcome.is_complete and outcome.lost_of_one <= may_lose,
    )
    bar = BARS.get((kind, outcome.sockets))
    if bar is not None:
        result.claim(
            f"{where}: 99 of 100 pause less than {bar * 1000:.0f} ms",
            f"{outcome.pauses[1] * 1000:.1f} ms",
            outcome.is_complete and outcome.pauses[1] < bar,
        )


def main() -> int:
    """Run from the command line."""
    options = report.parser(MODULE, __doc__)
    options.add_argument("--sockets", nargs="+", type=int, help="open WebSockets")
    options.add_argument("--kinds", nargs="+", choices=KINDS)
    options.add_argument("--rate", type=float, help="messages per second of all together")
    options.add_argument("--rounds", type=int, choices=range(1, 21), metavar="1-20")
    options.add_argument("--processes", type=int, choices=range(1, 9), metavar="1-8")
    arguments = options.parse_args()
    plan = Plan(sockets=(100,), rounds=1, before=1.0, after=1.0) if arguments.quick else Plan()
    plan = changed(plan, arguments)
    return report.run(MODULE, arguments, lambda: measure(plan))


if __name__ == "__main__":
    sys.exit(main())
