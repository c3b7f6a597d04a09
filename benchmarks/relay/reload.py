"""Replace the code under thousands of open WebSockets, and say what each of them noticed.

The sockets echo numbered messages all the while. Beside chansup's relay stand the reloads that
people use today: all of their WebSockets are closed, and wait until they are back.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import report
from benchmarks.apps.releases import read_body
from benchmarks.contenders import Contender, Relay, Site, all_gone, own_reload_of
from benchmarks.process import StartError
from benchmarks.relay.options import add_contenders, changed
from benchmarks.relay.outcome import SOCKETS_NOTE, Outcome
from benchmarks.relay.sockets import EchoSockets
from tests.load import RequestError, get

MODULE = "benchmarks.relay.reload"
BAR = 0.1  # seconds that 99 of 100 sockets may wait at most
BAR_SOCKETS = 1000  # at this many


@dataclass(frozen=True)
class Plan:
    """How much load, and for how long. Times are seconds."""

    sockets: Sequence[int] = (100, 1000, 5000)
    rate: float = 5000.0  # messages per second of all sockets together
    rounds: int = 3
    before: float = 3.0
    after: float = 3.0
    settle_timeout: float = 60.0  # for old processes to go
    import_seconds: float = 1.0
    workers: int = 1


async def measure(carriers: list[str], peers: list[str], plan: Plan) -> report.Report:
    """Run every contender at every number of sockets, and report."""
    result = report.Report("Relay mode: reload under open WebSockets")
    for count in plan.sockets:
        outcomes = [await _run(server, True, count, plan) for server in carriers]
        outcomes += [await _run(server, False, count, plan) for server in peers]
        for outcome in outcomes:
            result.rows.append(_row(outcome))
            result.details[f"{outcome.contender}, {count}"] = vars(outcome)
            for problem in outcome.problems:
                report.progress(f"{outcome.contender}: {problem}")
        for ours in outcomes:
            if ours.is_relay:
                _claim(result, ours)
                for theirs in outcomes:
                    if not theirs.is_relay and theirs.rounds:
                        _compare(result, ours, theirs)
    result.notes += [
        (
            f"{plan.rounds} round(s) each: all sockets together send {plan.rate:,.0f} messages/s "
            f"in bursts of 2; the app takes {plan.import_seconds:g} s to import."
        ),
        SOCKETS_NOTE,
    ]
    return result


async def _run(server: str, is_relay: bool, count: int, plan: Plan) -> Outcome:
    outcome: Outcome | None = None
    for number in range(plan.rounds):
        with tempfile.TemporaryDirectory(prefix="relay-") as root:
            processes = plan.workers if is_relay else plan.workers + 1
            site = Site(Path(root), processes, plan.import_seconds)
            site.releases.deploy("1")
            contender = Relay(server, site) if is_relay else own_reload_of(server, site)
            assert contender is not None, "pip install supervisor"
            outcome = outcome or Outcome(contender.label, server, is_relay, count)
            report.progress(
                f"{contender.label}: {count} sockets, round {number + 1} of {plan.rounds}"
            )
            try:
                pids = await contender.start()
                await _reload(contender, pids, plan, outcome)
            except (StartError, TimeoutError) as error:
                outcome.problems.append(str(error))
                break
            finally:
                await contender.stop()
    assert outcome is not None
    return outcome


async def _reload(contender: Contender, pids: set[int], plan: Plan, outcome: Outcome) -> None:
    sockets = EchoSockets(contender.address, outcome.sockets, rate=plan.rate)
    async with sockets:
        await asyncio.sleep(plan.before)
        outcome.ordinary += sockets.take_waits()
        contender.site.releases.deploy("2")
        begun = time.monotonic()
        code = await contender.begin_reload()
        replaced = await all_gone(pids, plan.settle_timeout) and await _serves(contender)
        outcome.seconds.append(time.monotonic() - begun)
        if code not in (None, 0) or not replaced:
            said = getattr(contender, "reload_output", "")
            outcome.problems.append(
                f"reload exited {code}, replaced: {replaced}\n{said}\n{contender.main.tail(40)}"
            )
        await asyncio.sleep(plan.after)
        outcome.waits += sockets.take_waits()
    outcome.count(sockets)


async def _serves(contender: Contender) -> bool:
    try:
        answer = await get(contender.address)
    except RequestError:
        return False
    return answer.status == 200 and read_body(answer.body)[0] == "2"


def _row(outcome: Outcome) -> report.Row:
    return {
        **outcome.row(),
        "replaced in, s": max(outcome.seconds, default=0.0) if outcome.is_complete else "never",
    }


def _compare(result: report.Report, ours: Outcome, theirs: Outcome) -> None:
    where = f"{ours.contender}, {ours.sockets} sockets, {{}}, beside {theirs.contender}"
    result.compare(where.format("closed"), ours.closed, theirs.closed)
    result.compare(where.format("lost"), ours.lost, theirs.lost)
    result.compare(where.format("pause p99, s"), ours.pauses[1], theirs.pauses[1])


def _claim(result: report.Report, outcome: Outcome) -> None:
    where = f"{outcome.contender}, {outcome.sockets} sockets"
    result.claim(
        f"{where}: a reload closes none, loses, repeats and swaps nothing",
        f"{outcome.closed} closed, {outcome.lost} lost, {outcome.repeated} repeated, "
        f"{outcome.disordered} out of order, {outcome.absent} gone, in {outcome.rounds} reloads",
        outcome.is_complete
        and not any(
            (outcome.closed, outcome.lost, outcome.repeated, outcome.disordered, outcome.absent)
        ),
    )
    if outcome.sockets == BAR_SOCKETS:
        result.claim(
            f"{where}: 99 of 100 pause less than {BAR * 1000:.0f} ms",
            f"{outcome.pauses[1] * 1000:.1f} ms",
            outcome.is_complete and outcome.pauses[1] < BAR,
        )


def main() -> int:
    """Run from the command line."""
    options = report.parser(MODULE, __doc__)
    add_contenders(options)
    options.add_argument("--sockets", nargs="+", type=int, help="open WebSockets")
    options.add_argument("--rate", type=float, help="messages per second of all together")
    options.add_argument("--rounds", type=int, choices=range(1, 21), metavar="1-20")
    options.add_argument("--workers", type=int, choices=range(1, 9), metavar="1-8")
    arguments = options.parse_args()
    plan = Plan(sockets=(100,), rounds=1, before=1.0, after=1.0) if arguments.quick else Plan()
    plan = changed(plan, arguments)
    return report.run(MODULE, arguments, lambda: measure(arguments.servers, arguments.peers, plan))


if __name__ == "__main__":
    sys.exit(main())
