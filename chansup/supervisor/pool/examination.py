"""Looks at the interface's options before a rollout runs its first task.

A task may migrate the database. What makes the new server impossible anyway is to be found before.
"""

import asyncio
from dataclasses import replace
from typing import Protocol

from chansup.config import schema
from chansup.protocol import encoding
from chansup.protocol.probe import VARIABLE, Question
from chansup.supervisor.errors import SpawnError, StartFailedError
from chansup.supervisor.plan.generation import Generation
from chansup.supervisor.plan.specification import PoolSpecification
from chansup.supervisor.pool.host import Host
from chansup.supervisor.process.process import Process
from chansup.supervisor.process.processes import Processes
from chansup.waiting import wait_for

_IMPOSSIBLE = 78  # EX_CONFIG of sysexits.h: the launcher would end with it as well


class ExaminationHost(Host, Protocol):
    """What an examination asks of the site."""

    @property
    def processes(self) -> Processes:
        """Those that run, and the way to start one."""


async def examine(site: ExaminationHost, generation: Generation) -> None:
    """Raise StartFailedError when the interface's server does not take its options.

    Whatever else goes wrong here is left to the start of the new process, which says it better.
    """
    interface = generation.pools.get("interface")
    if interface is None or not interface.launcher or not generation.tasks:
        return
    recent = site.recent_lines()
    specification = _specification(interface, generation.config)
    try:
        process = site.processes.spawn(
            "interface", 0, specification, generation, [], recent, _nothing
        )
    except SpawnError:
        return
    try:
        await wait_for(interface.start_timeout, process.gone)
    finally:
        if not process.gone.is_set():
            process.kill()
            await asyncio.shield(process.gone.wait())
    if process.exit is not None and process.exit.code == _IMPOSSIBLE:
        lines = recent.last_words(process.pid)
        raise StartFailedError("interface: the server does not take its options", lines)


def _specification(interface: PoolSpecification, config: schema.Config) -> PoolSpecification:
    settings = interface.settings
    assert isinstance(settings, schema.Interface)
    command = interface.command
    gateway = "wsgi" if config.app.wsgi is not None and not interface.relays else "asgi"
    question = Question(settings.server, gateway, "", settings.options, command.directory)
    asked = {VARIABLE: encoding.encode(question).decode()}
    return replace(
        interface,
        kind="programs",
        command=replace(
            command,
            argv=(command.argv[0], "-m", "chansup.launch.examine"),
            environment={**command.environment, **asked},
        ),
        settings=schema.Pool(),
        ready="after:0s",
        binds=(),
        launcher=False,
        relays=False,
    )


def _nothing(_process: Process) -> None:
    pass
