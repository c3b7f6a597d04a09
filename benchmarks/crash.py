"""Kill one of two processes with SIGKILL under load.

Measured from the kill: when the parent says so, when the replacement exists, when it gives its
first answer, and what was lost beyond the requests that the killed process held. The boot time to
subtract is measured beside it: the same server started by hand under the same load.
"""

import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import report
from benchmarks.apps.releases import read_body
from benchmarks.contenders import SERVERS, ByHand, Chansup, Contender, OwnReload, Site, kill
from benchmarks.process import StartError
from tests.load import FreshConnections, HttpResult, KeepAlive, WebSockets

MODULE = "benchmarks.crash"
PEERS = ("uvicorn", "granian", "gunicorn")  # hypercorn exits when a worker does
RECOVERY_TIMEOUT = 30.0  # seconds; nothing took over


@dataclass(frozen=True)
class Plan:
    """How much load, and how often. Times are seconds."""

    rate: float = 150.0
    clients: int = 20
    websockets: int = 100
    before: float = 2.0
    after: float = 2.0
    rounds: int = 5
    import_seconds: float = 1.0


@dataclass
class Outcome:
    """What one contender did, one entry per kill. Times are seconds since the kill."""

    contender: str
    noticed: list[float] = field(default_factory=list)
    respawned: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    boots: list[float] = field(default_factory=list)  # by hand, under the same load
    held: int = 0  # failed requests on connections that were there before the kill
    beyond: int = 0  # failed requests on connections that came later, or never came about
    websockets_dropped: int = 0
    slowest: float = 0.0
    kills: int = 0
    problems: list[str] = field(default_factory=list)


async def measure(servers: list[str], plan: Plan, only: str) -> report.Report:
    """Run every contender and report."""
    sys.setswitchinterval(0.0005)
    outcomes: list[tuple[Outcome, bool]] = []
    for server in servers:
        if only != "peers":
            outcomes.append((await _run(server, True, plan), True))
        if only != "chansup" and server in PEERS:
            outcomes.append((await _run(server, False, plan), False))
    result = report.Report("Crash of one process of two, under load")
    for outcome, under_chansup in outcomes:
        result.rows.append(_row(outcome, plan))
        result.details[outcome.contender] = vars(outcome)
        if under_chansup:
            _claim(result, outcome)
        for problem in outcome.problems:
            report.progress(f"{outcome.contender}: {problem}")
    for (ours, is_chansup), (theirs, is_too) in itertools.pairwise(outcomes):
        if is_chansup and not is_too and ours.answered and theirs.answered:
            _compare(result, ours, theirs)
    result.notes += [
        f"{plan.rounds} kills each, one per start of the site; medians, the worst in brackets.",
        "noticed: the first line of output that names the process, or the respawn if earlier.",
        (
            "over boot: from the kill to the replacement's first answer, minus the median time "
            "from spawn to first answer of one process of the same server, started by hand on "
            "the same machine under the same load. gunicorn forks, and so boots faster than that."
        ),
        "held: failed requests on connections established before the kill. beyond: all others.",
    ]
    return result


async def _run(server: str, under_chansup: bool, plan: Plan) -> Outcome:
    outcome: Outcome | None = None
    for number in range(plan.rounds):
        with tempfile.TemporaryDirectory(prefix="crash-") as root:
            site = Site(Path(root), import_seconds=plan.import_seconds)
            site.releases.deploy("1")
            contender = Chansup(server, site) if under_chansup else _own(server, site)
            outcome = outcome or Outcome(contender.label)
            report.progress(f"{contender.label}: kill {number + 1} of {plan.rounds}")
            try:
                pids = await contender.start()
            except StartError as error:
                outcome.problems.append(str(error))
                return outcome
            try:
                await _kill_one(contender, pids, plan, outcome)
            except TimeoutError as error:
                outcome.problems.append(f"{error}\n{contender.main.tail()}")
            finally:
                await contender.stop()
    assert outcome is not None
    return outcome


def _own(server: str, site: Site) -> Contender:
    # Without the option, granian exits when a worker does.
    return OwnReload(server, site, ["--respawn-failed-workers"] if server == "granian" else [])


async def _kill_one(contender: Contender, pids: set[int], plan: Plan, outcome: Outcome) -> None:
    fresh = FreshConnections(contender.address, plan.rate)
    keep_alive = KeepAlive(contender.address, plan.clients)
    sockets = WebSockets(contender.address, plan.websockets)
    async with fresh, keep_alive, sockets:
        outcome.boots.append(await _boot_by_hand(contender.server, plan))
        await asyncio.sleep(plan.before)
        known = pids | _pids(fresh.result) | _pids(keep_alive.result)
        children = contender.main.children()
        # The one with more connections is the harder loss.
        victim = max(known & children or known, key=lambda pid: _answers(keep_alive.result, pid))
        moment = await kill(victim)
        outcome.kills += 1

        def by_another(result: HttpResult) -> bool:
            return bool(_pids(result) - known)

        try:
            respawned, noticed, answered = await asyncio.gather(
                _new_child(contender, children),
                contender.main.line(rf"\b{victim}\b", moment, 2.0),
                _first(fresh, keep_alive, by_another),
            )
            outcome.respawned.append(respawned - moment)
            outcome.noticed.append(min(noticed or respawned, respawned) - moment)
            outcome.answered.append(answered - moment)
        except TimeoutError:
            outcome.problems.append(f"not replaced in {RECOVERY_TIMEOUT} s")
        await asyncio.sleep(plan.after)
    for load in (fresh, keep_alive):
        report.progress(f"  {load.result.summary()}")
        outcome.slowest = max(outcome.slowest, max(load.result.latencies, default=0.0))
        for failure in load.result.details:
            if failure.connected is not None and failure.connected <= moment:
                outcome.held += 1
            else:
                outcome.beyond += 1
                report.progress(f"  beyond: {failure.kind} {failure.started - moment:+.3f} s")
    outcome.websockets_dropped += sockets.result.dropped


