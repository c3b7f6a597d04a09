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


class HubDemand:
    """Whether somebody needs the hub: from its first client on, in each generation of a site."""

    is_there = False


@dataclass(frozen=True, eq=False)  # two snapshots are never the same
class Generation:
    """One snapshot."""

    number: int
    loaded: Loaded = field(repr=False)
    others: dict[str, PoolSpecification] = field(repr=False)  # pools without the hub
    tasks: dict[str, TaskSpecification] = field(repr=False)
    hub: PoolSpecification | None = field(repr=False)
    hub_demand: HubDemand = field(repr=False)
    hub_at_once: bool = False  # whoever needs it

    @property
    def pools(self) -> dict[str, PoolSpecification]:
        """What runs, in the order of start; rollouts go the same way."""
        needs_hub = self.hub_at_once or self.hub_demand.is_there
        return {HUB: self.hub, **self.others} if self.hub and needs_hub else self.others

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
