"""What goes wrong before anything is measured."""

from chansup.errors import ChansupError, ExitCode


class BenchError(ChansupError):
    """There is nothing to measure: the server does not answer, or too much is wanted."""


class BenchUsageError(BenchError):
    """The command line is contradictory."""

    exit_code = ExitCode.USAGE
