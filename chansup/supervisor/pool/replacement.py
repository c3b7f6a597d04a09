"""The ways in which a slot gets another process in the place of the one that fills it.

Overlap: the new one is ready before the old one drains. Restart: the old one ends first, for a
program that cannot run twice at a time. TakeOver: the new one gets what the old one holds.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

from chansup.protocol.states import State
from chansup.supervisor.errors import SlotRemovedError, SpawnError, StartFailedError
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.plan.specification import PoolSpecification
from chansup.supervisor.pool.slot import Slot
from chansup.supervisor.process import boot
from chansup.supervisor.process.process import Process

Retiring = Callable[[Process], None]
Turn = Callable[[], Awaitable[None]]


async def replace(
    slot: Slot,
    generation: Generation | None,
    reason: str,
    retiring: Retiring = lambda process: None,
    turn: Turn | None = None,
) -> None:
    """Replace the process of `slot` in the way its pool wants it; None: by its own generation.

    `retiring` hears of the old process when it begins to drain. The new one is put in its place
    when `turn` returns.

    Raises StartFailedError or SlotRemovedError.
    """
    work = _replace(slot, generation, reason, retiring, turn)
    if not slot.pool.specification.takes_over:
        await work
        return
    # Never broken off in the middle: the predecessor may have given all it had, and be gone.
    task = slot.background.start(work)
    task.add_done_callback(_heard)
    await asyncio.wait([task])
    task.result()


async def _replace(
    slot: Slot,
    generation: Generation | None,
    reason: str,
    retiring: Retiring,
    turn: Turn | None,
) -> None:
    async with slot.changing:
        # Only now: whoever had the slot until now may have changed what it runs.
        generation = generation or slot.generation or slot.pool.site.generation
        way = _way(slot, generation.pools[slot.pool.name])
        await way.carry_out(generation, reason, retiring, turn)


def _way(slot: Slot, new: PoolSpecification) -> "Replacement":
    if new.on_reload == "overlap":
        return Overlap(slot)
    return TakeOver(slot) if TakeOver.can_give_to(slot, new) else Restart(slot)


class Replacement(ABC):
    """One way. Whoever carries it out has the slot's lock."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot

    @abstractmethod
    async def carry_out(
        self, generation: Generation, reason: str, retiring: Retiring, turn: Turn | None
    ) -> None:
        """Fill the slot by `generation`. Raises StartFailedError or SlotRemovedError."""


class Overlap(Replacement):
    """New first, then old."""

    async def carry_out(
        self, generation: Generation, reason: str, retiring: Retiring, turn: Turn | None
    ) -> None:
        """Fill the slot by `generation`. Raises StartFailedError or SlotRemovedError."""
        await prepare(self._slot, generation)
        if turn is not None:
            await turn()
        await _promote(self._slot, reason, retiring)


class TakeOver(Overlap):
    """New first, and the old one gives it what it has: for a hub."""

    @staticmethod
    def can_give_to(slot: Slot, new: PoolSpecification) -> bool:
        """Whether there is a hub that gives what it has to the one that `new` describes."""
        process = slot.current
        return (
            new.takes_over
            and process is not None
            and process.state in (State.STARTING, State.READY)
            and not process.hung
            and (new.runs_as in process.specification.users or new.runs_as == 0)
        )


class Restart(Replacement):
    """Old first, then new: for a program that cannot run twice at a time."""

    async def carry_out(
        self, generation: Generation, reason: str, retiring: Retiring, turn: Turn | None
    ) -> None:
        """Fill the slot by `generation`. Raises StartFailedError or SlotRemovedError."""
        slot = self._slot
        slot.require_place()
        former = slot.generation
        slot.wanted = False
        slot.stop_retrying()
        process, slot.current = slot.current, None
        try:
            if process is not None:
                retiring(process)
                await asyncio.shield(slot.retirements.begin(process))
            await slot.retirements.remains_gone()
            await prepare(slot, generation)
        except (StartFailedError, SlotRemovedError, asyncio.CancelledError):
            if former is not None and not slot.stopped:
                slot.start(former)
            raise
        slot.wanted = True
        await _promote(slot, reason, retiring)


async def prepare(slot: Slot, generation: Generation) -> None:
    """Start a successor and wait until it is ready beside the current process.

    Raises StartFailedError or SlotRemovedError; the current process is not touched.
    """
    slot.require_place()
    if slot.has_prepared(generation):
        return  # when the code was proved
    slot.dismiss()
    try:
        process = slot.spawn(generation, beside=slot.current is not None)
    except SpawnError as error:
        raise StartFailedError(f"{slot.name}: {error}", [str(error)]) from None
    slot.successor = process
    try:
        ready = await boot.wait(process, slot.say)
    except asyncio.CancelledError:
        slot.dismiss()
        raise
    slot.require_place()
    if not ready:
        raise StartFailedError(
            f"{slot.name}: {_why_not_ready(process)}", slot.recent.last_words(process.pid)
        )


async def _promote(slot: Slot, reason: str, retiring: Retiring) -> None:
    """Put the ready successor in the slot, and retire its predecessor until that is gone.

    Raises StartFailedError if the successor ended meanwhile, or SlotRemovedError.
    """
    slot.require_place()
    if slot.successor is None:
        raise StartFailedError(f"{slot.name}: the new process ended right after it was ready", [])
    predecessor, slot.current, slot.successor = slot.current, slot.successor, None
    slot.settle_with(slot.current.generation, reason)
    slot.pool.changed()
    if predecessor is not None:
        retiring(predecessor)
        retirement = slot.retirements.begin(predecessor)
        if slot.current.lost:  # nothing of it can be saved, and its clients wait for it
            slot.say(f"{slot.current.lost}: what it had is lost, killing it", predecessor)
            predecessor.kill()
        await asyncio.shield(retirement)


def _why_not_ready(process: Process) -> str:
    if process.refused:
        return process.refused
    if process.late and process.has_booted:
        limit = process.specification.start_timeout
        return f"it has booted, but no interface process has greeted it within {limit:g} s"
    if process.late:
        limit = process.specification.start_timeout
        why = f": {boot.NO_ACCEPT}" if process.specification.ready == "accepts" else ""
        return f"not ready within {limit:g} s{why}"
    return f"ended before it was ready ({process.exit})"


def _heard(task: "asyncio.Task[None]") -> None:
    """Take a result that perhaps nobody waits for any more."""
    if not task.cancelled():
        task.exception()
