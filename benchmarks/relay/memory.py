"""What an idle WebSocket takes: the relay's two processes, beside the servers alone.

The slope between a thousand and ten thousand sockets, so that what a process takes anyway cancels
out. All of them are asked at the end whether they still work.
"""

import asyncio
import resource
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import report
from benchmarks.contenders import INTERFACE, WORKERS, Contender, OwnReload, Relay, Site
from benchmarks.process import StartError, memory
from benchmarks.relay.contest import peer
from benchmarks.relay.options import add_contenders, changed
from benchmarks.relay.sockets import EchoSockets

MODULE = "benchmarks.relay.memory"
BAR = 16 * 1024  # bytes of one socket, above what the server itself takes
REST = "rest"  # of a contender: supervisor, guard, or everything
SPARE = 500  # descriptors for other things


@dataclass(frozen=True)
class Plan:
    """How many, and for how long. Times are seconds."""

    few: int = 1_000
    many: int = 10_000
    settle: float = 5.0  # before each look
    idle: float = 25.0  # with all open: the servers' own pings come every 20 s


@dataclass
class Outcome:
    """What one contender took. Bytes, by part of it."""

    contender: str
    server: str
    is_relay: bool
    few: dict[str, int] = field(default_factory=dict)
    many: dict[str, int] = field(default_factory=dict)
    sockets: int = 0  # between the two looks
    answered: int = 0
    wanted: int = 0
    closed: int = 0
    problems: list[str] = field(default_factory=list)

    def slope(self, *parts: str) -> float | None:
        """Return the bytes of one socket in some parts, or in all."""
        if not self.many:
            return None
        chosen = parts or tuple(self.many)
        grown = sum(self.many.get(part, 0) - self.few.get(part, 0) for part in chosen)
        return grown / self.sockets


async def measure(carriers: list[str], peers: list[str], plan: Plan) -> report.Report:
    """Run every contender and report."""
    _allow_descriptors(plan.many + SPARE)
    result = report.Report("Relay mode: memory of idle WebSockets")
    outcomes = [await _run(server, False, plan) for server in dict.fromkeys([*peers, *carriers])]
    outcomes += [await _run(server, True, plan) for server in carriers]
    alone = {outcome.server: outcome for outcome in outcomes if not outcome.is_relay}
    for outcome in sorted(outcomes, key=lambda each: not each.is_relay):
        above = _above(outcome, alone.get(outcome.server))
        result.rows.append(_row(outcome, above))
        result.details[outcome.contender] = vars(outcome)
        for problem in outcome.problems:
            report.progress(f"{outcome.contender}: {problem}")
        if outcome.is_relay:
            result.claim(
                f"{outcome.contender}: an idle WebSocket takes at most {BAR // 1024} KiB above "
                f"what {outcome.server} takes",
                f"{above / 1024:.1f} KiB" if above is not None else "not measured",
                above is not None and above <= BAR,
            )
            result.claim(
                f"{outcome.contender}: {plan.many:,} idle WebSockets stay open and answer",
                f"{outcome.answered:,} answered, {outcome.closed:,} closed",
                outcome.answered == plan.many and outcome.closed == 0,
            )
    result.notes.append(
        f"Private memory (USS) of all processes of a contender, at {plan.few:,} and at "
        f"{plan.many:,} open WebSockets that had sent two messages each; per socket: the "
        f"difference. Asked after {plan.idle:g} s. Without compression, which takes more than all "
        "of this where a server has it on. What the kernel keeps for a connection is not in it."
    )
    return result


async def _run(server: str, is_relay: bool, plan: Plan) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="relay-") as root:
        site = Site(Path(root), 1, 0)
        site.releases.deploy("1")
        contender = Relay(server, site) if is_relay else _alone(server, site)
        outcome = Outcome(contender.label, server, is_relay)
        report.progress(f"{contender.label}: {plan.many} idle WebSockets")
        try:
            async with contender:
                await _fill(contender, plan, outcome)
        except (StartError, TimeoutError) as error:
            outcome.problems.append(f"{error}\n{contender.main.tail()}")
    return outcome


def _alone(server: str, site: Site) -> Contender:
    if server == "granian":  # takes no more than its backlog at a time, WebSockets included
        return OwnReload(server, site, ["--backpressure", "65536"])
    return peer(server, site)


async def _fill(contender: Contender, plan: Plan, outcome: Outcome) -> None:
    few = EchoSockets(contender.address, plan.few, rate=0)
    more = EchoSockets(contender.address, plan.many - plan.few, rate=0)
    async with few:
        await asyncio.sleep(plan.settle)
        outcome.few = _taken(contender)
        async with more:
            await asyncio.sleep(plan.settle)
            outcome.many = _taken(contender)
            outcome.sockets = more.open
            await asyncio.sleep(plan.idle)
            outcome.answered = await few.ask_all() + await more.ask_all()
    for load in (few, more):
        report.progress(f"  {load.result.summary()}")
        outcome.closed += load.result.closed


def _taken(contender: Contender) -> dict[str, int]:
    parts = {}
    if isinstance(contender, Relay):
        parts = {pool: contender.pids_of(pool) for pool in (INTERFACE, WORKERS)}
    parts[REST] = contender.pids().difference(*parts.values())
    return {part: sum(memory(pid).private for pid in pids) for part, pids in parts.items()}


def _above(outcome: Outcome, alone: Outcome | None) -> float | None:
    if not outcome.is_relay or alone is None:
        return None
    ours, theirs = outcome.slope(), alone.slope()
    return None if ours is None or theirs is None else ours - theirs


def _row(outcome: Outcome, above: float | None) -> report.Row:
    def kib(value: float | None) -> str | None:
        return None if value is None else f"{value / 1024:.1f}"

    return {
        "contender": outcome.contender,
        "few, MB": sum(outcome.few.values()) / 1e6,
        "many, MB": sum(outcome.many.values()) / 1e6,
        "KiB per socket": kib(outcome.slope()),
        "of it: interface": kib(outcome.slope(INTERFACE)) if outcome.is_relay else None,
        "worker": kib(outcome.slope(WORKERS)) if outcome.is_relay else None,
        "above the server alone": kib(above),
        "answered": f"{outcome.answered:,}",
        "closed": outcome.closed,
    }


def _allow_descriptors(number: int) -> None:
    """Let this process, and what it starts, have that many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(number, hard), hard))
    if hard < number:
        raise SystemExit(f"{number} descriptors are needed, and {hard} allowed: see ulimit -Hn")


def main() -> int:
    """Run from the command line."""
    options = report.parser(MODULE, __doc__)
    add_contenders(options)
    options.add_argument("--few", type=int, help="WebSockets at the first look")
    options.add_argument("--many", type=int, help="WebSockets at the second")
    options.add_argument("--idle", type=float, help="seconds with all of them open")
    arguments = options.parse_args()
    plan = Plan(few=200, many=1_200, settle=1.0, idle=1.0) if arguments.quick else Plan()
    plan = changed(plan, arguments)
    return report.run(MODULE, arguments, lambda: measure(arguments.servers, arguments.peers, plan))


if __name__ == "__main__":
    sys.exit(main())
