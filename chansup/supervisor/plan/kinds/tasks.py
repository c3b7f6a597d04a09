"""Tasks: commands that run once, before pools start."""

from chansup.config import (
    schema,
)
from chansup.supervisor.plan.builder import Builder
from chansup.supervisor.plan.specification import TaskSpecification


def task(builder: Builder, name: str, task: schema.Task) -> TaskSpecification:
    """Return what ``[tasks.NAME]`` runs."""
    label = builder.written("tasks", name)
    program = builder.pool(
        name,
        "programs",
        schema.Pool(),
        builder.command(task, task.command, label, task.directory),
        label=label,
        ready="after:0s",
        on_reload="restart",
    )
    return TaskSpecification(name, program, task.timeout)
