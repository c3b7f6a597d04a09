"""Workers: for the interface in relay mode, for channels, or a command of their own."""

from dataclasses import replace

from chansup.config import (
    accounts,
    channels,
    relay,
    schema,
)
from chansup.supervisor.plan.builder import Builder
from chansup.supervisor.plan.descriptors import most_descriptors
from chansup.supervisor.plan.specification import PoolSpecification


def workers_pool(builder: Builder, name: str, workers: schema.Workers) -> PoolSpecification:
    """Return what a pool of ``[workers.NAME]`` runs."""
    if workers.serves:
        return _app_workers(builder, name, workers)
    if channels.are_consumed(workers):
        return _channel_workers(builder, name, workers)
    assert workers.command is not None  # the rules see to it
    label = builder.written("workers", name)
    return builder.pool(
        name,
        "workers",
        workers,
        builder.command(workers, workers.command, label),
        label=label,
        ready=workers.ready or "after:2s",
        on_reload="overlap" if workers.on_reload == "auto" else workers.on_reload,
    )


def _channel_workers(builder: Builder, name: str, workers: schema.Workers) -> PoolSpecification:
    app = channels.application(builder.config, name)
    application = app.reference if app is not None else ""
    globs = [f"-{glob}" for glob in workers.exclude_channels]
    label = " ".join(["channels", *workers.channels, *workers.only_channels, *globs])
    return _launched(builder, name, workers, ["channels", application], label)


def _app_workers(builder: Builder, name: str, workers: schema.Workers) -> PoolSpecification:
    app = relay.application(builder.config, name)
    application = app.reference if app is not None else ""
    label = f"relay {application}"
    return _launched(builder, name, workers, ["relay", application], label)


def _launched(
    builder: Builder, name: str, workers: schema.Workers, what: list[str], label: str
) -> PoolSpecification:
    """Return workers whose launcher runs the app by the interpreter of their pool."""
    python = builder.loaded.python_of(name)
    command = builder.command(workers, [python, "-m", "chansup.launch", *what], label)
    inherited = accounts.environment(builder.inherited, workers.user, workers.group)
    environment = builder.loaded.child_environment(inherited, workers.environment, python)
    limits = {"nofile": most_descriptors(), **workers.limits}
    return builder.pool(
        name,
        "workers",
        workers,
        replace(command, environment=environment, limits=limits),
        label=label,
        ready="notify",
        on_reload="overlap" if workers.on_reload == "auto" else workers.on_reload,
        launcher=True,
    )
