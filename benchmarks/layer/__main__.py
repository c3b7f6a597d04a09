"""What does a message between processes take, and how many go through? Beside channels_redis."""

import sys
from typing import Any

from benchmarks.layer import contenders, measures
from benchmarks.layer.contenders import CORE, HUB, MEMORY, NAMES, PUBSUB
from benchmarks.layer.measures import Plan
from benchmarks.report import Report, parser, progress, run

SENDERS = 50


async def measure(names: list[str], plan: Plan) -> Report:
    """Measure each layer, one after the other."""
    report = Report("Channel layers: latency and throughput between processes")
    found: dict[str, dict[str, Any]] = {}
    with contenders.started() as addresses:
        for name in names:
            if name not in addresses:
                report.notes.append(f"{name}: no redis-server here")
                continue
            address = addresses[name]
            progress(name)
            if name == MEMORY:
                inside = await measures.in_memory(plan)
                row: dict[str, Any] = {
                    "round trip p50, µs": round(inside["round"], 1),
                    "p99, µs": None,
                    "group of 100 p50, ms": round(inside["fan"], 3),
                    "p99, ms": None,
                    "deliveries/s": round(inside["rate"]),
                    "messages/s": None,
                    f"messages/s, {SENDERS} tasks": None,
                }
            else:
                own = plan.for_slow_ones() if name in CORE else plan
                trip = await measures.round_trip(name, address, own)
                fan = await measures.fan_out(name, address, own)
                one = await measures.throughput(name, address, own, 1)
                many = await measures.throughput(name, address, own, SENDERS)
                row = {
                    "round trip p50, µs": round(trip["p50"], 1),
                    "p99, µs": round(trip["p99"], 1),
                    "group of 100 p50, ms": round(fan["p50"], 3),
                    "p99, ms": round(fan["p99"], 3),
                    "deliveries/s": round(fan["rate"]),
                    "messages/s": one,
                    f"messages/s, {SENDERS} tasks": many,
                }
            found[name] = row
            report.rows.append({"layer": name, **row})
    _claim(report, found)
    report.notes.append(
        "All clients run on uvloop, in processes of their own; InMemory knows only one process. "
        "Members of the group are in two processes; the time is until the last of them has it. "
        f"Messages/s: one process sends to one receiver in another, with one task or {SENDERS}; "
        "no figure where they did not arrive in the order in which they were sent."
    )
    return report


def _claim(report: Report, found: dict[str, dict[str, Any]]) -> None:
    ours = found.get(HUB)
    core = [found[name] for name in CORE if name in found]
    pubsub = [found[name] for name in PUBSUB if name in found]
    if ours is None:
        return
    best = max(ours["messages/s"] or 0, ours[f"messages/s, {SENDERS} tasks"] or 0)
    report.claim("at least 30,000 messages/s to one receiver", f"{best}", best >= 30_000)
    if not core or not pubsub:
        return
    trip = ours["round trip p50, µs"]
    fast_core = min(row["round trip p50, µs"] for row in core)
    fast_pubsub = min(row["round trip p50, µs"] for row in pubsub)
    report.claim(
        "round trip at most a quarter of channels_redis core's, and below pubsub's",
        f"{trip} µs beside {fast_core} and {fast_pubsub}",
        trip <= fast_core / 4 and trip < fast_pubsub,
    )
    group = ours["group of 100 p50, ms"]
    fast_group = min(row["group of 100 p50, ms"] for row in pubsub)
    report.claim(
        "a message reaches a group of 100 sooner than with pubsub",
        f"{group} ms beside {fast_group}",
        group < fast_group,
    )
    rate = ours["deliveries/s"]
    core_rate = max(row["deliveries/s"] for row in core)
    pubsub_rate = max(row["deliveries/s"] for row in pubsub)
    report.claim(
        "deliveries at least 5 times channels_redis core's, and above pubsub's",
        f"{rate} /s beside {core_rate} and {pubsub_rate}",
        rate >= 5 * core_rate and rate > pubsub_rate,
    )


def main() -> int:
    """Run it."""
    options = parser("benchmarks.layer", __doc__ or "")
    options.add_argument("--layers", nargs="*", choices=NAMES, default=list(NAMES))
    arguments = options.parse_args()
    plan = Plan(500, 100, 50, 5000) if arguments.quick else Plan()
    return run("benchmarks.layer", arguments, lambda: measure(arguments.layers, plan))


if __name__ == "__main__":
    sys.exit(main())
