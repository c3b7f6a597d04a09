"""What does a message between processes take, and how many go through? Beside channels_redis."""

import statistics
import sys
from dataclasses import replace
from typing import Any

from benchmarks import report
from benchmarks.layer import contenders, measures
from benchmarks.layer.contenders import CORE, HUB, MEMORY, NAMES, PUBSUB
from benchmarks.layer.measures import Plan, Rate
from benchmarks.relay.contest import ratio, spread

MODULE = "benchmarks.layer.speed"
SENDERS = 50
QUARTER = 0.25  # of core's round trip
DELIVERIES = 5.0  # times core's
MESSAGES = 30_000  # per second, to one receiver

ROUND, GROUP, BURST, ONE, MANY = (
    "round trip p50", "group of 100 p50", "deliveries/s",
    "messages/s, 1 task", f"messages/s, {SENDERS} tasks",
)  # fmt: skip
UNITS = {ROUND: ", µs", GROUP: ", ms"}
DIGITS = {GROUP: 3}

Samples = dict[str, dict[str, list[float]]]  # by measure and layer


async def measure(names: list[str], plan: Plan) -> report.Report:
    """Measure the layers in turns."""
    result = report.Report("Channel layers: latency and throughput between processes")
    samples: Samples = {what: {} for what in (ROUND, "round trip p99", GROUP, BURST, ONE, MANY)}
    marks: dict[str, set[str]] = {}
    with contenders.started() as servers:
        present = servers.present(names, result.notes)
        for number in range(plan.rounds):
            turns = present[number % len(present) :] + present[: number % len(present)]
            for name in turns:
                report.progress(f"round {number + 1} of {plan.rounds}: {name}")
                own = plan.for_slow_ones() if name in CORE else plan
                try:
                    found = await _measure_one(name, servers.addresses[name], own)
                except (TimeoutError, EOFError, OSError) as error:
                    _give_up(name, error, present, samples, result)
                    continue
                for what, value in found.items():
                    if isinstance(value, Rate):
                        _mark(marks.setdefault(f"{what} {name}", set()), value)
                        value = value.per_second
                    samples[what].setdefault(name, []).append(value)
    for name in present:
        result.rows.append(_row(name, samples, marks))
    _compare(present, samples, result)
    _claim(present, samples, result)
    result.details["samples"] = samples
    result.notes.append(
        f"Rounds, in turns: {plan.rounds}. Medians of the rounds, smallest and largest in "
        "brackets; ratios: the median of the rounds' ratios."
    )
    result.notes.append(
        "All clients run on uvloop, in processes of their own; InMemory knows only one process: "
        "its figures are of tasks, and are no peers. Members of the group are in two processes; "
        "the time is until the last of them has the message. deliveries/s: messages to that "
        "group, as fast as one sender goes."
    )
    result.notes.append(
        f"messages/s: of 50 bytes, from one process to one receiver in another; 1 task waits for "
        f"each send before the next, {SENDERS} tasks do so at a time. "
        "out of order: they did not arrive as they were sent."
    )
    return result


async def _measure_one(name: str, address: str, plan: Plan) -> dict[str, Any]:
    if name == MEMORY:
        trip, fan = await measures.own_round_trip(plan), await measures.own_fan_out(plan)
        one = await measures.own_throughput(plan, 1)
        many = await measures.own_throughput(plan, SENDERS)
    else:
        trip = await measures.round_trip(name, address, plan)
        fan = await measures.fan_out(name, address, plan)
        one = await measures.throughput(name, address, plan, 1)
        many = await measures.throughput(name, address, plan, SENDERS)
    return {
        ROUND: trip["p50"],
        "round trip p99": trip["p99"],
        GROUP: fan["p50"],
        BURST: fan["rate"],
        ONE: one,
        MANY: many,
    }


def _give_up(
    name: str, error: Exception, present: list[str], samples: Samples, result: report.Report
) -> None:
    """Measure a layer no more that did not deliver; claim what that means for ours."""
    text = f"{type(error).__name__} {error}".strip()
    present.remove(name)
    for by_name in samples.values():
        by_name.pop(name, None)
    result.notes.append(f"{name} was left out: it did not deliver ({text}).")
    if name == HUB:
        result.claim(f"{HUB} delivers", text, False)


def _mark(marks: set[str], rate: Rate) -> None:
    if rate.missing:
        marks.add("incomplete")
    if rate.disordered:
        marks.add("out of order")


def _row(name: str, samples: Samples, marks: dict[str, set[str]]) -> report.Row:
    row: report.Row = {"layer": name}
    for what, by_name in samples.items():
        cell = spread(by_name[name], DIGITS.get(what, 0))
        if said := marks.get(f"{what} {name}"):
            cell += f" ({', '.join(sorted(said))})"
        unit = ", µs" if what.startswith("round") else UNITS.get(what, "")
        row[what + unit] = cell
    return row


def _compare(present: list[str], samples: Samples, result: report.Report) -> None:
    if HUB not in present:
        return
    for name in present:
        if name in (HUB, MEMORY):
            continue
        row: report.Row = {f"{HUB} beside": name}
        for what in (ROUND, GROUP, BURST, ONE, MANY):
            row[what] = ratio(samples[what][HUB], samples[what][name])[1]
        result.rows.append(row)


def _claim(present: list[str], samples: Samples, result: report.Report) -> None:
    if HUB not in present:
        return

    def beside(what: str, names: tuple[str, ...]) -> list[float]:
        theirs = [samples[what][name] for name in names if name in present]
        return [ratio(samples[what][HUB], each)[0] for each in theirs]

    def claim(text: str, values: list[float], holds: bool) -> None:
        result.claim(text, ", ".join(f"{value:.3g}" for value in values), holds)

    if values := beside(ROUND, CORE):
        text = f"a round trip takes at most {QUARTER} of channels_redis core's"
        claim(text, values, max(values) <= QUARTER)
    if values := beside(ROUND, PUBSUB):
        claim("a round trip takes less than pubsub's", values, max(values) < 1)
    if values := beside(GROUP, PUBSUB):
        claim("a group of 100 has a message sooner than with pubsub", values, max(values) < 1)
    if values := beside(BURST, CORE):
        text = f"at least {DELIVERIES:g} times core's deliveries per second"
        claim(text, values, min(values) >= DELIVERIES)
    if values := beside(BURST, PUBSUB):
        claim("more deliveries per second than pubsub", values, min(values) > 1)
    rates = {what: statistics.median(samples[what][HUB]) for what in (ONE, MANY)}
    result.claim(
        f"at least {MESSAGES:,} messages/s from one sender to one receiver",
        ", ".join(f"{rate:,.0f} ({what.partition(', ')[2]})" for what, rate in rates.items()),
        max(rates.values()) >= MESSAGES,
    )


def main() -> int:
    """Run from the command line."""
    options = report.parser(MODULE, __doc__ or "")
    options.add_argument("--layers", nargs="*", choices=NAMES, default=list(NAMES))
    options.add_argument("--rounds", type=int, help="how often each is measured")
    arguments = options.parse_args()
    plan = Plan(1, 300, 60, 50, 5000) if arguments.quick else Plan()
    if arguments.rounds:
        plan = replace(plan, rounds=arguments.rounds)
    return report.run(MODULE, arguments, lambda: measure(arguments.layers, plan))


if __name__ == "__main__":
    sys.exit(main())
