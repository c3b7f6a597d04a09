"""Why the process of a slot was replaced by another: the keys of `restarts` in `status`."""

from collections.abc import Mapping

RESTART_REASONS = (
    "crash",  # it ended with an exit code or by a signal
    "exit",  # it ended with exit code 0, unasked
    "hang",  # its event loop stood still
    "boot",  # it did not become ready
    "command",  # `chansup restart`
    "reload",  # `chansup reload`
    "socket",  # the file of the socket that it listened on vanished
)
WANTED = frozenset({"command", "reload", "socket"})


def failures(restarts: Mapping[str, int]) -> dict[str, int]:
    """Return the restarts that nobody asked for."""
    return {reason: n for reason, n in restarts.items() if n and reason not in WANTED}
