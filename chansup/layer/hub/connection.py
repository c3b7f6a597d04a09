"""The connection of one client: its socket, its greeting, its end."""

import os
import socket
import struct
from typing import Protocol

import msgspec

import chansup
from chansup.layer import frames
from chansup.layer.frames import ID, Decoder, FrameError, Kind, pack
from chansup.layer.greetings import Hello, Welcome, in_words, spoken_by, understands
from chansup.layer.hub import ledger, outbox, session
from chansup.layer.hub.limits import NoRoomError
from chansup.layer.hub.outbox import Outbox
from chansup.layer.hub.session import Session
from chansup.protocol.versions import LAYER
from chansup.unix import credentials

_MALFORMED = (FrameError, msgspec.DecodeError, struct.error, IndexError, ValueError)
_hello = msgspec.msgpack.Decoder(Hello)


class Host(outbox.Host, session.Host, Protocol):
    """The hub, as its clients' connections see it."""

    epoch: str

    def report(self, text: str) -> None:
        """Warn, but not all the time."""

    def listens_on(self, descriptor: int) -> bool:
        """Say whether a descriptor is of the socket that this hub listens on."""

    def former(self, process: bytes, link: int, received: int) -> ledger.Former | None:
        """Return the record of a connection that a client has lost."""

    def begin_handing_over(self, heir: socket.socket) -> None:
        """Let another hub take over, as soon as the clients are quiet."""

    def forget(self, connection: "Connection") -> None:
        """Take notice that a connection is closed."""

    def closed(self, connection: "Connection") -> None:
        """Take notice that a client has gone."""


class Connection:
    """A client's connection. It is in a session when it has said who it is."""

    __slots__ = (
        "_decoder", "_entitled", "_host", "_socket", "born", "closed", "key", "out", "session",
        "speaks",
    )  # fmt: skip

    def __init__(self, host: Host, sock: socket.socket) -> None:
        self._host = host
        self._socket = sock
        self._decoder = Decoder()
        self._entitled = False  # to take over: it holds the listening socket
        self.speaks: tuple[int, int] | None = None  # versions, once it has said who it is
        self.key = (b"", 0)  # the process, and the number of the connection there
        self.born = host.store.now
        self.closed = False
        self.out = Outbox(host, sock, self)
        self.session: Session | None = None
        host.loop.add_reader(sock.fileno(), self._read)

    # In

    def _read(self) -> None:
        if self.closed:
            return
        try:
            if self.session is None:
                data = self._receive_first()
            else:
                data = self._socket.recv(frames.READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        host = self._host
        host.tell_time()
        if not data:
            self.close(keep_held=self.is_quiet)
        else:
            try:
                self._take_all(self._decoder.feed(data))
            except (NoRoomError, PermissionError) as error:
                host.report(f"a client is disconnected: {error}")
                self.close()
            except _MALFORMED as error:
                host.report(f"disconnected a client: malformed message: {error}")
                self.close()
        host.flush()

    def _receive_first(self) -> bytes:
        """Return what came, and see whether the listening socket came with it."""
        data, ancillary, _, _ = self._socket.recvmsg(frames.READ_SIZE, socket.CMSG_SPACE(ID.size))
        for descriptor in frames.descriptors(ancillary):
            self._entitled = self._entitled or self._host.listens_on(descriptor)
            os.close(descriptor)
        return data

    def _take_all(self, received: list[frames.Frame]) -> None:
        if self.session is None:
            if not received:
                return
            self._introduce(*received.pop(0))
        if self.session is not None:
            self.session.take_all(received)

    def _introduce(self, kind: int, payload: bytes) -> None:
        host = self._host
        if kind == Kind.TAKE_OVER:
            user = credentials(self._socket).uid
            if user not in (0, os.geteuid()) and not self._entitled:
                raise PermissionError(
                    f"user id {user} may not take over, only root, user id {os.geteuid()} and"
                    " whoever holds the listening socket"
                )
            host.begin_handing_over(self._detach())
            return
        if kind != Kind.HELLO:
            raise FrameError(
                "the first frame is not a HELLO: the other side is not a channel layer"
            )
        hello = _hello.decode(payload)
        token = hello.process.encode()
        former = host.former(token, hello.former, hello.received)
        returning = host.store.returning
        welcome = Welcome(
            newest=LAYER.newest,
            version=chansup.__version__,
            epoch=host.epoch,
            knows_policy=True,
            awaits=returning is not None and token in returning,
            done=former.done if former is not None else None,
            refused=former.refused if former is not None else 0,
        )
        self.out.emit(pack(Kind.WELCOME, msgspec.msgpack.encode(welcome)))
        if not understands(hello):
            host.flush()
            raise FrameError(f"it speaks {in_words(hello)}, and this hub does not")
        self.speaks = spoken_by(hello)
        self.session = Session(host, self.out, token, hello.policy)
        if hello.link:
            self.key = (token, hello.link)
            self.out.row = host.ledger.open(*self.key, credentials(self._socket).pid)

    def pause(self) -> None:
        """Read nothing more."""
        self._host.loop.remove_reader(self._socket.fileno())

    def resume(self) -> None:
        """Read again."""
        self._host.loop.add_reader(self._socket.fileno(), self._read)

    def has_room(self) -> None:
        """Deliver what had to wait until the client has read."""
        if self.session is not None:
            self.session.pump()

    # Before another hub takes over

    @property
    def is_quiet(self) -> bool:
        """Whether the client says nothing more on this connection."""
        return self.session is not None and self.session.quiet

    def ask_for_quiet(self) -> None:
        """Ask the client to say nothing more; close the connection if nobody knows whose it is."""
        if self.session is None:
            self.close()
        else:
            self.session.quiet = False
            self.out.tell(Kind.QUIESCE)

    # The end

    def finish(self) -> None:
        """Do what the client has asked for, who has another connection by now, and close."""
        while not self.closed:
            try:
                data = self._socket.recv(frames.READ_SIZE)
                if not data:
                    break
                self._take_all(self._decoder.feed(data))
            except (OSError, NoRoomError, *_MALFORMED):
                break
        self.out.commit_done()
        self.close(keep_held=self.is_quiet)

    def _detach(self) -> socket.socket:
        """Give up the socket to somebody else."""
        self.pause()
        self.closed = True
        self.out.close()
        self._host.forget(self)
        return self._socket

    def close(self, keep_held: bool = False) -> None:
        """Close the connection. What the client had not taken goes back to where it was.

        `keep_held`: the client has not gone, it only has to connect to another hub.
        """
        if self.closed:
            return
        self.closed = True
        self.pause()
        self.out.close()
        self._socket.close()
        self._host.forget(self)
        self._host.closed(self)
        if self.session is not None:
            self.session.end(keep_held)
