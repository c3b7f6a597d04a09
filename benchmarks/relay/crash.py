"""Kill one of two workers with SIGKILL under open WebSockets and requests.

Beside the relay stand servers alone with two processes, of which one is killed: its WebSockets are
closed, and its requests fail.
"""

import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import report
from benchmarks.apps.releases import read_body
from benchmarks.contenders import Contender, OwnReload, Relay, Site, kill, own_reload_of
from benchmarks.process import StartError
from benchmarks.relay.options import add_contenders, changed
from benchmarks.relay.outcome import SOCKETS_NOTE, Outcome
from benchmarks.relay.sockets import EchoSockets
from tests.load import FreshConnections, HttpResult, KeepAlive

MODULE = "benchmarks.relay.crash"
BAR = 1.0  # seconds until every socket has a worker again
RECOVERY_TIMEOUT = 30.0  # seconds; nothing took over
REQUESTS = 100.0  # GET per second on fresh connections
CLIENTS = 10  # that keep theirs


@dataclass(frozen=True)
class Plan:
    """How much load, and how often. Times are seconds."""

    sockets: int = 1000
    rate: float = 5000.0  # messages per second of all sockets together
    rounds: int = 5
    before: float = 2.0
    after: float = 3.0
    import_seconds: float = 1.0


@dataclass
class Crash(Outcome):
    """What one contender did. `seconds`: until a replacement answered."""

    requests: int = 0
    failed: int = 0

    def count_requests(self, http: HttpResult) -> None:
        """Add what became of the requests of one load."""
        self.requests += http.sent
        self.failed += http.failed
        report.progress(f"  {http.summary()}")
        for failure in http.details[:3]:
            report.progress(f"    {failure.kind} {failure.detail}")


async def measure(carriers: list[str], peers: list[str], plan: Plan) -> report.Report:
    """Run every contender and report."""
    result = report.Report("Relay mode: SIGKILL of a worker under open WebSockets")
    outcomes = [await _run(server, True, plan) for server in carriers]
    outcomes += [await _run(server, False, plan) for server in peers]
    for outcome in outcomes:
        result.rows.append(_row(outcome))
        result.details[outcome.contender] = vars(outcome)
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
            f"{plan.rounds} kill(s) each of one of two processes that run the app, one per start "
            f"of the site; all sockets together send {plan.rate:,.0f} messages/s in bursts of 2. "
            f"Beside them {REQUESTS:.0f} GET/s on fresh connections and {CLIENTS} clients that "
            "keep theirs."
        ),
        SOCKETS_NOTE,
    ]
    return result


async def _run(server: str, is_relay: bool, plan: Plan) -> Crash:
    outcome: Crash | None = None
    for number in range(plan.rounds):
        with tempfile.TemporaryDirectory(prefix="relay-") as root:
            site = Site(Path(root), 2, plan.import_seconds)
            site.releases.deploy("1")
            contender = Relay(server, site) if is_relay else _alone(server, site)
            outcome = outcome or Crash(contender.label, server, is_relay, plan.sockets)
            report.progress(f"{contender.label}: kill {number + 1} of {plan.rounds}")
            try:
                await _kill_one(contender, await contender.start(), plan, outcome)
            except (StartError, TimeoutError) as error:
                outcome.problems.append(f"{error}\n{contender.main.tail()}")
                break
            finally:
                await contender.stop()
    assert outcome is not None
    return outcome


def _alone(server: str, site: Site) -> Contender:
    if server == "granian":  # exits when a worker does, without the option
        return OwnReload(server, site, ["--respawn-failed-workers"])
    contender = own_reload_of(server, site)
    assert contender is not None, "pip install supervisor"
    return contender


