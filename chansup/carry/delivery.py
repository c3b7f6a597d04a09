"""Whether the server's protocol is given the bytes of its client now, or later. Free of I/O."""

from collections.abc import Callable


class Delivery:
    """Gives bytes to a server that may pause, over a journal that keeps them meanwhile.

    `pause_reading` and `resume_reading` are those of the transport that the server sees. A server
    that pauses for the time of each message does not stop the loop's transport: only if something
    comes meanwhile.
    """

    __slots__ = (
        "_deliver", "_is_behind", "_is_crowded", "_is_held", "_is_paused", "_is_stopped",
        "_undelivered", "deliver", "later", "stop",
    )  # fmt: skip

    def __init__(
        self,
        deliver: Callable[[bytes], None],
        stop: Callable[[bool], None],
        later: Callable[[Callable[[], None]], object],
    ) -> None:
        """`deliver` gives bytes to the server's protocol. `stop` stops the loop's transport (True)
        and has it read again (False); `later` calls a function in the next turn of the loop.
        """
        self.deliver = self._deliver = deliver
        self.stop = stop
        self.later = later
        self._is_paused = False  # the server wants nothing
        self._is_held = False  # it moves: nobody gets anything
        self._is_crowded = False  # much waits for the app
        self._is_stopped = False  # the loop's transport does not read
        self._is_behind = False  # bytes were kept and not delivered, from ...
        self._undelivered = 0  # ... this position on

    @property
    def position(self) -> int:
        """The position behind the last byte that was read."""
        raise NotImplementedError

    def _outstanding(self) -> bytes:
        """Return what was not delivered."""
        raise NotImplementedError

    def _delivered(self) -> None:
        """Take notice that all was delivered."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        """Take notice that the server wants nothing."""
        self._is_paused = True
        self.deliver = self._keep

    def resume_reading(self) -> None:
        """Take notice that the server wants more."""
        self._is_paused = False
        if not self._is_held:
            if self._is_behind or self._is_stopped:
                self.later(self._catch_up)
            else:
                self.deliver = self._deliver

    def is_stopped(self) -> None:
        """Take notice that the loop's transport does not read, as the server wanted it."""
        self._is_stopped = True
        self.pause_reading()

    def end_of_input(self) -> bool:
        """Take notice that the client sends no more. Say whether the server is to hear of it now.

        Otherwise it is read again when the server wants more.
        """
        if not (self._is_paused or self._is_held):
            return True
        self._is_stopped = True
        self.stop(True)
        return False

    @property
    def is_reading(self) -> bool:
        """Whether the server wants bytes."""
        return not self._is_paused

    def _keep(self, data: bytes) -> None:
        """Keep from the server what came although nobody wants it."""
        if not self._is_behind:
            self._is_behind = True
            self._undelivered = self.position - len(data)
        self._is_stopped = True
        self.stop(True)  # each time: uvloop reads once it has a socket, whatever was said before

    def hold(self) -> None:
        """Give the server nothing any more, and read nothing: the WebSocket moves."""
        self._is_held = True
        self.deliver = self._keep
        self._is_stopped = True
        self.stop(True)

    def let_go(self) -> None:
        """Give the server what was held, and from now on all that comes."""
        self._is_held = False
        self._catch_up()

    def _catch_up(self) -> None:
        """Give the server what it has not had, then have the loop's transport read."""
        if self._is_paused or self._is_held:
            return
        self.deliver = self._deliver
        if self._is_behind:
            self._is_behind = False
            self.deliver(self._outstanding())
            self._delivered()
        self._read_on()

    def _read_on(self) -> None:
        if self._is_stopped and not (self._is_paused or self._is_held or self._is_crowded):
            self._is_stopped = False
            self.stop(False)
