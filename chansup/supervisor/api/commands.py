"""What can be asked of a running supervisor. `control` offers it on a socket; the CLI asks."""

from collections.abc import AsyncIterable, AsyncIterator
from typing import Protocol

from chansup.protocol.status import Consumption, Event, LogLine, Measurement, Status


class Commands(Protocol):
    """The supervisor, as seen by the control socket and the admin endpoints.

    The commands that take time return a stream of events that ends with one of type "result".
    Closing the stream does not stop what was begun.
    """

    def status(self) -> Status:
        """Return the present state; never blocks."""

    def measurements(self) -> list[Measurement]:
        """Return the numbers of every slot; never blocks."""

    def rollouts(self) -> dict[str, tuple[int, float]]:
        """Return for each outcome how many rollouts ended so, and their seconds in total."""

    def relayed(self) -> dict[str, list[float]]:
        """Return the row of the relay board of each pool of app workers, summed; never blocks.

        Pool "" is that of requests without a route. Nothing outside relay mode.
        """

    def consumption(self) -> Consumption:
        """Return what channel workers and the hub counted; never blocks.

        The document is the caller's own.
        """

    def reload(self) -> AsyncIterator[Event]:
        """Roll a new generation out."""

    def restart(self, target: str | None) -> AsyncIterator[Event]:
        """Replace the processes of a pool, of a slot, or all, with their own generation.

        All does not mean programs that are kept, nor an interface that relays.
        """

    def scale(self, pool: str, processes: int) -> AsyncIterator[Event]:
        """Change the number of slots of a pool until the next change of the config."""

    def move(self, mark: str) -> AsyncIterator[Event]:
        """Move the one WebSocket whose handshake has this mark to another worker.

        The result has what came of it as its `step`. Raises ChansupError.
        """

    def stop(self) -> AsyncIterator[Event]:
        """Stop everything; the result comes when only the supervisor itself is left."""

    def logs(self, target: str | None, lines: int) -> list[LogLine]:
        """Return the last lines of a pool, a slot or all. Raises UnknownTargetError."""

    def follow(self, target: str | None) -> AsyncIterable[LogLine]:
        """Return lines as they come; a slow reader misses some. Raises UnknownTargetError."""
