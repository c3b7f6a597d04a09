"""What must be ready or done before what, from every `after` and `before`."""

import graphlib

from chansup.config.pools import GROUPS, Entry, entries
from chansup.config.schema import Config, Task


def dependencies(config: Config) -> dict[str, set[str]]:
    """Return, for each pool and task, the names that must be ready or done before it starts.

    Names that do not exist are left out; the rules report them.
    """
    known = entries(config)
    needs: dict[str, set[str]] = {entry.name: set() for entry in known}
    for entry in known:
        for name in entry.table.after:
            needs[entry.name] |= members(name, known)
        if isinstance(entry.table, Task):
            for name in entry.table.before:
                for member in members(name, known):
                    needs[member].add(entry.name)
    for name, before in needs.items():
        before.discard(name)  # "workers" in a worker's own `after` means the others
    return needs


def start_order(config: Config) -> list[str]:
    """Return all names so that each stands after what it needs; the same config, the same order.

    Raises graphlib.CycleError where `after` and `before` go round in a circle.
    """
    return list(graphlib.TopologicalSorter(_sorted(dependencies(config))).static_order())


def cycle(config: Config) -> list[str]:
    """Return names that wait for each other in a circle, the first again at the end, or nothing."""
    try:
        graphlib.TopologicalSorter(_sorted(dependencies(config))).prepare()
    except graphlib.CycleError as error:
        circle: list[str] = error.args[1]
        return circle[::-1]  # as graphlib has it, each is needed by the next
    return []


def members(name: str, known: list[Entry]) -> set[str]:
    """Return the pools that a name in `after` or `before` stands for: one, or a table's."""
    if name in GROUPS:
        return {entry.name for entry in known if entry.key[0] == name}
    return {entry.name for entry in known if entry.name == name}


def _sorted(needs: dict[str, set[str]]) -> dict[str, list[str]]:
    return {name: sorted(before) for name, before in needs.items()}
