"""The root of every failure that chansup reports, and the exit codes of its commands."""

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """What a chansup command's exit code means. Stable: scripts rely on it."""

    OK = 0
    FAILED = 1  # the command could not do what it was asked: a reload that failed, a bad config
    USAGE = 2  # the command line itself is wrong
    NOT_RUNNING = 3  # no supervisor runs for this config file
    ALREADY_RUNNING = 4  # `run`: another supervisor runs for this config file
    RESTARTS_EXCEEDED = 5  # `run`: a pool with on_max_restarts = "exit" crashed too often
    CLOSED = 6  # `check --handover`: the WebSocket was closed instead of moved
    LEFT_FOR_DEAD = 7  # `check --handover`: it moved, and nobody knows it there


class ChansupError(Exception):
    """A failure with a message for the person who runs chansup: what, where, and what to do.

    Whoever catches it prints the message alone, never a traceback, and exits with `exit_code`.
    """

    exit_code: ExitCode = ExitCode.FAILED
    problems: Sequence[object] = ()  # of a config: the message has file and line of each
    lines: Sequence[str] = ()  # that a process printed, shown below the message
