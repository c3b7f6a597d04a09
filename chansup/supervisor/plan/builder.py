"""What the tables of all kinds of pools and tasks say in the same way."""

import sys
from collections.abc import Mapping
from typing import Any, Literal

from chansup.config import (
    accounts,
    commands,
    order,
    schema,
)
from chansup.config.load import Loaded
from chansup.supervisor.plan.command import Command
from chansup.supervisor.plan.specification import Kind, PoolSpecification

# What a service manager or a shell told the supervisor is not meant for its children.
NOT_INHERITED = frozenset(
    {
        *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
        *("LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES"),
        *("MAINPID", "SYSTEMD_EXEC_PID", "_", "OLDPWD", "PWD"),  # PWD is set to where each starts
    }
)


class Builder:
    """What all kinds have in common, for one config and environment."""

    def __init__(self, loaded: Loaded, environ: Mapping[str, str]) -> None:
        self.loaded = loaded
        self.config = loaded.config
        self.needs = order.dependencies(loaded.config)
        self.directory = loaded.directory
        self.python = str(loaded.python or sys.executable)
        inherited = {key: value for key, value in environ.items() if key not in NOT_INHERITED}
        self.inherited = {
            "PYTHONUNBUFFERED": "1",  # lines reach the log when they are printed
            **inherited,
            "CHANSUP_CONFIG": str(loaded.path),
        }

    def written(self, *keys: str) -> str:
        """Return the command of a table as the file has it: nothing secret was filled in there."""
        table: Any = self.loaded.document
        for key in keys:
            table = table[key]
        line = table["command"]
        return line if isinstance(line, str) else " ".join(map(str, line))

    def pool(
        self,
        name: str,
        kind: Kind,
        settings: schema.Pool,
        command: Command,
        *,
        label: str,
        ready: str,
        on_reload: Literal["overlap", "restart", "keep"],
        binds: tuple[str, ...] = (),
        launcher: bool = False,
    ) -> PoolSpecification:
        """Return the pool that `settings` describe, with `command` as what it runs."""
        rollout = self.config.rollout
        liveness = settings.liveness_timeout
        if liveness is None:
            liveness = self.config.supervisor.liveness_timeout
        return PoolSpecification(
            name=name,
            kind=kind,
            label=label,
            command=command,
            settings=settings,
            after=frozenset(self.needs.get(name, ())),
            ready=ready,
            start_timeout=settings.start_timeout or rollout.start_timeout,
            stop_timeout=settings.stop_timeout or rollout.stop_timeout,
            liveness_timeout=liveness,
            on_reload=on_reload,
            binds=binds,
            launcher=launcher,
        )

    def command(
        self,
        settings: schema.Pool | schema.Task,
        line: str | list[str],
        label: str,
        directory: str | None = None,
    ) -> Command:
        """Return the command `line`, run as `settings` say; `label` names it to people."""
        words = commands.parse(line)
        if words[0] in ("python", "python3"):
            words[0] = self.python  # the app's interpreter, whatever PATH holds
        inherited = accounts.environment(self.inherited, settings.user, settings.group)
        return Command(
            argv=tuple(words),
            program=label.split()[0] if label.split() else "",
            environment=self.loaded.child_environment(inherited, settings.environment),
            directory=str(self.directory / (directory or ".")),
            user=settings.user,
            group=settings.group,
            umask=settings.umask,
            limits=settings.limits,
        )
