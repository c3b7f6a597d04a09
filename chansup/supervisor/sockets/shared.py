"""One listening socket for all slots: on a path, passed by systemd, or where no program steers."""

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from chansup.config.address import Address, Systemd, Tcp, Unix
from chansup.supervisor.errors import AddressError
from chansup.supervisor.sockets.listeners import BACKLOG, Listeners, shut
from chansup.supervisor.sockets.socket_file import SocketFile
from chansup.supervisor.sockets.tcp import listen, real
from chansup.supervisor.sockets.unix_path import (
    explain_path,
    make_directory,
    not_given,
    require_short,
    require_vacant,
)
from chansup.unix import FileIdentity, Ownership, Presence, UnixListener


class SharedSocket(Listeners):
    """One listening socket for all slots."""

    steered = False

    def __init__(
        self, sock: socket.socket, address: Address, file: SocketFile | None = None
    ) -> None:
        self.address: Address = address
        self._socket = sock
        self._file = file  # if we made one
        self._passed: tuple[str, FileIdentity] | None = None  # a file that systemd made
        self._again: Callable[[], SharedSocket] | None = None  # makes a new one like this

    @classmethod
    def tcp(
        cls, address: Tcp, backlog: int = BACKLOG, *, dual_stack: bool = False
    ) -> "SharedSocket":
        """Listen on `address`, whose host must be numeric. Raises AddressError."""
        sock = listen(address, backlog, dual_stack)
        return cls(sock, real(address, sock))

    @classmethod
    def unix(
        cls,
        address: Unix,
        backlog: int = BACKLOG,
        ownership: Ownership = Ownership(),  # noqa: B008 - it cannot change
    ) -> "SharedSocket":
        """Listen on an absolute path. A file that a dead process left is replaced.

        A directory that is missing is made. Raises AddressError.
        """
        path = Path(address.path)
        make_directory(path.parent, ownership, address)
        require_vacant(path)
        # Listen under another name and rename: clients see either the old file or a socket that
        # listens and has its mode. And servers that unlink the name they were bound to miss ours.
        private = path.with_name(f".{secrets.token_hex(3)}")
        require_short(private, path)
        try:
            listener = UnixListener.bind(private)
        except OSError as error:
            raise AddressError(f"cannot listen on {address}: {explain_path(error, path)}") from None
        try:
            try:
                ownership.give(private, listener.identity)
            except OSError as error:
                raise AddressError(not_given(address, error)) from None
            listener.sock.listen(backlog)
            os.rename(private, path)
            made = cls(listener.sock, address, SocketFile(path))
        except (OSError, AddressError) as error:
            listener.close()
            if isinstance(error, AddressError):
                raise
            raise AddressError(f"cannot listen on {address}: {explain_path(error, path)}") from None
        made._again = partial(cls.unix, address, backlog, ownership)
        return made

    @classmethod
    def adopt(cls, sock: socket.socket, address: Address) -> "SharedSocket":
        """Take a socket that listens already."""
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made = cls(sock, address)
        if sock.family == socket.AF_UNIX:
            name = sock.getsockname()
            with contextlib.suppress(OSError):
                if isinstance(name, str) and name.startswith("/"):
                    made._passed = (name, FileIdentity.of(name))
        return made

    def ensure(self, slots: int) -> None:
        """Do nothing: one socket is enough for any number of slots."""

    def shrink(self, slots: int) -> None:
        """Do nothing: the socket is everybody's."""

    def socket_of(self, slot: int) -> socket.socket:
        """Return the listening socket that the processes of any slot inherit."""
        return self._socket

    def steer(self, ready: Sequence[int], weights: Sequence[int] | None = None) -> None:
        """Do nothing: whichever process accepts first gets the connection."""

    def adjust(self, backlog: int, ownership: Ownership) -> None:
        """Take over backlog, mode and owner; what systemd passed is systemd's.

        Raises AddressError.
        """
        if isinstance(self.address, Systemd):
            return
        self._socket.listen(backlog)
        if self._file is not None and isinstance(self.address, Unix):
            try:
                ownership.give(self.address.path, self._file.identity)
            except FileNotFoundError:  # somebody removed it
                pass
            except OSError as error:
                raise AddressError(not_given(self.address, error)) from None
            self._again = partial(SharedSocket.unix, self.address, backlog, ownership)

    def presence(self) -> Presence:
        """Return what stands at the path of a Unix socket."""
        if self._file is not None:
            return self._file.presence()
        if self._passed is not None:
            path, identity = self._passed
            return identity.presence_at(path)
        return Presence.OURS

    def restore(self, *, close_former: bool = True) -> bool:
        """Make a socket file that vanished again; whether it belongs to a new socket.

        Raises AddressError when it cannot be made.
        """
        if self._file is None or self._again is None or self.presence() is not Presence.MISSING:
            return False
        if self._file.relink():
            return False
        try:
            self._file.restore_directory()
        except OSError as error:
            explained = explain_path(error, self._file.path)
            raise AddressError(f"cannot listen on {self.address}: {explained}") from None
        fresh = self._again()
        self._file.remove()  # the second name, where only that is left
        if close_former:
            self._socket.close()  # who inherited it finishes what waits there
        self._socket, self._file, self._again = fresh._socket, fresh._file, fresh._again
        self.opened = time.monotonic()
        return True

    def refuse(self) -> None:
        """Refuse new connections from now on, unless systemd keeps listening."""
        if not isinstance(self.address, Systemd):
            shut(self._socket)

    def close(self) -> None:
        """Stop listening; remove the socket file if it is still ours."""
        if self._file is not None:
            self._file.remove()
            self._file = None
        self._socket.close()
