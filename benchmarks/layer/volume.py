"""A million messages through the hub: none lost, none twice, in order, and the memory stays.

Two processes send to twenty channels of two other processes: half of them have names that anybody
may use, half belong to their process. Each sender numbers what it sends to each channel.
"""

import asyncio
import contextlib
import sys
import time
from dataclasses import dataclass

from benchmarks import report
from benchmarks.layer import contenders
from benchmarks.layer.contenders import HUB
from benchmarks.layer.others import Other, other
from benchmarks.process import memory

MODULE = "benchmarks.layer.volume"
SENDERS = RECEIVERS = 2
CHANNELS = 5  # named ones of each receiver, and as many of its own
GROWTH = 8e6  # bytes that a process may have more at the end than early on


@dataclass(frozen=True)
class Plan:
    """How much."""

    messages: int = 1_000_000
    settle: float = 5.0  # seconds before the last look


async def measure(plan: Plan) -> report.Report:
    """Send them all, and look."""
    result = report.Report(f"Channel layer: {plan.messages:,} messages through the hub")
    with contenders.started() as servers:
        async with contextlib.AsyncExitStack() as stack:
            receivers, senders = [], []
            address = servers.addresses[HUB]
            for number in range(RECEIVERS):
                job = other(HUB, address, "verify", CHANNELS, number)
                receivers.append(await stack.enter_async_context(job))
            channels = [name for each in receivers for name in await each.says()]
            each_channel = plan.messages // (SENDERS * len(channels))
            for number in range(SENDERS):
                job = other(HUB, address, "pour", number, each_channel)
                senders.append(await stack.enter_async_context(job))
            for sender in senders:
                await sender.says()
            pids = {"hub": servers.pids[HUB]}
            pids |= {f"sender {number}": each.pid for number, each in enumerate(senders)}
            pids |= {f"receiver {number}": each.pid for number, each in enumerate(receivers)}
            total = each_channel * SENDERS * len(channels)
            await _pour(senders, receivers, channels, total, pids, plan, result)
    return result


async def _pour(
    senders: list[Other],
    receivers: list[Other],
    channels: list[str],
    total: int,
    pids: dict[str, int],
    plan: Plan,
    result: report.Report,
) -> None:
    looks = [("before", _resident(pids))]
    began = time.monotonic()
    for sender in senders:
        await sender.tell(channels)
    sending = [asyncio.create_task(sender.says(3600)) for sender in senders]
    steps = iter([0.1, 0.25, 0.5, 0.75, 1.1])
    step = next(steps)
    last, moved, told = 0, time.monotonic(), time.monotonic()
    while True:
        found = await _ask(receivers)
        received = sum(each["received"] for each in found)
        if received != last:
            last, moved = received, time.monotonic()
        if time.monotonic() - told > 3:
            told = time.monotonic()
            report.progress(f"{received:,} of {total:,}")
        while received >= step * total:
            looks.append((f"{step:.0%}", _resident(pids)))
            step = next(steps)
        if received >= total or any(each["failed"] for each in found):
            break
        if time.monotonic() - moved > 30:
            break  # what has not come by now does not come
        await asyncio.sleep(0.2)
    took = time.monotonic() - began
    looks.append(("all received", _resident(pids)))
    sent = await asyncio.gather(*sending) if received >= total else []
    await asyncio.sleep(plan.settle)
    looks.append((f"{plan.settle:g} s later", _resident(pids)))
    found = await _ask(receivers)  # anything that came twice has come by now
    _report(found, sent, total, took, looks, result)


async def _ask(receivers: list[Other]) -> list[dict]:
    for receiver in receivers:
        await receiver.tell("how many")
    return [await receiver.says() for receiver in receivers]


def _resident(pids: dict[str, int]) -> dict[str, int]:
    return {name: memory(pid).resident for name, pid in pids.items()}


def _report(
    found: list[dict],
    sent: list[dict],
    total: int,
    took: float,
    looks: list[tuple[str, dict[str, int]]],
    result: report.Report,
) -> None:
    counts = {key: sum(each[key] for each in found) for key in ("received", "twice", "disordered")}
    lost = total - counts["received"] + counts["twice"]
    result.rows.append(
        {
            "sent": total,
            "received": counts["received"],
            "lost": lost,
            "twice": counts["twice"],
            "out of order": counts["disordered"],
            "per second": round(total / took),
            "tried again, the channel was full": sum(each["full"] for each in sent),
        }
    )
    for name in looks[0][1]:
        result.rows.append(
            {"RSS, MB": name, **{when: f"{each[name] / 1e6:.1f}" for when, each in looks}}
        )
    result.claim("no message is lost", f"{lost} of {total:,}", lost == 0)
    result.claim("none comes twice", f"{counts['twice']}", counts["twice"] == 0)
    missing = sum(each["missing"] for each in found)
    result.claim(
        "the order in a channel is kept",
        f"{counts['disordered']} out of order",
        counts["disordered"] == 0 and not missing,
    )
    early = dict(looks).get("10%", looks[0][1])
    grown = {name: looks[-1][1][name] - early[name] for name in early}
    result.claim(
        f"no process has more than {GROWTH / 1e6:g} MB more at the end than after a tenth",
        ", ".join(f"{name} {value / 1e6:+.1f}" for name, value in grown.items()),
        max(grown.values()) <= GROWTH,
    )
    for failure in (text for each in found for text in each["failed"]):
        result.claim("receivers go on", failure, False)
    result.details["looks"] = looks
    result.notes.append(
        f"{SENDERS} sending processes, each with a task for each of {RECEIVERS * CHANNELS * 2} "
        f"channels; {RECEIVERS} receiving processes. A channel holds 2,000; a sender that finds "
        "it full tries again."
    )


def main() -> int:
    """Run from the command line."""
    options = report.parser(MODULE, (__doc__ or "").partition("\n")[0])
    options.add_argument("--messages", type=int, help="how many")
    arguments = options.parse_args()
    plan = Plan(40_000, 1.0) if arguments.quick else Plan()
    if arguments.messages:
        plan = Plan(arguments.messages, plan.settle)
    return report.run(MODULE, arguments, lambda: measure(plan))


if __name__ == "__main__":
    sys.exit(main())
