"""The hub of chansup's own channel layer, as a config describes it."""

import os
from collections.abc import Mapping

import msgspec

from chansup.config import accounts, channels, relay, runtime_places
from chansup.config.load import Loaded
from chansup.config.pools import Entry, entries
from chansup.config.schema import Config, Pool, Task
from chansup.protocol.channel_layer import SOCKET, Place


class Owner(msgspec.Struct, frozen=True):
    """As whom the hub runs; None: as whoever runs the supervisor."""

    user: str | None = None
    group: str | None = None


def is_local(config: Config) -> bool:
    """Whether the site's channel layer is chansup's own."""
    return config.channel_layer.backend == "local"


def place(loaded: Loaded, environ: Mapping[str, str]) -> Place:
    """Return where the channel layer is, or would be if the site ran."""
    config = loaded.config
    configured = config.supervisor.runtime_directory
    directory = runtime_places.directories(loaded.path, configured, environ)[0]
    return place_at(config, str(directory / SOCKET))


def place_at(config: Config, address: str) -> Place:
    """Return where the channel layer is if the hub's socket is at `address`."""
    table = config.channel_layer
    return Place(table.backend, address if is_local(config) else None, table.options)


def starts_at_once(config: Config, document: Mapping[str, object]) -> bool:
    """Whether the file says that there is to be a hub, and it need not wait for a first client."""
    return is_local(config) and ("channel_layer" in document or bool(channels.workers(config)))


def clients(config: Config) -> list[Entry]:
    """Return the pools and tasks that may use the channel layer: those that can run app code.

    In relay mode the interface runs none, and it is what strangers speak to.
    """
    relays = relay.is_relay(config)
    return [entry for entry in entries(config) if entry.table is not config.interface or not relays]


def owner(config: Config) -> Owner:
    """Return as whom the hub runs: as the table says, else as its clients do if they agree."""
    if config.channel_layer.user is not None:
        return Owner(config.channel_layer.user)
    owners = {
        Owner(entry.table.user, entry.table.group)
        for entry in clients(config)
        if isinstance(entry.table, Pool)
    }
    return owners.pop() if len(owners) == 1 else Owner()


def users(config: Config) -> frozenset[int]:
    """Return the user ids of all who may connect; those that do not exist are left out."""
    found = {os.geteuid()}
    for entry in clients(config):
        table: Pool | Task | object = entry.table
        if isinstance(table, Pool | Task):
            found |= user_ids(Owner(table.user, table.group))
    return frozenset(found)


def user_ids(one: Owner) -> set[int]:
    """Return the user id of an owner, or nothing if there is no such user."""
    try:
        account = accounts.find(one.user, one.group)
    except ValueError:  # the rules, or its own start, say so
        return set()
    return {os.geteuid() if account is None else account.user}
