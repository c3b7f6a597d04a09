"""Bursts of 400 connections over 4 processes: how many times the mean does the fullest hold?

Chance alone does not spread evenly: of 400 connections dealt at random to 4 processes, the fullest
holds 1.10 times the mean on average, and more than 1.2 times in one burst of 25. The simulated line
of the table says what dealing at random gives.
"""

import asyncio
import itertools
import random
import statistics
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import report
from benchmarks.apps.releases import read_body
from benchmarks.contenders import SERVERS, Chansup, Contender, OwnReload, Site
from benchmarks.process import StartError
from tests.load import Answer, burst

MODULE = "benchmarks.balance"
LIMIT = 1.2  # times the mean
SIMULATED_BURSTS = 20_000


@dataclass(frozen=True)
class Plan:
    """How many bursts of how many connections."""

    trials: int = 100
    connections: int = 400
    processes: int = 4


@dataclass
class Outcome:
    """The bursts of one contender."""

    server: str
    contender: str
    fullest: list[float] = field(default_factory=list)  # over the mean, one per burst
    example: list[int] = field(default_factory=list)  # connections per process in the worst burst
    failed: int = 0
    problem: str = ""


async def measure(servers: list[str], plan: Plan, only: str) -> report.Report:
    """Run every contender and report."""
    result = report.Report(
        f"Balance of {plan.connections} connections in a burst over {plan.processes} processes"
    )
    chance = simulate(plan)
    outcomes: list[Outcome] = []
    for server in servers:
        for under_chansup in (True, False):
            if only in ("chansup", "peers") and under_chansup != (only == "chansup"):
                continue
            if server == "daphne" and not under_chansup:
                continue
            outcome = await _run(server, under_chansup, plan)
            outcomes.append(outcome)
            result.rows.append(_row(outcome))
            result.details[outcome.contender] = vars(outcome)
            if under_chansup:
                _claim(result, outcome, chance)
            if outcome.problem:
                report.progress(f"{outcome.contender}: {outcome.problem}")
    result.rows.append(_row(chance))
    for ours, theirs in itertools.pairwise(outcomes):
        if ours.server == theirs.server and ours.fullest and theirs.fullest:
            result.compare(
                f"{ours.server}, fullest over the mean, beside {theirs.contender}",
                statistics.fmean(ours.fullest),
                statistics.fmean(theirs.fullest),
            )
    result.notes.append(
        f"{plan.trials} bursts each. Ratios of the fullest process to the mean of "
        f"{plan.connections / plan.processes:.0f}."
    )
    return result


def simulate(plan: Plan) -> Outcome:
    """Deal connections at random, with a fixed seed."""
    dealer = random.Random(400)
    mean = plan.connections / plan.processes
    outcome = Outcome("", "simulated: dealt at random")
    for _ in range(SIMULATED_BURSTS):
        counts = Counter(dealer.choices(range(plan.processes), k=plan.connections))
        _count(outcome, list(counts.values()), mean)
    return outcome


async def _run(server: str, under_chansup: bool, plan: Plan) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="balance-") as root:
        site = Site(Path(root), processes=plan.processes, import_seconds=0)
        site.releases.deploy("1")
        contender: Contender = Chansup(server, site) if under_chansup else OwnReload(server, site)
        outcome = Outcome(server, contender.label)
        report.progress(contender.label)
        try:
            await contender.start()
        except StartError as error:
            outcome.problem = str(error)
            return outcome
        try:
            for _ in range(plan.trials):
                answers = await burst(contender.address, plan.connections)
                good = [answer for answer in answers if isinstance(answer, Answer)]
                outcome.failed += len(answers) - len(good)
                counts = Counter(read_body(answer.body)[1] for answer in good)
                _count(outcome, list(counts.values()), plan.connections / plan.processes)
                # The server notices the closed connections before the next ones come.
                await asyncio.sleep(0.05)
        finally:
            await contender.stop()
    return outcome


def _count(outcome: Outcome, counts: list[int], mean: float) -> None:
    ratio = max(counts, default=0) / mean
    if ratio > max(outcome.fullest, default=0):
        outcome.example = sorted(counts, reverse=True)
    outcome.fullest.append(ratio)


def _quantile(values: list[float], quantile: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]


def _row(outcome: Outcome) -> report.Row:
    ratios = outcome.fullest or [0.0]
    above = sum(ratio > LIMIT for ratio in ratios) / len(ratios)
    return {
        "contender": outcome.contender,
        "bursts": len(outcome.fullest),
        "mean": f"{statistics.fmean(ratios):.3f}",
        "median": f"{statistics.median(ratios):.3f}",
        "p95": f"{_quantile(ratios, 0.95):.3f}",
        "max": f"{max(ratios):.3f}",
        f"bursts over {LIMIT}": f"{above:.1%}",
        "worst burst": "/".join(str(count) for count in outcome.example) or None,
        "failed": outcome.failed,
    }


def _claim(result: report.Report, outcome: Outcome, chance: Outcome) -> None:
    name = outcome.contender
    ratios = outcome.fullest
    if not ratios:
        result.claim(f"{name}: bursts are spread", outcome.problem.splitlines()[0], False)
        return
    p95 = _quantile(ratios, 0.95)
    above = sum(ratio > LIMIT for ratio in ratios)
    result.claim(
        f"{name}: the fullest process of a burst holds at most {LIMIT} times the mean (p95)",
        f"p95 {p95:.3f}, over {LIMIT} in {above} of {len(ratios)} bursts",
        p95 <= LIMIT and outcome.failed == 0,
    )
    expected = statistics.fmean(chance.fullest)
    mean = statistics.fmean(ratios)
    margin = 3 * statistics.pstdev(chance.fullest) / len(ratios) ** 0.5
    result.claim(
        f"{name}: it spreads at least as evenly as dealing at random (mean, within 3 sigma)",
        f"{mean:.3f} against {expected:.3f} ± {margin:.3f}",
        mean <= expected + margin,
    )


def main() -> int:
    """Run from the command line."""
    options = report.parser(MODULE, __doc__)
    options.add_argument("--servers", nargs="+", choices=SERVERS, default=["uvicorn"])
    options.add_argument("--only", choices=["chansup", "peers", "all"], default="all")
    options.add_argument("--trials", type=int, choices=range(1, 1001), metavar="1-1000")
    arguments = options.parse_args()
    plan = Plan(trials=arguments.trials or (15 if arguments.quick else Plan.trials))
    return report.run(MODULE, arguments, lambda: measure(arguments.servers, plan, arguments.only))


if __name__ == "__main__":
    sys.exit(main())
