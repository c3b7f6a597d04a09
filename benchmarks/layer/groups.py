"""What do 10,000 members of a group, and 100,000 groups, take? Beside channels_redis."""

import asyncio
import random
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

from benchmarks import report
from benchmarks.layer import contenders
from benchmarks.layer.contenders import CORE, CORE_UNIX, HUB, PUBSUB_UNIX, Servers
from benchmarks.layer.measures import percentile
from benchmarks.layer.others import closed, other
from benchmarks.process import memory

MODULE = "benchmarks.layer.groups"
NAMES = (HUB, CORE_UNIX, PUBSUB_UNIX)
CHANNELS = 100  # that are in all the groups of the second part
LONG = 600.0  # seconds


@dataclass(frozen=True)
class Plan:
    """How many."""

    members: int = 10_000
    groups: int = 100_000
    messages: int = 30  # to the large group
    small: int = 500  # to groups of one, chosen at random


async def measure(names: list[str], plan: Plan) -> report.Report:
    """Measure the layers, one after the other."""
    result = report.Report("Channel layers: many members, many groups")
    for name in names:
        # A server of its own for each: its memory is looked at.
        with contenders.started() as servers:
            if not servers.present([name], result.notes):
                continue
            report.progress(f"{name}: {plan.members:,} members")
            result.rows.append(await _members(name, servers, plan, result))
        with contenders.started() as servers:
            report.progress(f"{name}: {plan.groups:,} groups")
            result.rows.append(await _groups(name, servers, plan, result))
    result.notes.append(
        "members: in two processes, half of them each; to all: from group_send until the last of "
        "them has the message."
    )
    result.notes.append(
        f"groups: one membership each, of {CHANNELS} channels of one process, added and "
        "discarded by 20 tasks; a message: from group_send to a group chosen at random until it "
        "is received."
    )
    result.notes.append(
        "memory: private (USS), of the hub or Redis and of the process that has the members, in "
        "bytes for each membership; what the allocator had anyway, and keeps, is not in it."
    )
    return result


async def _members(name: str, servers: Servers, plan: Plan, result: report.Report) -> report.Row:
    address, pid = servers.addresses[name], servers.pids[name]
    layer = contenders.make(name, address)
    half = plan.members // 2
    messages = plan.messages // 3 if name in CORE else plan.messages
    before = memory(pid).private
    async with (
        other(name, address, "members", half) as first,
        other(name, address, "members", half) as second,
    ):
        added = await asyncio.gather(first.says(LONG), second.says(LONG))
        grown = memory(pid).private - before
        times: list[float] = []
        problem = ""
        try:
            for number in range(messages):
                began = time.monotonic()
                await layer.group_send("members", {"type": "m", "number": number, "tell": True})
                ended = await asyncio.gather(first.says(30), second.says(30))
                times.append(1e3 * (max(ended) - began))
        except Exception as error:
            problem = type(error).__name__
    await closed(layer)
    if name == HUB:
        result.claim(
            f"{plan.members:,} members of a group get each message",
            problem or f"{len(times)} of {messages}, p50 {statistics.median(times):.1f} ms",
            len(times) == messages,
        )
    return {
        f"{plan.members:,} members": name,
        "added, per second": round(plan.members / max(added)),
        "server, bytes each": round(grown / plan.members),
        "to all p50, ms": statistics.median(times) if times else None,
        "p99, ms": percentile(times, 0.99) if times else None,
        "did not reach all": problem or "–",
    }


async def _groups(name: str, servers: Servers, plan: Plan, result: report.Report) -> report.Row:
    address, pid = servers.addresses[name], servers.pids[name]
    layer = contenders.make(name, address)
    numbers = random.Random(3)
    async with other(name, address, "groups", plan.groups, CHANNELS) as process:
        await process.says()
        before = memory(pid).private, memory(process.pid).private
        await process.tell("add")
        added = await process.says(LONG)
        held = memory(pid).private, memory(process.pid).private
        times: list[float] = []
        problem: Any = ""
        try:
            for _ in range(plan.small):
                began = time.monotonic()
                group = f"group-{numbers.randrange(plan.groups)}"
                await layer.group_send(group, {"type": "m", "text": "hello"})
                times.append(1e3 * (await process.says(30) - began))
        except Exception as error:
            problem = type(error).__name__
        await process.tell("discard")
        discarded = await process.says(LONG)
        await asyncio.sleep(0.5)
        after = memory(pid).private
    await closed(layer)
    each = [(held[place] - before[place]) / plan.groups for place in (0, 1)]
    if name == HUB:
        result.claim(
            f"{plan.groups:,} groups, each of which gets its messages",
            problem or f"{len(times)} of {plan.small}, {sum(each):.0f} bytes for each membership",
            len(times) == plan.small,
        )
    return {
        f"{plan.groups:,} groups": name,
        "added, per second": round(plan.groups / added),
        "discarded, per second": round(plan.groups / discarded),
        "server, bytes each": round(each[0]),
        "client, bytes each": round(each[1]),
        "a message p50, ms": statistics.median(times) if times else None,
        "server before, with all, after, MB": " ".join(
            f"{value / 1e6:.1f}" for value in (before[0], held[0], after)
        ),
        "lost": problem or "–",
    }


def main() -> int:
    """Run from the command line."""
    options = report.parser(MODULE, __doc__ or "")
    options.add_argument("--layers", nargs="*", choices=(*NAMES, CORE[1]), default=list(NAMES))
    arguments = options.parse_args()
    plan = Plan(400, 2_000, 10, 50) if arguments.quick else Plan()
    return report.run(MODULE, arguments, lambda: measure(arguments.layers, plan))


if __name__ == "__main__":
    sys.exit(main())
