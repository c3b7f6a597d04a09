"""What systemd gives a service, and what it wants to hear.

Sources: sd_listen_fds(3) for the sockets, sd_notify(3) and sd_watchdog_enabled(3) for the messages.
Everything is taken out of the environment, so that no child takes it for its own.
"""

import asyncio
import os
import socket
import time
from collections.abc import MutableMapping

from chansup.protocol import notify
from chansup.supervisor.errors import AddressError

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START


class InheritedSockets:
    """The listening sockets that systemd passed, by name. They stay open until `close`."""

    def __init__(self, sockets: list[tuple[str, socket.socket]]) -> None:
        self._sockets = sockets

    @classmethod
    def receive(cls, environ: MutableMapping[str, str] = os.environ) -> "InheritedSockets":
        """Take them over. Empty if there are none, or if they are for another process.

        Raises AddressError for a socket that does not listen.
        """
        pid = environ.pop("LISTEN_PID", "")
        count = environ.pop("LISTEN_FDS", "")
        names = environ.pop("LISTEN_FDNAMES", "").split(":")
        if pid != str(os.getpid()) or not count.isdecimal():
            return cls([])
        sockets = []
        for place in range(int(count)):
            name = names[place] if place < len(names) else "unknown"
            sockets.append((name, _listening(FIRST_DESCRIPTOR + place, name)))
        return cls(sockets)

    def take(self, name: str | None) -> list[socket.socket]:
        """Return duplicates of the sockets called `name`, or of all."""
        return [sock.dup() for own, sock in self._sockets if name is None or own == name]

    def close(self) -> None:
        """Close them; systemd keeps listening."""
        for _, sock in self._sockets:
            sock.close()
        self._sockets = []


def _listening(descriptor: int, name: str) -> socket.socket:
    os.set_inheritable(descriptor, False)
    try:
        sock = socket.socket(fileno=descriptor)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        raise AddressError(f"systemd passed {name!r}, which is not a socket") from None
    if sock.type != socket.SOCK_STREAM or not listens:
        raise AddressError(
            f"systemd passed the socket {name!r}, which accepts no connections: "
            "use ListenStream= and Accept=no"
        )
    return sock


class ServiceNotifier:
    """Tells systemd how the service is. Without systemd, every message goes nowhere."""

    def __init__(self, address: str | None = None, watchdog: float | None = None) -> None:
        self.watchdog = watchdog  # seconds of silence after which systemd kills the service
        self._address = address
        self._timer: asyncio.TimerHandle | None = None
        self._told = ""  # the newest status

    @classmethod
    def receive(cls, environ: MutableMapping[str, str] = os.environ) -> "ServiceNotifier":
        """Take the address and the watchdog's time out of the environment."""
        address = environ.pop(notify.SOCKET_VARIABLE, None)
        microseconds = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", str(os.getpid()))
        mine = microseconds.isdecimal() and int(microseconds) > 0 and pid == str(os.getpid())
        return cls(address, int(microseconds) / 1e6 if mine else None)

    def ready(self, status: str = "") -> None:
        """Say that the service is up, or that a reload is over."""
        self._send({"READY": "1"}, status)

    def reloading(self, status: str = "") -> None:
        """Say that a reload has begun; `ready` must follow, whatever comes of it."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send({"RELOADING": "1", "MONOTONIC_USEC": str(microseconds)}, status)

    def stopping(self, status: str = "") -> None:
        """Say that the service is going down."""
        self._send({"STOPPING": "1"}, status)

    def status(self, status: str) -> None:
        """Say in one line how the service is, if that is news: `systemctl status` shows it."""
        if status != self._told:
            self._send({}, status)

    def extend_timeout(self, seconds: float) -> None:
        """Ask for so much more time to start, reload or stop."""
        self._send({"EXTEND_TIMEOUT_USEC": str(int(seconds * 1e6))}, "")

    def start_watchdog(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beat from within the loop, at half the watchdog's time: a loop that hangs is seen."""
        if self.watchdog is not None:
            self._send({"WATCHDOG": "1"}, "")
            self._timer = loop.call_later(self.watchdog / 2, self.start_watchdog, loop)

    def stop_watchdog(self) -> None:
        """Beat no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send(self, fields: dict[str, str], status: str) -> None:
        if status:
            self._told = status
            fields["STATUS"] = " ".join(status.split())
        if self._address and fields:
            notify.send(fields, self._address)
