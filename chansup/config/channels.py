"""What follows from a config for channel workers: which pools they are, and what they run."""

from chansup.config.relay import Application
from chansup.config.schema import Config, Workers

DEFAULT_CONCURRENCY = 1
KEYS = ("channels", "only_channels", "exclude_channels")  # one of them makes a channel worker


def are_consumed(table: Workers) -> bool:
    """Say whether a table describes channel workers."""
    return bool(table.channels or table.only_channels or table.exclude_channels)


def workers(config: Config) -> dict[str, Workers]:
    """Return the pools of channel workers, by their names."""
    return {name: table for name, table in config.workers.items() if are_consumed(table)}


def application(config: Config, name: str) -> Application | None:
    """Return what a pool of channel workers runs: its own app, else that of ``[app]``.

    None where there is none, or none of ASGI.
    """
    for key, reference in (
        (("workers", name, "asgi"), config.workers[name].asgi),
        (("app", "asgi"), config.app.asgi),
    ):
        if reference is not None:
            return Application("asgi", reference, key)
    return None
