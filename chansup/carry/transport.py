"""What the server's protocol sees in place of the loop's transport."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol


class Carried(Protocol):
    """The connection, as its transport sees it."""

    @property
    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""

    def early_write(self, data: bytes) -> None:
        """Take what the server writes before its answer to the handshake is complete."""

    def server_closes(self, at_once: bool) -> None:
        """Take notice that the server closes the connection."""


class Transport(asyncio.Transport):
    """The transport of one connection.

    What a message needs has no call on the way: `write`, `pause_reading` and `resume_reading` are
    functions of whoever deals with them at present.
    """

    def __init__(self, carried: Carried) -> None:
        super().__init__()
        self._carried = carried
        self._raw: Any = None
        self.write: Callable[[Any], None] = carried.early_write  # type: ignore

    def open(self, raw: Any) -> None:
        """Stand before an asyncio.Transport from now on."""
        self._raw = raw
        self.get_extra_info = raw.get_extra_info  # type: ignore
        self.get_write_buffer_size = raw.get_write_buffer_size  # type: ignore
        self.set_write_buffer_limits = raw.set_write_buffer_limits  # type: ignore
        self.get_write_buffer_limits = raw.get_write_buffer_limits  # type: ignore
        self.get_protocol = raw.get_protocol  # type: ignore
        self.is_closing = raw.is_closing  # type: ignore
        self.read_by(raw)

    def read_by(self, reader: Any) -> None:
        """Tell `reader`, a transport or a journal, when the server pauses and resumes reading."""
        self.pause_reading = reader.pause_reading  # type: ignore
        self.resume_reading = reader.resume_reading  # type: ignore

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Write several buffers as one."""
        self.write(b"".join(list_of_data))

    def is_reading(self) -> bool:
        """Whether bytes are read now."""
        return self._raw is not None and self._raw.is_reading()

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._carried.is_closing

    def close(self) -> None:
        """Close the connection when all is written."""
        self._carried.server_closes(at_once=False)

    def abort(self) -> None:
        """Close the connection at once."""
        self._carried.server_closes(at_once=True)

    def can_write_eof(self) -> bool:
        """Say no: shutdown(2) would end the connection for each holder of the socket."""
        return False

    def write_eof(self) -> None:
        """Do nothing, as above."""

    def set_protocol(self, protocol: Any) -> None:
        """Refuse: the protocol of a WebSocket does not change."""
        raise NotImplementedError("the protocol of a WebSocket does not change")
