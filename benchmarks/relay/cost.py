"""What the way over the relay costs: throughput, processor time, latency, and a Django page.

One interface process and one app worker stand beside two processes of a server alone: as many
processes, on the same cores, in the same run.
"""

import statistics
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from benchmarks import report
from benchmarks.contenders import Contender, Relay, Site
from benchmarks.process import processor_seconds
from benchmarks.relay import volley
from benchmarks.relay.contest import (
    PAGE,
    Contest,
    direct,
    in_turns,
    is_relay,
    peer,
    ratio,
    spread,
)
from benchmarks.relay.options import add_contenders, changed
from benchmarks.wrk import CLIENTS, requests_per_second

MODULE = "benchmarks.relay.cost"
PARTS = ("http", "websocket", "latency", "django")
BARS = {
    ("http", "uvicorn"): 0.5,
    ("http", "daphne"): 2.0,
    ("websocket", "uvicorn"): 0.8,
    ("websocket", "daphne"): 1.7,
}  # at least, as a ratio
ADDED = 0.12e-3  # seconds that the relay may add at one client (median)
DJANGO = 0.95  # of direct mode
WARM_UP = 2.0  # seconds
LONGEST = 15.0  # seconds of one contender: a ping is not the answer that volley.c expects


@dataclass(frozen=True)
class Plan:
    """How long, and how often. Times are seconds."""

    rounds: int = 5
    seconds: float = 5.0  # of one contender in one round


@dataclass(frozen=True)
class Work:
    """What one contender did in one round."""

    rate: float  # answers per second
    failed: int
    processor: float  # seconds of all its processes, per answer


async def measure(
    carriers: list[str], peers: list[str], plan: Plan, parts: list[str]
) -> report.Report:
    """Run the chosen parts and report."""
    result = report.Report("Relay mode: cost")
    if "http" in parts or "websocket" in parts:
        await _throughput(carriers, peers, plan, parts, result)
    if "latency" in parts:
        await _latency(carriers, peers, plan, result)
    if "django" in parts:
        await _django(carriers, peers, plan, result)
    result.notes += [
        (
            f"{plan.rounds} rounds of {plan.seconds:.0f} s each, in turns, all contenders up; "
            "medians, smallest and largest in brackets; ratios: the median of the rounds' ratios."
        ),
        "relay, SERVER 1+1: one interface process and one app worker.",
        "µs each: processor time per answer, of all processes of the contender, supervisor too.",
    ]
    if not volley.has_compiler():
        result.notes.append("No C compiler: a Python client, which takes more of the cores.")
    return result


# --- throughput


async def _throughput(
    carriers: list[str], peers: list[str], plan: Plan, parts: list[str], result: report.Report
) -> None:
    async with Contest(result) as contest:
        contenders = await contest.enter_all(carriers, peers, processes=2, workers=1)
        if "http" in parts:
            await _rates("http", contenders, plan, _requests(CLIENTS), result)
        if "websocket" in parts:
            await _rates("websocket", contenders, plan, _messages, result)
    result.notes.append(
        f"http: GET / of a few bytes with wrk, {CLIENTS} connections. websocket: {CLIENTS} sockets "
        "that send 16 bytes, wait for the echo, and go on at once."
    )


Answers = Callable[[Contender, float], Awaitable[tuple[float, int]]]  # rate, failed


def _requests(clients: int) -> Answers:
    async def measure_rate(contender: Contender, seconds: float) -> tuple[float, int]:
        return await requests_per_second(contender.address, seconds, clients)

    return measure_rate


async def _messages(contender: Contender, seconds: float) -> tuple[float, int]:
    done = await volley.messages(contender.address, CLIENTS, seconds)
    return done.rate, done.failed


async def _rates(
    what: str,
    contenders: Sequence[Contender],
    plan: Plan,
    answers: Answers,
    result: report.Report,
) -> dict[str, list[Work]]:
    async def work(contender: Contender) -> Work:
        pids = contender.pids()
        before = sum(map(processor_seconds, pids))
        rate, failed = await answers(contender, plan.seconds)
        used = sum(map(processor_seconds, pids)) - before
        return Work(rate, failed, used / max(1.0, rate * plan.seconds))

    for contender in contenders:
        await answers(contender, min(WARM_UP, plan.seconds))
    samples = await in_turns(contenders, plan.rounds, what, work)
    for label, works in samples.items():
        result.rows.append(
            {
                what: label,
                "per second": spread([each.rate for each in works]),
                "µs each": spread([each.processor * 1e6 for each in works], 1),
                "failed": sum(each.failed for each in works),
            }
        )
    for ours in filter(is_relay, contenders):
        _compare(what, ours, [each for each in contenders if not is_relay(each)], samples, result)
    result.details[what] = {
        label: [vars(each) for each in works] for label, works in samples.items()
    }
    return samples


