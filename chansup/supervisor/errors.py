"""The failures of the supervisor: one class each, with what to do in the message."""

from chansup.errors import ChansupError, ExitCode


class SpawnError(ChansupError):
    """A process could not even be started: no such program, no such user, no more processes."""


class AddressError(ChansupError):
    """An address cannot be listened on."""


class RuntimeDirectoryError(ChansupError):
    """The directory of the control socket cannot be used."""


class AlreadyRunningError(ChansupError):
    """Another supervisor runs for this config file."""

    exit_code = ExitCode.ALREADY_RUNNING


class UnknownTargetError(ChansupError):
    """A command named a pool or slot that does not exist."""


class SlotRemovedError(ChansupError):
    """The slot was scaled away, or its pool removed, while something waited for it."""


class StartFailedError(ChansupError):
    """A new process did not become ready. `lines` is the end of what it printed."""

    def __init__(self, message: str, lines: list[str]) -> None:
        super().__init__(message)
        self.lines: list[str] = lines
