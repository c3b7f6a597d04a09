"""What can go wrong when a WebSocket is carried from process to process."""

from chansup.errors import ChansupError


class SlotError(ChansupError):
    """The memory of a slot cannot be read: it is of another version, or was never written."""


class DiffersError(ChansupError):
    """Journal and kernel disagree about what was read or written: it is never guessed."""


class FullError(ChansupError):
    """There is no slot any more, or no memory for one."""


class RecordError(ChansupError):
    """A handshake cannot be recorded, or a record cannot be read."""