async def _boot_by_hand(server: str, plan: Plan) -> float:
    """Start the same server once, alone, and return the time until its first answer."""
    with tempfile.TemporaryDirectory(prefix="boot-") as root:
        site = Site(Path(root), processes=1, import_seconds=plan.import_seconds)
        site.releases.deploy("1")
        alone = OwnReload(server, site) if server == "granian" else ByHand(server, site)
        async with alone:
            return time.monotonic() - alone.main.spawned


async def _new_child(contender: Contender, known: set[int]) -> float:
    deadline = time.monotonic() + RECOVERY_TIMEOUT
    while not contender.main.children() - known:
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.002)
    return time.monotonic()


async def _first(fresh: FreshConnections, keep_alive: KeepAlive, condition: object) -> float:
    waits = [
        asyncio.create_task(load.until(condition, RECOVERY_TIMEOUT))  # type: ignore[arg-type]
        for load in (fresh, keep_alive)
    ]
    done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    moment = time.monotonic()
    for wait in pending:
        wait.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for wait in done:
        wait.result()
    return moment


def _pids(result: HttpResult) -> set[int]:
    return {read_body(body)[1] for body in result.bodies}


def _answers(result: HttpResult, pid: int) -> int:
    return sum(count for body, count in result.bodies.items() if read_body(body)[1] == pid)


def _row(outcome: Outcome, plan: Plan) -> report.Row:
    boot = statistics.median(outcome.boots) if outcome.boots else 0.0
    return {
        "contender": outcome.contender,
        "kills": outcome.kills,
        "noticed, ms": _spread(outcome.noticed, 1000),
        "respawned, ms": _spread(outcome.respawned, 1000),
        "first answer, s": _spread(outcome.answered),
        "boot by hand, s": boot,
        "over boot, s": _spread([each - boot for each in outcome.answered]),
        "failed: held": outcome.held,
        "failed: beyond": outcome.beyond,
        "slowest answer, s": outcome.slowest,
        "WebSockets dropped": f"{outcome.websockets_dropped} of {plan.websockets * outcome.kills}",
    }


def _compare(result: report.Report, ours: Outcome, theirs: Outcome) -> None:
    for what in ("noticed", "respawned", "answered"):
        result.compare(
            f"{ours.contender}, {what}, s, beside {theirs.contender}",
            statistics.median(getattr(ours, what)),
            statistics.median(getattr(theirs, what)),
        )


def _spread(values: list[float], factor: float = 1.0) -> str:
    if not values:
        return "never"
    return f"{statistics.median(values) * factor:.3g} [{max(values) * factor:.3g}]"


def _claim(result: report.Report, outcome: Outcome) -> None:
    name = outcome.contender
    complete = len(outcome.answered) == outcome.kills > 0 and not outcome.problems
    boot = statistics.median(outcome.boots) if outcome.boots else 0.0
    noticed = statistics.median(outcome.noticed) if outcome.noticed else float("inf")
    over = statistics.median(outcome.answered) - boot if outcome.answered else float("inf")
    result.claim(
        f"{name}: a crash is noticed in 20 ms (median)",
        f"{noticed * 1000:.1f} ms",
        complete and noticed < 0.020,
    )
    result.claim(
        f"{name}: replaced in the boot time + 0.2 s (median)",
        f"boot {boot:.2f} s + {over:.2f} s",
        complete and over <= 0.2,
    )
    result.claim(
        f"{name}: no request fails but those that the process held",
        f"{outcome.beyond} beyond, {outcome.held} held, in {outcome.kills} kills",
        complete and outcome.beyond == 0,
    )


def main() -> int:
    """Run from the command line."""
    options = report.parser(MODULE, __doc__)
    options.add_argument("--servers", nargs="+", choices=SERVERS, default=["uvicorn", "gunicorn"])
    options.add_argument("--only", choices=["chansup", "peers", "all"], default="all")
    options.add_argument("--rounds", type=int, choices=range(1, 51), metavar="1-50")
    arguments = options.parse_args()
    plan = Plan(rounds=arguments.rounds or (2 if arguments.quick else Plan.rounds))
    return report.run(MODULE, arguments, lambda: measure(arguments.servers, plan, arguments.only))


if __name__ == "__main__":
    sys.exit(main())
