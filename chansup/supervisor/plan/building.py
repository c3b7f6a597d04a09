"""From a config file to a generation."""

from collections.abc import Mapping
from dataclasses import replace

from chansup.config import (
    hub,
    order,
    schema,
)
from chansup.config.load import Loaded
from chansup.supervisor.plan.builder import Builder
from chansup.supervisor.plan.command import Command
from chansup.supervisor.plan.generation import Generation, HubDemand
from chansup.supervisor.plan.kinds.hub import hub_pool
from chansup.supervisor.plan.kinds.interface import interface_pool
from chansup.supervisor.plan.kinds.programs import program_pool
from chansup.supervisor.plan.kinds.tasks import task
from chansup.supervisor.plan.kinds.workers import workers_pool
from chansup.supervisor.plan.specification import KINDS, PoolSpecification


def build(
    number: int,
    loaded: Loaded,
    environ: Mapping[str, str],
    hub_demand: HubDemand | None = None,
) -> Generation:
    """Return the generation that `loaded` describes, in processes that inherit `environ`.

    `hub_demand` is that of the generations before.
    """
    builder = Builder(loaded, environ)
    config = loaded.config
    pools: dict[str, PoolSpecification] = {}
    for name, program in config.programs.items():
        pools[name] = program_pool(builder, name, program)
    for name, workers in config.workers.items():
        pools[name] = workers_pool(builder, name, workers)
    if config.interface is not None:
        pools["interface"] = interface_pool(builder, config.interface)
    tasks = {name: task(builder, name, table) for name, table in config.tasks.items()}
    in_order = order.start_order(config)
    return Generation(
        number,
        loaded,
        {name: pools[name] for name in _by_kind(in_order, pools)},
        {name: tasks[name] for name in in_order if name in tasks},
        hub_pool(builder) if hub.is_local(config) else None,
        hub_demand or HubDemand(),
        hub.starts_at_once(config, loaded.document),
    )


def one_off(
    loaded: Loaded, environ: Mapping[str, str], words: list[str], pool: str | None
) -> Command:
    """Return the command `words`, run as the processes of `pool` are, or as tasks of the site.

    Without a pool it runs as the user that all pools that run the app's code have in common.
    Raises KeyError for a pool that the config does not have.
    """
    if pool is not None:
        return replace(build(0, loaded, environ).pools[pool].command, argv=tuple(words))
    owner = hub.owner(loaded.config)
    settings = schema.Pool(user=owner.user, group=owner.group)
    return Builder(loaded, environ).command(settings, words, words[0])


def _by_kind(in_order: list[str], pools: dict[str, PoolSpecification]) -> list[str]:
    """Return the pools in the order of start: kind by kind, as far as `after` allows."""
    placed: list[str] = []

    def place(name: str) -> None:
        if name in pools and name not in placed:
            for earlier in in_order:
                if earlier in pools[name].after:
                    place(earlier)
            placed.append(name)

    for kind in KINDS:
        for name in in_order:
            if name in pools and pools[name].kind == kind:
                place(name)
    return placed
