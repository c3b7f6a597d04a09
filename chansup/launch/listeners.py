"""The inherited listening sockets, seen from outside of the server that uses them.

No server has to help: what it waits for stands in its epoll sets, and which clients it holds stands
in its table of descriptors. Sources: proc_pid_fd(5), proc_pid_fdinfo(5), epoll(7).
"""

import fcntl
import os
import select
import socket
import stat
import termios
from collections.abc import Iterator
from typing import NamedTuple

_TARGET = "tfd:"
_EPOLL = "anon_inode:[eventpoll]"
_NO_BYTES = b"\0\0\0\0"


class Connections(NamedTuple):
    """The client connections that this process holds, as the kernel sees them."""

    inodes: frozenset[int]
    unread: bool  # bytes have arrived on at least one that the server did not read yet


class Listeners:
    """The listening sockets of this process."""

    def __init__(self, descriptors: list[int]) -> None:
        self.sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        for listener in self.sockets:
            listener.setblocking(False)
            listener.set_inheritable(False)
        self._inodes = frozenset(os.fstat(descriptor).st_ino for descriptor in descriptors)
        self._addresses = frozenset(_local_address(listener) for listener in self.sockets)
        self._known: dict[tuple[int, int], bool] = {}  # (descriptor, inode): is it a client's?

    def accepting(self) -> bool:
        """Say whether any part of this process waits for new connections on every listener."""
        waited_for = {inode for _, _, inode in self._watchers()}
        return waited_for >= self._inodes

    def waiting(self) -> bool:
        """Say whether connections wait in the kernel's queues to be accepted, by anybody."""
        queues = select.poll()
        for listener in self.sockets:
            if listener.fileno() >= 0:
                queues.register(listener, select.POLLIN)
        return bool(queues.poll(0))

    def stop_accepting(self) -> None:
        """Take the listeners out of every epoll set: nothing wakes to accept any more.

        Connections that arrive from now on stay in the kernel's queue, for whoever else listens.
        """
        for epoll_descriptor, descriptor, _ in self._watchers():
            _remove(epoll_descriptor, descriptor)

    def connections(self) -> Connections:
        """Return the client connections that were accepted and not closed yet."""
        inodes = set()
        unread = False
        known: dict[tuple[int, int], bool] = {}
        for descriptor in _descriptors():
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISSOCK(status.st_mode):
                    continue
                key = (descriptor, status.st_ino)
                is_client = self._known.get(key)
                if is_client is None:
                    is_client = self._is_client(descriptor)
                known[key] = is_client
                if is_client:
                    inodes.add(status.st_ino)
                    if not unread:
                        waiting = fcntl.ioctl(descriptor, termios.FIONREAD, _NO_BYTES)
                        unread = waiting != _NO_BYTES
            except OSError:
                continue  # closed meanwhile, by another thread
        self._known = known
        return Connections(frozenset(inodes), unread)

    def disconnect(self) -> None:
        """Shut down every client connection: the server reads the end of each and lets it go."""
        for descriptor in _descriptors():
            try:
                if stat.S_ISSOCK(os.fstat(descriptor).st_mode) and self._is_client(descriptor):
                    connection = socket.socket(fileno=descriptor)
                    try:
                        connection.shutdown(socket.SHUT_RDWR)
                    finally:
                        connection.detach()  # it is the server's
            except OSError:
                continue  # closed meanwhile

    def _is_client(self, descriptor: int) -> bool:
        connection = socket.socket(fileno=descriptor)
        try:
            if connection.type != socket.SOCK_STREAM or _is_listening(connection):
                return False
            return _local_address(connection) in self._addresses
        finally:
            connection.detach()  # it is the server's

    def _watchers(self) -> Iterator[tuple[int, int, int]]:
        """Yield (epoll descriptor, watched descriptor, inode) where a listener is watched."""
        for epoll_descriptor in _descriptors():
            try:
                if os.readlink(f"/proc/self/fd/{epoll_descriptor}") != _EPOLL:
                    continue
                with open(f"/proc/self/fdinfo/{epoll_descriptor}") as lines:
                    targets = [line.split() for line in lines if line.startswith(_TARGET)]
            except OSError:
                continue
            for words in targets:
                descriptor = int(words[1])
                inode = _inode_of_target(words)
                if inode in self._inodes:
                    yield epoll_descriptor, descriptor, inode


def _inode_of_target(words: list[str]) -> int:
    """Read "tfd: 5 events: 19 data: 5 pos:0 ino:61af sdev:7"."""
    for word in words:
        if word.startswith("ino:"):
            return int(word[4:], 16)
    return os.fstat(int(words[1])).st_ino


def _remove(epoll_descriptor: int, descriptor: int) -> None:
    borrowed = select.epoll.fromfd(os.dup(epoll_descriptor))
    try:
        borrowed.unregister(descriptor)
    except OSError:
        pass  # the server was quicker
    finally:
        borrowed.close()


def _descriptors() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/fd")]


def _is_listening(connection: socket.socket) -> bool:
    return bool(connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _local_address(connection: socket.socket) -> tuple[int, object]:
    """Return what a listener and the connections it accepted have in common."""
    address = connection.getsockname()
    if connection.family == socket.AF_UNIX:
        return connection.family, address
    return connection.family, address[1]  # the port; the listener's host may be a wildcard
