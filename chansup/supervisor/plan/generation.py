"""A generation: one snapshot of config, resolved directory and environment, and what it runs."""

from dataclasses import dataclass, field
from pathlib import Path

from chansup.config import (
    hub,
    schema,
)
from chansup.config.load import Loaded
from chansup.config.pools import HUB
from chansup.protocol.channel_layer import Place
from chansup.supervisor.plan.specification import PoolSpecification, TaskSpecification


@dataclass(frozen=True, eq=False)  # two snapshots are never the same
class Generation:
    """One snapshot. `pools` stand in the order of start; rollouts go the same way."""

    number: int
    loaded: Loaded = field(repr=False)
    pools: dict[str, PoolSpecification] = field(repr=False)
    tasks: dict[str, TaskSpecification] = field(repr=False)
    hub: PoolSpecification | None = field(repr=False, default=None)  # in `pools` once it is needed

    def with_hub(self) -> None:
        """Have the hub among the pools from now on: somebody needs it."""
        if self.hub is not None and HUB not in self.pools:
            others = dict(self.pools)
            self.pools.clear()
            self.pools.update({HUB: self.hub, **others})

    def layer(self, address: str) -> Place:
        """Return where its channel layer is, if the hub's socket is at `address`."""
        return hub.place_at(self.config, address)

    @property
    def config(self) -> schema.Config:
        """The config file's content."""
        return self.loaded.config

    @property
    def relays(self) -> bool:
        """Whether its interface processes relay to app workers."""
        interface = self.pools.get("interface")
        return interface is not None and interface.relays

    @property
    def directory(self) -> Path:
        """The application directory, symlinks resolved."""
        return self.loaded.directory

    def can_start_beside(self, other: "Generation") -> bool:
        """Whether its code is still there: in a release directory that `other` does not share."""
        return self.directory != other.directory and self.directory.is_dir()
