"""Replace version 1 of the code by version 2 under load, and then by code that does not boot.

For each server under chansup, and beside it under the reload that people use today: how many of
150 fresh-connection requests per second and of 20 keep-alive clients' requests fail, and how many
of 100 WebSockets are closed.
"""

import asyncio
import collections
import itertools
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import report
from benchmarks.apps.releases import BROKEN, read_body
from benchmarks.contenders import (
    APPLICATION,
    SERVERS,
    WSGI_APPLICATION,
    Chansup,
    Contender,
    Site,
    all_gone,
    own_reload_of,
)
from benchmarks.process import StartError
from tests.load import FreshConnections, HttpResult, KeepAlive, RequestError, WebSockets, get

MODULE = "benchmarks.reload"
PROBES = 20  # requests that say whether a site still serves


@dataclass(frozen=True)
class Plan:
    """How much load, and for how long. Times are seconds."""

    rate: float = 150.0
    clients: int = 20
    websockets: int = 100
    before: float = 3.0  # of steady load before the reload
    after: float = 3.0  # and after its end
    settle_timeout: float = 45.0  # for old processes to go
    watch_broken: float = 12.0  # after a reload to broken code that nobody reports on
    rounds: int = 3
    in_place: bool = False
    application: str = APPLICATION


@dataclass
class Outcome:
    """What one contender did, over all rounds."""

    server: str
    contender: str
    requests: int = 0
    failed: int = 0
    failures: collections.Counter[str] = field(default_factory=collections.Counter)
    skipped: int = 0
    cut_while_idle: int = 0
    slowest: float = 0.0  # seconds
    websockets_dropped: int = 0
    close_codes: collections.Counter[int] = field(default_factory=collections.Counter)
    closes_within_second: int = 0  # the most in any second: the herd that comes back
    websockets_refused: int = 0
    websocket_messages_wrong: int = 0
    seconds: list[float] = field(default_factory=list)  # until no old process was left
    incomplete: int = 0  # rounds in which the new code did not take over in time
    broken_requests: int = 0
    broken_failed: int = 0
    broken_exit_codes: list[int | None] = field(default_factory=list)
    broken_answered: int = 0  # of PROBES per round, by the code of before
    broken_rounds: int = 0
    problems: list[str] = field(default_factory=list)

    def count(self, http: HttpResult) -> None:
        """Add the result of one load during the good reload."""
        self.requests += http.sent
        self.failed += http.failed
        self.failures.update({str(kind): count for kind, count in http.failures.items()})
        self.skipped += http.skipped
        self.cut_while_idle += http.cut_while_idle
        self.slowest = max(self.slowest, max(http.latencies, default=0.0))


async def measure(servers: list[str], plan: Plan, only: str) -> report.Report:
    """Run every contender and report."""
    outcomes: list[tuple[Outcome, bool]] = []
    for server in servers:
        for under_chansup in (True, False):
            if only in ("chansup", "peers") and under_chansup != (only == "chansup"):
                continue
            outcome = await _run(server, under_chansup, plan)
            if outcome is not None:
                outcomes.append((outcome, under_chansup))
    result = report.Report("Reload under load")
    _fill(result, outcomes, plan)
    return result


async def _run(server: str, under_chansup: bool, plan: Plan) -> Outcome | None:
    outcome: Outcome | None = None
    for number in range(plan.rounds):
        with tempfile.TemporaryDirectory(prefix="reload-") as root:
            site = Site(Path(root), application=plan.application)
            contender = Chansup(server, site) if under_chansup else own_reload_of(server, site)
            if contender is None:
                report.progress(f"{server}: has no reload of its own; is supervisor installed?")
                return None
            outcome = outcome or Outcome(server, contender.label)
            report.progress(f"{contender.label}: round {number + 1} of {plan.rounds}")
            site.releases.deploy("1")
            try:
                pids = await contender.start()
            except StartError as error:
                outcome.problems.append(str(error))
                return outcome
            try:
                await _reload(contender, pids, plan, outcome)
                if contender.main.is_running:
                    await _reload_broken(contender, plan, outcome)
            except TimeoutError as error:  # it stopped serving: that is a result
                outcome.problems.append(str(error))
            finally:
                await contender.stop()
    return outcome


