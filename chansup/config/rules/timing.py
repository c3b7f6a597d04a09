"""Rules of durations that are parts of each other."""

from collections.abc import Iterator

from chansup.config import relay
from chansup.config.keys import Finding, Key
from chansup.config.rules.context import Context
from chansup.config.schema import Pool


def rule(context: Context) -> Iterator[Finding]:
    """What happens before a process is killed ends before that."""
    rollout = context.config.rollout
    if rollout.shutdown_delay >= rollout.stop_timeout:
        message = (
            f"({rollout.shutdown_delay:g} s) is part of stop_timeout "
            f"({rollout.stop_timeout:g} s) and must be shorter: lower it, or raise stop_timeout"
        )
        yield ("rollout", "shutdown_delay"), message
    key, stop_timeout = _stop_timeout(context)
    if rollout.settle >= stop_timeout:
        message = (
            f"settle ({rollout.settle:g} s) is part of stop_timeout ({stop_timeout:g} s) and must "
            "be shorter: lower it, or raise stop_timeout"
        )
        yield key, message


def cut_clients(context: Context) -> Iterator[Finding]:
    """WebSockets would be closed over a longer time than there is."""
    rollout = context.config.rollout
    interface = context.config.interface
    if interface is None or interface.command is not None:
        return
    needed = rollout.settle + rollout.drain_spread
    _, stop_timeout = _stop_timeout(context)
    if needed > stop_timeout:
        message = (
            f"settle and drain_spread take {needed:g} s together, and stop_timeout is over after "
            f"{stop_timeout:g} s: open ones are cut off then"
        )
        yield ("rollout", "drain_spread"), message


def cut_handovers(context: Context) -> Iterator[Finding]:
    """App workers would end before their WebSockets are closed."""
    rollout = context.config.rollout
    for name, table in relay.app_workers(context.config).items():
        closes = any(entry.handover == "close" for entry in relay.served(table))
        stop_timeout = table.stop_timeout or rollout.stop_timeout
        if closes and rollout.drain_spread > stop_timeout:
            own: Key = ("workers", name, "stop_timeout")
            key = ("rollout", "drain_spread") if table.stop_timeout is None else own
            message = (
                f"WebSockets are closed over drain_spread ({rollout.drain_spread:g} s), and "
                f"stop_timeout is over after {stop_timeout:g} s: open ones are cut off then"
            )
            yield key, message


def longer_stops(context: Context) -> Iterator[Finding]:
    """A pool has more time to end than whoever stops chansup may expect."""
    limit = context.config.rollout.stop_timeout
    tables: dict[Key, Pool] = {
        ("workers", name): table for name, table in context.config.workers.items()
    }
    tables |= {("programs", name): table for name, table in context.config.programs.items()}
    if context.config.interface is not None:
        tables["interface",] = context.config.interface
    for key, table in tables.items():
        own = table.stop_timeout
        if own is not None and own > limit:
            message = (
                f"({own:g} s) is longer than [rollout] stop_timeout ({limit:g} s), and a stop of"
                " the site waits for it: have whoever stops chansup wait as long (TimeoutStopSec="
                " of a systemd unit, docker stop --time), or raise [rollout] stop_timeout, too"
            )
            yield (*key, "stop_timeout"), message


def _stop_timeout(context: Context) -> tuple[Key, float]:
    """Return what holds for the interface, and where to complain about it."""
    interface = context.config.interface
    if interface is not None and interface.stop_timeout is not None:
        return ("interface", "stop_timeout"), interface.stop_timeout
    return ("rollout", "settle"), context.config.rollout.stop_timeout
