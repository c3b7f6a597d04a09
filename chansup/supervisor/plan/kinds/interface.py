"""The interface: what accepts the connections of clients."""

import sys
from dataclasses import replace

import msgspec

from chansup.config import (
    accounts,
    carry,
    commands,
    option_files,
    relay,
    schema,
    server_variables,
)
from chansup.supervisor.plan import installed
from chansup.supervisor.plan.builder import Builder
from chansup.supervisor.plan.descriptors import most_descriptors
from chansup.supervisor.plan.specification import PoolSpecification


def interface_pool(builder: Builder, interface: schema.Interface) -> PoolSpecification:
    """Return what ``[interface]`` runs."""
    if relay.is_relay(builder.config):
        return _relay(builder, interface)
    if interface.command is not None:
        words = [word.replace("{fd}", "3") for word in commands.parse(interface.command)]
        label = builder.written("interface")
        command = builder.command(interface, words, label)
        ready = interface.ready or "accepts"
    else:
        application = builder.config.app.asgi or builder.config.app.wsgi or ""
        words = [builder.python, "-m", "chansup.launch", interface.server, application]
        label = f"{interface.server} {application}"
        command = builder.command(interface, words, label)
        limits = {"nofile": most_descriptors(), **interface.limits}
        command = replace(command, limits=limits)
        ready = "notify"
    if interface.server == "gunicorn" and interface.options.get("worker_class") == "sync":
        # Its only thread is in the app: a long request and a hang look the same.
        interface = msgspec.structs.replace(
            interface, liveness_timeout=interface.liveness_timeout or 0.0
        )
    specification = builder.pool(
        "interface",
        "interface",
        interface,
        command,
        label=label,
        ready=ready,
        on_reload="overlap",
        binds=_binds(interface),
        launcher=interface.command is None,
    )
    return replace(specification, carries=carry.is_on(builder.config))


def _relay(builder: Builder, interface: schema.Interface) -> PoolSpecification:
    """Return the interface of relay mode: nothing in it depends on a release of the app."""
    label = f"{interface.server} relay"
    words = [sys.executable, "-m", "chansup.launch", interface.server, "relay"]
    passed_on = server_variables.passed_on(interface.server, builder.loaded.environment)
    command = replace(
        builder.command(interface, words, label),
        environment={
            **accounts.environment(builder.inherited, interface.user, interface.group),
            **passed_on,
            **interface.environment,
        },
        directory=str(builder.loaded.path.parent),
        limits={"nofile": most_descriptors(), **interface.limits},
    )
    specification = builder.pool(
        "interface",
        "interface",
        interface,
        command,
        label=label,
        ready="notify",
        on_reload="overlap",
        binds=_binds(interface),
        launcher=True,
    )
    rollout = builder.config.rollout
    identity = (
        installed.fingerprint(interface.server),
        (rollout.settle, rollout.drain_spread, rollout.keep_alive),
        (specification.stop_timeout, specification.liveness_timeout),
        tuple(sorted(passed_on.items())),
    )
    files = option_files.contents(builder.config, builder.directory, builder.loaded.path.parent)
    return replace(specification, relays=True, identity=identity, files=files)


def _binds(interface: schema.Interface) -> tuple[str, ...]:
    return (interface.bind,) if isinstance(interface.bind, str) else tuple(interface.bind)