async def _reload(contender: Contender, pids: set[int], plan: Plan, outcome: Outcome) -> None:
    fresh = FreshConnections(contender.address, plan.rate)
    keep_alive = KeepAlive(contender.address, plan.clients)
    sockets = WebSockets(contender.address, plan.websockets)
    async with fresh, keep_alive, sockets:
        await asyncio.sleep(plan.before)
        # All that ever answered, for a shared socket hides some processes from a few probes.
        old = pids | {read_body(body)[1] for body in fresh.result.bodies | keep_alive.result.bodies}
        _deploy(contender, "2", plan)
        begun = time.monotonic()
        code = await contender.begin_reload()
        replaced = await all_gone(old, plan.settle_timeout) and await _serves(contender, "2")
        outcome.seconds.append(time.monotonic() - begun)
        await asyncio.sleep(plan.after)
    if code not in (None, 0) or not replaced:
        outcome.incomplete += 1
        outcome.problems.append(
            f"reload exited {code}; last output:\n{getattr(contender, 'reload_output', '')}\n"
            f"{contender.main.tail(40)}"
        )
    outcome.count(fresh.result)
    outcome.count(keep_alive.result)
    for name, load in (("fresh", fresh), ("keep-alive", keep_alive)):
        report.progress(f"  {name}: {load.result.summary()}")
        for detail in load.result.details[:3]:
            report.progress(f"    {detail.kind} {detail.detail} {detail.started - begun:+.2f} s")
    report.progress(f"  websockets: {sockets.result.summary()}")
    outcome.websockets_dropped += sockets.result.dropped
    outcome.close_codes.update(sockets.result.closes)
    outcome.closes_within_second = max(
        outcome.closes_within_second, _most_within(sockets.result.close_times, 1.0)
    )
    outcome.websockets_refused += sum(sockets.result.handshake_failures.values())
    outcome.websocket_messages_wrong += sockets.result.disordered


async def _reload_broken(contender: Contender, plan: Plan, outcome: Outcome) -> None:
    outcome.broken_rounds += 1
    fresh = FreshConnections(contender.address, plan.rate)
    keep_alive = KeepAlive(contender.address, plan.clients)
    async with fresh, keep_alive:
        _deploy(contender, BROKEN, plan)
        code = await contender.begin_reload()
        if code is None:
            # Nobody says how it went: the end of the parent would be one outcome.
            code = await contender.main.wait(plan.watch_broken)
        else:
            await asyncio.sleep(plan.after)
    outcome.broken_exit_codes.append(code)
    outcome.broken_requests += fresh.result.sent + keep_alive.result.sent
    outcome.broken_failed += fresh.result.failed + keep_alive.result.failed
    for _ in range(PROBES):
        try:
            answer = await get(contender.address, timeout=2)
        except RequestError:
            continue
        outcome.broken_answered += answer.status == 200 and read_body(answer.body)[0] == "2"
    report.progress(f"  broken code: {keep_alive.result.summary()}")


async def _serves(contender: Contender, version: str) -> bool:
    try:
        answer = await get(contender.address)
    except RequestError:
        return False
    return answer.status == 200 and read_body(answer.body)[0] == version


def _deploy(contender: Contender, version: str, plan: Plan) -> None:
    releases = contender.site.releases
    if plan.in_place:
        releases.overwrite(version)
    else:
        releases.deploy(version)


def _most_within(moments: list[float], seconds: float) -> int:
    moments = sorted(moments)
    window: collections.deque[float] = collections.deque()
    most = 0
    for moment in moments:
        window.append(moment)
        while moment - window[0] > seconds:
            window.popleft()
        most = max(most, len(window))
    return most


def _fill(result: report.Report, outcomes: list[tuple[Outcome, bool]], plan: Plan) -> None:
    result.rows += [_row(outcome, plan) for outcome, _ in outcomes]
    for (ours, is_chansup), (theirs, _) in itertools.pairwise(outcomes):
        if is_chansup and ours.server == theirs.server:
            _compare(result, ours, theirs)
    for outcome, under_chansup in outcomes:
        if under_chansup:
            _claim(result, outcome)
    deployed = "code overwritten in place" if plan.in_place else "release symlink switched"
    result.notes += [
        (
            f"{plan.rounds} round(s) each; in each {plan.rate:.0f} fresh-connection requests/s, "
            f"{plan.clients} keep-alive clients, {plan.websockets} WebSockets. "
            f"The app takes 1 s to import; {deployed}."
        ),
        (
            "idle cuts: keep-alive connections closed without `Connection: close` between two "
            "requests; no request failed there, but only by luck."
        ),
        (
            "A server with no reload command is watched for "
            f"{plan.watch_broken:.0f} s after SIGHUP to broken code."
        ),
    ]
    for outcome, _ in outcomes:
        result.details[outcome.contender] = vars(outcome)
        for problem in outcome.problems:
            report.progress(f"{outcome.contender}: {problem}")