async def _kill_one(contender: Contender, pids: set[int], plan: Plan, outcome: Crash) -> None:
    fresh = FreshConnections(contender.address, REQUESTS)
    keep_alive = KeepAlive(contender.address, CLIENTS)
    sockets = EchoSockets(contender.address, plan.sockets, rate=plan.rate)
    async with fresh, keep_alive, sockets:
        await asyncio.sleep(plan.before)
        outcome.ordinary += sockets.take_waits()
        known = pids | _pids(fresh.result) | _pids(keep_alive.result)
        # The one that answers more requests is the harder loss.
        victim = max(known, key=lambda pid: _answers(fresh.result, keep_alive.result, pid=pid))
        moment = await kill(victim)
        try:
            await fresh.until(lambda result: bool(_pids(result) - known), RECOVERY_TIMEOUT)
            outcome.seconds.append(time.monotonic() - moment)
        except TimeoutError:
            outcome.problems.append(f"not replaced in {RECOVERY_TIMEOUT} s")
        await asyncio.sleep(plan.after)
        outcome.waits += sockets.take_waits()
    outcome.count(sockets)
    for load in (fresh, keep_alive):
        outcome.count_requests(load.result)


def _pids(result: HttpResult) -> set[int]:
    return {read_body(body)[1] for body in result.bodies}


def _answers(*results: HttpResult, pid: int) -> int:
    return sum(
        count
        for result in results
        for body, count in result.bodies.items()
        if read_body(body)[1] == pid
    )


def _row(outcome: Crash) -> report.Row:
    return {
        **outcome.row(),
        "most of one": outcome.lost_of_one,
        "failed GETs": f"{outcome.failed} of {outcome.requests:,}",
        "replaced in, s": max(outcome.seconds, default=0.0) if outcome.is_complete else "never",
    }


def _compare(result: report.Report, ours: Crash, theirs: Crash) -> None:
    where = f"{ours.contender}, {{}}, beside {theirs.contender}"
    result.compare(where.format("closed"), ours.closed, theirs.closed)
    result.compare(where.format("lost"), ours.lost, theirs.lost)
    result.compare(where.format("failed GETs"), ours.failed, theirs.failed)
    result.compare(where.format("longest pause, s"), ours.pauses[2], theirs.pauses[2])


def _claim(result: report.Report, outcome: Crash) -> None:
    name = outcome.contender
    result.claim(
        f"{name}: a crash closes no WebSocket, and repeats and swaps no message",
        f"{outcome.closed} closed, {outcome.repeated} repeated, {outcome.disordered} out of order, "
        f"{outcome.absent} gone, in {outcome.rounds} kills",
        outcome.is_complete
        and not any((outcome.closed, outcome.repeated, outcome.disordered, outcome.absent)),
    )
    result.claim(
        f"{name}: at most one message of a socket is lost",
        f"{outcome.lost} lost, {outcome.lost_of_one} of one socket at most",
        outcome.is_complete and outcome.lost_of_one <= 1,
    )
    result.claim(
        f"{name}: no GET fails",
        f"{outcome.failed} of {outcome.requests:,}",
        outcome.is_complete and outcome.failed == 0 < outcome.requests,
    )
    result.claim(
        f"{name}: within {BAR:g} s every WebSocket has a worker again",
        f"longest pause {outcome.pauses[2] * 1000:.0f} ms",
        outcome.is_complete and outcome.pauses[2] < BAR,
    )


def main() -> int:
    """Run from the command line."""
    options = report.parser(MODULE, __doc__)
    add_contenders(options)
    options.add_argument("--sockets", type=int, help="open WebSockets")
    options.add_argument("--rate", type=float, help="messages per second of all together")
    options.add_argument("--rounds", type=int, choices=range(1, 51), metavar="1-50")
    arguments = options.parse_args()
    plan = Plan(sockets=200, rounds=1, before=1.0, after=1.0) if arguments.quick else Plan()
    plan = changed(plan, arguments)
    return report.run(MODULE, arguments, lambda: measure(arguments.servers, arguments.peers, plan))


if __name__ == "__main__":
    sys.exit(main())
