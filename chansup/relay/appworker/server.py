"""The app worker: it listens for interface processes and runs the app for them."""

import asyncio
import logging
import socket
from typing import Any

from chansup.relay.appworker.counters import Counters
from chansup.relay.appworker.interface import Interface
from chansup.relay.appworker.orphans import Orphans
from chansup.relay.appworker.permits import Order, Permits
from chansup.relay.frames import Kind, pack
from chansup.relay.greeting import Hello
from chansup.unix import credentials
from chansup.wire import Acceptor

_log = logging.getLogger("chansup.relay")

_MOST_CONNECTIONS = 256  # of interface processes, those that were replaced and drain included
_GREETING_TIMEOUT = 10.0  # seconds
_ORPHANS = 4  # times `concurrency`: apps whose clients left that hold no permit any more
_PAUSE = 0.1  # seconds without accepting when descriptors have run out
_QUIET_TIME = 10.0  # seconds between two lines that say so


class AppWorker:
    """One worker process. Run it inside an event loop."""

    def __init__(
        self,
        application: Any,
        counters: Counters,
        hello: Hello,
        *,
        concurrency: int,
        peers: frozenset[int],
        state: dict[str, Any] | None,
        disconnect_timeout: float,
        threaded: bool = False,
    ) -> None:
        """`threaded`: each request occupies one of as many threads as `concurrency` says."""
        self.application = application
        self.counters = counters
        self.hello = hello
        self.state = state
        self.permits = Permits(concurrency)
        self.loop = asyncio.get_running_loop()
        self.hurries = False  # time is nearly up
        places = 0 if threaded else _ORPHANS * concurrency
        self.orphans = Orphans(self.loop, disconnect_timeout, places)
        self.cutting = False  # time is up
        self.empty = asyncio.Event()  # asked to drain, and no interface is left
        self._peers = peers
        self._listener: socket.socket | None = None
        self._acceptor: Acceptor | None = None
        self._quiet_until = 0.0  # loop time
        self._interfaces: set[Interface] = set()
        self._draining = False

    # Connections

    def listen(self, listener: socket.socket) -> None:
        """Take connections from `listener`, a non-blocking Unix stream socket."""
        self._listener = listener
        self._acceptor = Acceptor(self.loop, listener, self._welcome, self._cannot_accept, _PAUSE)
        self._acceptor.start()

    def _welcome(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if self._is_welcome(sock):
            self.adopt(sock)
        else:
            sock.close()

    def _cannot_accept(self, error: OSError) -> None:
        if self.loop.time() >= self._quiet_until:
            self._quiet_until = self.loop.time() + _QUIET_TIME
            _log.error("cannot take connections of the relay: %s", error.strerror)

    def _is_welcome(self, sock: socket.socket) -> bool:
        pid, user, _ = credentials(sock)
        if user not in self._peers:
            _log.warning("rejected connection from pid %d (uid %d): not an allowed user", pid, user)
            return False
        if len(self._interfaces) >= _MOST_CONNECTIONS:
            _log.warning("rejected connection from pid %d: too many connections", pid)
            return False
        return True

    def adopt(self, sock: socket.socket) -> Interface:
        """Serve the interface process at the other end of `sock`."""
        interface = Interface(self, sock)
        self._interfaces.add(interface)
        self.loop.call_later(_GREETING_TIMEOUT, self._expect_greeting, interface)
        return interface

    def _expect_greeting(self, interface: Interface) -> None:
        if not interface.greeted and not interface.link.closed:
            interface.link.lose("no greeting came", is_error=True)

    def joined(self, interface: Interface) -> None:
        """Take notice that an interface has said who it is."""
        self.give(self.permits.join(interface))
        if self._draining:
            interface.link.send_control(pack(Kind.DRAINING, 0, 0, 0))

    def left(self, interface: Interface, still_used: int) -> None:
        """Take notice that an interface is gone."""
        self._interfaces.discard(interface)
        if interface.greeted:
            self.give(self.permits.leave(interface, still_used))
        self._look_whether_empty()

    def give(self, orders: list[Order]) -> None:
        """Tell interfaces of permits."""
        for interface, granted, recalled in orders:
            assert isinstance(interface, Interface)
            kind, number = (Kind.GRANT, granted) if granted else (Kind.RECALL, recalled)
            interface.link.send_control(pack(kind, 0, 0, number))

    # The end

    def drain(self) -> None:
        """Ask the interfaces to take everything away. `empty` says when they have."""
        if not self._draining:
            self._draining = True
            self.orphans.drain()
            for interface in self._interfaces:
                interface.link.send_control(pack(Kind.DRAINING, 0, 0, 0))
            self._look_whether_empty()

    def _look_whether_empty(self) -> None:
        if self._draining and not self._interfaces:
            self._stop_listening()
            self.empty.set()

    def _stop_listening(self) -> None:
        if self._acceptor is not None and self._listener is not None:
            self._acceptor.stop()
            self._listener.close()
            self._acceptor = self._listener = None

    def hurry(self) -> None:
        """Wait no longer for what apps took from the channel layer: time is nearly up."""
        self.hurries = True
        for interface in list(self._interfaces):
            interface.hurry()

    def cut(self) -> list[asyncio.Task[None]]:
        """Cancel what the app still does: time is up. Return the tasks that do it."""
        self.cutting = True
        return [task for interface in self._interfaces for task in interface.cut()]

    def close(self) -> None:
        """Close every connection."""
        self._stop_listening()
        for interface in list(self._interfaces):
            interface.link.flush()
            interface.link.close()