def _compare(
    what: str,
    ours: Contender,
    others: Sequence[Contender],
    samples: dict[str, list[Work]],
    result: report.Report,
) -> None:
    mine = samples[ours.label]
    for theirs in others:
        middle, shown = ratio(
            [each.rate for each in mine], [each.rate for each in samples[theirs.label]]
        )
        result.rows.append(
            {
                "contender": f"{ours.label}, {what}",
                "beside": theirs.label,
                "ratio of rates": shown,
                "ratio of processor time": ratio(
                    [each.processor for each in mine],
                    [each.processor for each in samples[theirs.label]],
                )[1],
            }
        )
        bar = BARS.get((what, theirs.server))
        if bar is not None and ours.server == "uvicorn":
            result.claim(
                f"{ours.label}: {what} at least {bar} of {theirs.label}",
                f"{middle:.3f}",
                middle >= bar and not any(each.failed for each in mine),
            )


# --- latency


async def _latency(
    carriers: list[str], peers: list[str], plan: Plan, result: report.Report
) -> None:
    async with Contest(result) as contest:
        contenders = [
            await contest.enter(make, server, 1) for server in carriers for make in (direct, Relay)
        ]
        contenders += [await contest.enter(peer, server, 1) for server in peers]
        present = [contender for contender in contenders if contender is not None]
        for what, run in (("request", volley.requests), ("message", volley.messages)):
            await _added(what, run, present, carriers, plan, result)
    result.notes.append(
        "Latency: one connection that asks again as soon as it has the answer; one process that "
        "runs the app. added: the median over the rounds of the difference of their medians."
    )


async def _added(
    what: str,
    run: Callable[[str, int, float], Awaitable[volley.Volley]],
    contenders: Sequence[Contender],
    carriers: list[str],
    plan: Plan,
    result: report.Report,
) -> None:
    # Short turns: a difference of some microseconds drowns in what changes within seconds.
    rounds, seconds = plan.rounds * 2, plan.seconds / 4

    async def once(contender: Contender) -> volley.Volley:
        return await run(contender.address, 1, seconds)

    for contender in contenders:
        await once(contender)
    samples = await in_turns(contenders, rounds, f"latency of a {what}", once)
    for contender in contenders:
        done = samples[contender.label]
        beside = samples.get(f"direct, {contender.server} x1") if is_relay(contender) else None
        added = _differences(done, beside) if beside else None
        result.rows.append(
            {
                f"one client's {what}": contender.label,
                "p50, ms": spread([each.p50 * 1000 for each in done], 3),
                "p99, ms": spread([each.p99 * 1000 for each in done], 3),
                "added to p50, ms": spread([each * 1000 for each in added], 3) if added else None,
                "failed": sum(each.failed for each in done),
            }
        )
        if added and contender.server == "uvicorn":
            middle = statistics.median(added)
            result.claim(
                f"{contender.label}: adds at most {ADDED * 1000:.2f} ms to a {what} (p50)",
                f"{middle * 1000:.3f} ms",
                middle <= ADDED and not any(each.failed for each in done),
            )
    result.details[f"latency, {what}"] = {
        label: [vars(each) for each in done] for label, done in samples.items()
    }


def _differences(ours: list[volley.Volley], theirs: list[volley.Volley]) -> list[float]:
    return [one.p50 - other.p50 for one, other in zip(ours, theirs, strict=True)]


# --- a Django page


async def _django(carriers: list[str], peers: list[str], plan: Plan, result: report.Report) -> None:
    async with Contest(result) as contest:
        wanted: list[tuple[Callable[[str, Site], Contender], str, int]] = [
            (make, server, processes)
            for server in carriers
            for make, processes in ((direct, 2), (Relay, 1), (Relay, 2))
        ]
        wanted += [(peer, server, 2) for server in peers]
        entered = [await contest.enter(*each, application=PAGE) for each in wanted]
        contenders = [contender for contender in entered if contender is not None]
        for clients, workers in ((1, 1), (CLIENTS, 2)):
            what = f"django, {clients} client{'s' if clients > 1 else ''}"
            samples = await _rates(what, contenders, plan, _requests(clients), result)
            mine = samples.get(f"relay, uvicorn 1+{workers}")
            theirs = samples.get("direct, uvicorn x2")
            if mine and theirs:
                middle, shown = ratio([one.rate for one in mine], [one.rate for one in theirs])
                result.claim(
                    f"relay, uvicorn 1+{workers}: {what}, at least {DJANGO} of direct mode x2",
                    shown,
                    middle >= DJANGO and not any(each.failed for each in mine),
                )
    result.notes.append(
        "django: a page with a query (SQLite) and a template, in an ordinary view, several "
        "milliseconds of Python. With many clients it takes as many workers as direct mode has "
        "processes: 1+1 has one interpreter to render in where direct mode x2 has two, and the "
        "interface process needs little of the other core. It stands in the table all the same."
    )


def main() -> int:
    """Run from the command line."""
    options = report.parser(MODULE, __doc__)
    add_contenders(options)
    options.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options.add_argument("--rounds", type=int, choices=range(1, 51), metavar="1-50")
    options.add_argument("--seconds", type=float, help="of one contender in one round")
    arguments = options.parse_args()
    if (arguments.seconds or 0) > LONGEST:
        options.error(f"--seconds: at most {LONGEST:g}, before the servers send pings")
    plan = Plan(rounds=2, seconds=1.0) if arguments.quick else Plan()
    plan = changed(plan, arguments)
    return report.run(
        MODULE,
        arguments,
        lambda: measure(arguments.servers, arguments.peers, plan, arguments.parts),
    )


if __name__ == "__main__":
    sys.exit(main())
