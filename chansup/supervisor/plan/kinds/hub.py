"""The hub of chansup's own channel layer."""

import os
import sys
from dataclasses import replace

from chansup.config import (
    accounts,
    hub,
    schema,
    size,
)
from chansup.config.pools import HUB
from chansup.supervisor.plan import installed
from chansup.supervisor.plan.builder import Builder
from chansup.supervisor.plan.descriptors import most_descriptors
from chansup.supervisor.plan.specification import PoolSpecification


def hub_pool(builder: Builder) -> PoolSpecification:
    """Return the hub of chansup's own channel layer: nothing in it is of the app."""
    table = builder.config.channel_layer
    owner = hub.owner(builder.config)
    own = hub.user_ids(owner)
    if table.user is None and not all(map(installed.is_reachable, own)):
        owner, own = hub.Owner(), {os.geteuid()}  # as pipx has it for root, in its home
    others = sorted(hub.users(builder.config) - own - {0})
    words = [sys.executable, "-m", "chansup.layer.hub", "--descriptor", "3"]
    words += ["--memory", str(size.parse(table.memory))]
    words += ["--connections", str(table.connections)]
    words += [word for user in others for word in ("--user", str(user))]
    settings = schema.Pool(user=owner.user, group=owner.group)
    command = replace(
        builder.command(settings, words, HUB),
        environment=accounts.environment(builder.inherited, owner.user, owner.group),
        directory="/",  # every user can be there
        limits={"nofile": most_descriptors()},
    )
    specification = builder.pool(
        HUB, "hub", settings, command, label="channel layer", ready="notify", on_reload="keep"
    )
    identity = (installed.fingerprint(), tuple(words), specification.liveness_timeout)
    return replace(
        specification,
        identity=identity,
        runs_as=min(own, default=None),
        users=frozenset((*own, *others)),
    )
