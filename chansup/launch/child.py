"""This process, as every part of a launcher sees it: its orders, its cells, its sockets."""

import os
import socket
from collections.abc import Callable

from chansup.launch.in_flight import InFlight
from chansup.launch.listeners import Listeners
from chansup.launch.warm_up import Asked
from chansup.protocol import notify
from chansup.protocol.launch import Launch
from chansup.protocol.scoreboard import ACCEPTING, LEAVING, PHASE, SIZE, Scoreboard

_PATIENCE = 0.05  # seconds, while many others tell the same; the scoreboard tells it, too
_SYSTEMD_VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


class Child:
    """One launcher's process. `cells` is the scoreboard, or private memory when there is none."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.cells = open_cells(launch.scoreboard_fd)
        self.listeners = Listeners([listener.fd for listener in launch.listeners])
        self.in_flight = InFlight(self.cells)
        self.is_ready = False
        self.warm_up: Asked | None = None  # before it serves, where a server runs no lifespan
        self.on_loop: Callable[[], None] = _nothing  # begins what the app needs the loop for

    def sockets(self) -> list[socket.socket]:
        """Return the listening sockets, which stay open as long as the process lives."""
        return self.listeners.sockets

    @property
    def backlog(self) -> int:
        """How many connections may wait on a listener; servers ask for it where they listen()."""
        return max((listener.backlog for listener in self.launch.listeners), default=2048)

    def ready(self) -> None:
        """Tell the supervisor that the server accepts."""
        if not self.is_ready:
            self.is_ready = True
            self._restore_backlogs()
            self.cells[PHASE] = ACCEPTING
            notify.send({"READY": "1"}, patience=_PATIENCE)

    def stopped(self) -> None:
        """Tell the supervisor that the server accepts no more."""
        self.cells[PHASE] = LEAVING
        notify.send({"STOPPING": "1"}, patience=_PATIENCE)

    def _restore_backlogs(self) -> None:
        """Undo what a server's own listen() has done to a queue that others share."""
        for listener, adopted in zip(self.launch.listeners, self.sockets(), strict=True):
            adopted.listen(listener.backlog)


def _nothing() -> None:
    pass


def open_cells(descriptor: int | None) -> "memoryview[float]":
    """Map the scoreboard that was inherited as `descriptor`."""
    if descriptor is None:
        return memoryview(bytearray(SIZE)).cast("d")
    os.set_inheritable(descriptor, False)
    return Scoreboard(descriptor).cells


def forget_systemd_variables() -> None:
    """Remove the socket activation variables, which some servers would read a second time."""
    for name in _SYSTEMD_VARIABLES:
        os.environ.pop(name, None)
