"""What must hold between the values of a config, beyond each having its type.

A rule looks at a whole config and yields what is wrong, with the key. It never raises.
"""

from chansup.config.keys import Finding
from chansup.config.rules import (
    addresses,
    application,
    carry,
    channel_layer,
    channels,
    handover,
    interface,
    names,
    processes,
    proxies,
    serving,
    timing,
    workers,
)
from chansup.config.rules.context import Context, Rule

_ERRORS: tuple[Rule, ...] = (
    application.something_to_run,
    application.form,
    application.directories,
    interface.rule,
    interface.mode,
    interface.option_files,
    carry.rule,
    addresses.rule,
    names.valid,
    names.existing,
    names.no_circle,
    workers.rule,
    workers.keys_of_the_kind,
    workers.sticky,
    channels.rule,
    serving.pools,
    serving.entries,
    serving.not_after_interface,
    handover.entries,
    processes.commands_and_readiness,
    processes.counts,
    processes.attributes,
    processes.environments,
    timing.rule,
    channel_layer.backend,
    channel_layer.options,
    channel_layer.of_the_hub,
)
_WARNINGS: tuple[Rule, ...] = (
    application.unused,
    interface.socket_of_a_command,
    addresses.public_admin,
    names.aimless_tasks,
    processes.channels_own_worker,
    processes.words_of_a_shell,
    processes.daemons,
    proxies.trusted,
    proxies.variables,
    proxies.threads,
    serving.doubtful,
    carry.doubtful,
    handover.doubtful,
    timing.cut_clients,
    timing.cut_handovers,
    timing.longer_stops,
)


def errors(context: Context) -> list[Finding]:
    """Return everything for which the config cannot be used."""
    return [finding for rule in _ERRORS for finding in rule(context)]


def warnings(context: Context) -> list[Finding]:
    """Return what works, and is probably not meant."""
    return [finding for rule in _WARNINGS for finding in rule(context)]
