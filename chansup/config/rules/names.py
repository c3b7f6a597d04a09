"""Rules of the names of pools and tasks, and of who waits for whom."""

import re
from collections.abc import Iterator

from chansup.config import order, pools
from chansup.config.keys import Finding, listed, quoted
from chansup.config.rules.context import Context

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}\Z")


def valid(context: Context) -> Iterator[Finding]:
    """A name is plain, free, and used once."""
    owners: dict[str, str] = {}
    for entry in context.entries:
        if entry.key == ("interface",):
            continue
        if entry.name in pools.RESERVED:
            yield entry.key, f"{quoted(entry.name)} is chansup's own word: choose another name"
        elif not _NAME.match(entry.name):
            message = (
                f"{quoted(entry.name)} is not a name of a pool: expected a small letter, then "
                'small letters, digits, "_" and "-", 63 at most'
            )
            yield entry.key, message
        elif entry.name in owners:
            message = (
                f"{owners[entry.name]} has the same name: names are unique over workers, "
                "programs and tasks"
            )
            yield entry.key, message
        owners.setdefault(entry.name, f"[{entry.key[0]}.{entry.name}]")


def existing(context: Context) -> Iterator[Finding]:
    """`after` and `before` name other pools that exist."""
    known = context.entries
    names = {entry.name for entry in known}
    for entry in known:
        for field in ("after", "before"):
            for place, name in enumerate(getattr(entry.table, field, ())):
                key = (*entry.key, field, place)
                if name == entry.name:
                    yield key, f"{quoted(name)} cannot wait for itself: remove it"
                elif name not in pools.GROUPS and name not in names:
                    choices = [*sorted(names - {entry.name}), *pools.GROUPS]
                    yield key, f"unknown pool {quoted(name)}: expected {listed(choices)}"


def no_circle(context: Context) -> Iterator[Finding]:
    """Nobody waits for itself, through others."""
    circle = order.cycle(context.config)
    if circle:
        owner = next(entry for entry in context.entries if entry.name == circle[0])
        chain = " waits for ".join(circle)
        yield owner.key, f"can never start: {chain}. Take one name out of after or before"


def aimless_tasks(context: Context) -> Iterator[Finding]:
    """A task that nothing waits for, and that waits for nothing."""
    needed = set().union(*order.dependencies(context.config).values())
    for name, task in context.config.tasks.items():
        if name not in needed and not task.after:
            yield ("tasks", name), 'nothing waits for it: add before = ["interface", "workers"]'
