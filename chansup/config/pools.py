"""The pools and tasks of a config, whatever table they stand in."""

import msgspec

from chansup.config.keys import Key
from chansup.config.schema import Config, Interface, Program, Task, Workers

GROUPS = ("workers", "programs", "tasks")  # names that stand for every pool of their table
HUB = "hub"  # the pool of the hub of chansup's own channel layer
RESERVED = ("interface", *GROUPS, HUB, "supervisor")


class Entry(msgspec.Struct, frozen=True):
    """One pool or task, under its name."""

    name: str
    key: Key  # of its table in the file
    table: Interface | Workers | Program | Task


def entries(config: Config) -> list[Entry]:
    """Return every pool and task, in the order in which they stand in the schema."""
    found = []
    if config.interface is not None:
        found.append(Entry("interface", ("interface",), config.interface))
    for group in GROUPS:
        found.extend(
            Entry(name, (group, name), table) for name, table in getattr(config, group).items()
        )
    return found