def _row(outcome: Outcome, plan: Plan) -> report.Row:
    codes = ", ".join(f"{code}: {count}" for code, count in outcome.close_codes.most_common())
    serves = None
    if outcome.broken_rounds:
        serves = f"{outcome.broken_answered} of {PROBES * outcome.broken_rounds}"
    return {
        "contender": outcome.contender,
        "requests": outcome.requests,
        "failed": outcome.failed,
        "how": ", ".join(f"{count} {kind}" for kind, count in outcome.failures.most_common())
        or None,
        "idle cuts": outcome.cut_while_idle,
        "slowest, s": outcome.slowest,
        "WebSockets dropped": f"{outcome.websockets_dropped} of {plan.websockets * plan.rounds}",
        "codes": codes or None,
        "most in 1 s": outcome.closes_within_second,
        "replaced in, s": max(outcome.seconds, default=0.0) if not outcome.incomplete else "never",
        "broken code: failed": f"{outcome.broken_failed} of {outcome.broken_requests}"
        if outcome.broken_rounds
        else None,
        "exit": ", ".join(str(code) for code in outcome.broken_exit_codes) or None,
        "serves after": serves,
    }


def _compare(result: report.Report, ours: Outcome, theirs: Outcome) -> None:
    beside = f"{ours.server}, {{}}, beside {theirs.contender}"
    result.compare(beside.format("failed"), ours.failed, theirs.failed)
    result.compare(beside.format("idle cuts"), ours.cut_while_idle, theirs.cut_while_idle)
    result.compare(
        beside.format("WebSockets dropped"), ours.websockets_dropped, theirs.websockets_dropped
    )
    result.compare(
        beside.format("WebSockets dropped within 1 s"),
        ours.closes_within_second,
        theirs.closes_within_second,
    )
    result.compare(beside.format("failed, broken code"), ours.broken_failed, theirs.broken_failed)


def _claim(result: report.Report, outcome: Outcome) -> None:
    name = outcome.contender
    result.claim(
        f"{name}: a reload fails no request",
        f"{outcome.failed} of {outcome.requests:,}"
        + (f", {outcome.skipped} not sent" if outcome.skipped else ""),
        outcome.failed == 0 and outcome.requests > 0 and not outcome.problems,
    )
    result.claim(
        f"{name}: keep-alive connections are told before they are closed",
        f"{outcome.cut_while_idle} cut",
        outcome.cut_while_idle == 0 and outcome.requests > 0,
    )
    answered = f"{outcome.broken_answered} of {PROBES * outcome.broken_rounds}"
    codes = outcome.broken_exit_codes
    result.claim(
        f"{name}: broken code never takes over, and `chansup reload` exits 1",
        f"{outcome.broken_failed} of {outcome.broken_requests:,} failed, exit {codes}, "
        f"{answered} probes answered after",
        outcome.broken_failed == 0
        and outcome.broken_rounds > 0
        and outcome.broken_answered == PROBES * outcome.broken_rounds
        and all(code == 1 for code in codes),
    )


def main() -> int:
    """Run from the command line."""
    options = report.parser(MODULE, __doc__)
    options.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS))
    options.add_argument("--only", choices=["chansup", "peers", "all"], default="all")
    options.add_argument("--rounds", type=int, choices=range(1, 21), metavar="1-20")
    options.add_argument("--in-place", action="store_true", help="overwrite the code, no symlink")
    options.add_argument("--wsgi", action="store_true", help="a WSGI application, no WebSockets")
    arguments = options.parse_args()
    rounds = arguments.rounds or (1 if arguments.quick else Plan.rounds)
    if arguments.quick:
        plan = Plan(before=1.0, after=1.0, watch_broken=9.0, rounds=rounds)
    else:
        plan = Plan(rounds=rounds)
    if arguments.wsgi:
        plan = replace(plan, application=WSGI_APPLICATION, websockets=0)
    plan = replace(plan, in_place=arguments.in_place)
    return report.run(MODULE, arguments, lambda: measure(arguments.servers, plan, arguments.only))


if __name__ == "__main__":
    sys.exit(main())
