"""Whether workers keep up with a channel, in words."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["keeps_up", "falls_behind", "not_consumed", "idle", "unclear"]

NOISE = 0.05  # of what arrives: a queue that grows by no more may be one that only sways
LEAST = 2  # messages: the same, where few arrive
FULLY = 0.9  # busy: nothing to spare


@dataclass(frozen=True)
class Situation:
    """How one channel fared, over all pools that consume it."""

    seconds: float
    arrived: int  # messages, as far as can be told
    done: int
    depth: int | None  # that wait at the end
    change: int | None
    stood: bool  # some waited at both ends
    idle: bool  # none was in hand at either end
    refused: int  # messages that were for it, as too many waited or for too long
    refused_anywhere: int  # such messages that were for any channel, perhaps for this one
    ready: int  # processes
    pools: list[tuple[str, int]]  # name, desired processes
    busy: float  # share of the time, of those pools
    enough: Callable[[int], int | None]  # processes of `advised` that would do for so many
    advised: str
    advised_ready: int


def judge(seen: Situation) -> tuple[Verdict, str]:
    """Return the verdict, and a sentence for people."""
    waiting = seen.depth or 0
    if not seen.ready:
        return "not_consumed", _not_consumed(seen, waiting)
    grown = seen.change is not None and seen.change >= max(LEAST, NOISE * seen.arrived)
    if grown or seen.refused:
        return "falls_behind", _falls_behind(seen)
    if seen.refused_anywhere and seen.stood and seen.done and seen.busy >= FULLY:
        return "falls_behind", _full(seen)
    if not seen.done and waiting and seen.idle:
        return "falls_behind", f"falls behind: {waiting} wait, and nobody takes them"
    if not seen.done and not waiting and seen.idle:
        return "idle", "no messages came"
    if not seen.done and seen.stood:
        words = f"falls behind: {waiting} wait, and none was done within {seen.seconds:.3g} s"
        return "falls_behind", f"{words}; if one takes longer than that, measure longer"
    if not seen.done:
        return "unclear", f"none was done within {seen.seconds:.3g} s: measure longer"
    if seen.depth is None:
        if seen.busy >= FULLY:
            return "unclear", "busy all the time: whether others wait cannot be told"
        return "keeps_up", f"keeps up, {seen.busy:.0%} busy"
    if seen.change is not None and -seen.change >= max(LEAST, NOISE * seen.arrived):
        return "keeps_up", f"keeps up: works off what waits, {seen.busy:.0%} busy"
    if seen.stood and seen.busy >= FULLY:
        return "keeps_up", "keeps up, with nothing to spare"
    return "keeps_up", f"keeps up, {seen.busy:.0%} busy"


def _not_consumed(seen: Situation, waiting: int) -> str:
    pools = ", ".join(f"0 of {desired} processes of {name}" for name, desired in seen.pools)
    words = f"nobody consumes it: {pools} are ready"
    return f"{words}; {waiting} wait" if waiting else words


def _falls_behind(seen: Situation) -> str:
    arriving, done, unit = rates(seen.arrived, seen.done, seen.seconds)
    words = f"falls behind: {arriving} messages/{unit} arrive, {done} are handled"
    return words + _advice(seen, seen.arrived)


def _full(seen: Situation) -> str:
    """Describe a channel that is as full as may be, if it was what messages were refused for."""
    done, refused, unit = rates(seen.done, seen.refused_anywhere, seen.seconds)
    words = f"falls behind: {done} messages/{unit} are handled, up to {refused} are refused"
    return words + _advice(seen, seen.arrived + seen.refused_anywhere)


def _advice(seen: Situation, arriving: int) -> str:
    enough = seen.enough(arriving)
    if enough is None or enough <= seen.advised_ready:
        return ""
    of_pool = f" of {seen.advised}" if len(seen.pools) > 1 else ""
    return f"; {enough} processes{of_pool} would do"


def rates(first: int, second: int, seconds: float) -> tuple[str, str, str]:
    """Return two rates in the same unit, and its name: per second, or minute if they are low."""
    factor, unit = (1.0, "s") if first >= seconds else (60.0, "min")
    return _number(first * factor / seconds), _number(second * factor / seconds), unit


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
