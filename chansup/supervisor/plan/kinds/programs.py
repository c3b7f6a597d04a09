"""Programs: commands that the config names, with no launcher of chansup."""

import os
from typing import Literal

from chansup.config import (
    schema,
)
from chansup.supervisor.plan.builder import Builder
from chansup.supervisor.plan.command import Command
from chansup.supervisor.plan.specification import PoolSpecification


def program_pool(builder: Builder, name: str, program: schema.Program) -> PoolSpecification:
    """Return what a pool of ``[programs.NAME]`` runs."""
    label = builder.written("programs", name)
    command = builder.command(program, program.command, label, program.directory)
    return builder.pool(
        name,
        "programs",
        program,
        command,
        label=label,
        ready=program.ready or "after:1s",
        on_reload=_on_reload(builder, program, command),
    )


def _on_reload(
    builder: Builder, program: schema.Program, command: Command
) -> Literal["overlap", "restart", "keep"]:
    if program.on_reload != "auto":
        return program.on_reload
    program_file = command.argv[0]
    runs_our_code = os.path.basename(program_file).startswith("python") or (
        "/" in program_file
        and (builder.directory / program_file).resolve().is_relative_to(builder.directory)
    )
    return "restart" if runs_our_code else "keep"
