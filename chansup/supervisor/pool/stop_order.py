"""Which pools end before which: those that need another one end first."""

from collections.abc import Iterable, Mapping, Sequence

from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.pool.pool import Pool


def dependents(stage: Sequence[Pool], generation: Generation) -> dict[Pool, list[Pool]]:
    """Return, for each pool of `stage`, those of it that need it, directly or through others.

    `stage` is in the order of the stop, so no pool waits for one that stands behind it: whatever
    reloads left there, nothing waits in a circle.
    """
    after: dict[str, frozenset[str]] = {
        **{name: task.program.after for name, task in generation.tasks.items()},
        **{name: pool.after for name, pool in generation.pools.items()},
        **{pool.name: pool.specification.after for pool in stage},
    }
    needed = {pool: _closure(pool.name, after) for pool in stage}
    return {
        pool: [other for other in stage[:place] if pool.name in needed[other]]
        for place, pool in enumerate(stage)
    }


def levels(needed_by: Mapping[Pool, Iterable[Pool]]) -> dict[Pool, int]:
    """Return how many pools end one after the other before each; `needed_by` is in stop order."""
    found: dict[Pool, int] = {}
    for pool, others in needed_by.items():
        found[pool] = 1 + max((found[other] for other in others), default=-1)
    return found


def _closure(name: str, after: Mapping[str, frozenset[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        for other in after.get(waiting.pop(), ()):
            if other not in reached:
                reached.add(other)
                waiting.append(other)
    return reached - {name}
