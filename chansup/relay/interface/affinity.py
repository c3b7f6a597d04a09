"""Sticky dispatch: a client's requests go to the app worker that knows its session.

The session has a name for a value: of a query parameter, a cookie or a header. The app makes the
value up, so it is learned from the response that tells it to the client, before the client has it.
"""

import asyncio
import re
from collections.abc import Iterable, MutableMapping
from hashlib import blake2b
from typing import Any, Protocol
from urllib.parse import unquote_plus
from weakref import WeakSet

from chansup.protocol import relay_board as board
from chansup.protocol import roster
from chansup.protocol.session_table import SessionTable, place_of
from chansup.relay.interface.pool_counters import PoolCounters
from chansup.relay.interface.worker import Sticky, Worker

Headers = Iterable[tuple[bytes, bytes]]

_LOOKED_AT = 4096  # bytes of a response's body, in which a value may stand
_GRACE = 1.0  # seconds that requests have which are under way when their worker is to end
_YOUNG = 60.0  # seconds: a session that gives way to another one so soon is counted


class AffinityPool(Protocol):
    """The pool, as its sticky routes see it."""

    settings: roster.Pool
    counters: PoolCounters
    loop: asyncio.AbstractEventLoop
    choices: list[Worker]  # that may get something new
    homes: list[Worker]  # of these, those that do not leave soon, if there are any


class Affinity:
    """What one pool knows of sessions. `name` is None where nothing is sticky."""

    def __init__(self, pool: AffinityPool, table: SessionTable | None) -> None:
        self._pool = pool
        self._table = table or SessionTable()
        self.name: str | None = None
        self._in_text = re.compile(b"")
        self._parted: WeakSet[Worker] = WeakSet()

    def use(self, name: str | None) -> None:
        """Take the name of the parameter, cookie or header, for all that comes from now on."""
        if name == self.name:
            return
        self.name = name
        if name is not None:
            self._in_text = _pattern(name)

    def session(self, scope: MutableMapping[str, Any]) -> "Session | None":
        """Return what a request says of its session; None where nothing is sticky."""
        if self.name is None:
            return None
        return Session(self, _value(scope, self.name))

    def worker_of(self, value: str) -> tuple[Worker | None, str]:
        """Return the worker that a session goes to, and why: one of `relay_board.STICKY`.

        It is the one that knows the session. If that left, or no one is known to, it is the same
        one for all interface processes.
        """
        choices = self._pool.choices
        pid = self._table.find(place_of(self._pool.settings.name, value))
        for worker in choices:
            if worker.pid == pid:
                return worker, "kept"
        best = max(self._pool.homes, key=lambda one: _weight(one, value), default=None)
        return best, "unknown" if pid is None else "broken"

    def learn(self, value: str, worker: Worker) -> None:
        """Take notice that a worker made a session up."""
        place = place_of(self._pool.settings.name, value)
        idle = self._table.keep(place, worker.pid)
        self._pool.counters.add(board.SESSIONS_LEARNED)
        if idle is not None and idle < _YOUNG:
            self._pool.counters.add(board.SESSIONS_DISPLACED)

    def part(self, worker: Worker) -> None:
        """Have long polls go elsewhere whose worker ends: another one says that it knows them not.

        So clients begin a new session at once, and do not wait for the end of the poll. Requests
        of an ordinary length are answered before that.
        """
        if self.name is None or worker in self._parted:
            return
        self._parted.add(worker)
        polls = [
            stream
            for stream in worker.streams.values()
            if isinstance(stream, Sticky) and stream.knows_worker(worker)
        ]
        settings = self._pool.settings
        longest = max(0.0, settings.stop_timeout / 2 - _GRACE)
        spread = min(settings.drain_spread, longest)
        for place, poll in enumerate(polls):
            delay = _GRACE + place / len(polls) * spread
            self._pool.loop.call_later(delay, poll.leave, worker)

    def told_in(self, text: bytes) -> str | None:
        """Return the value that a text has for the name."""
        found = self._in_text.search(text)
        return unquote_plus(found[1].decode("latin-1")) if found is not None else None


class Session:
    """What one request has to do with a session."""

    __slots__ = ("_affinity", "_change", "_found", "is_untold", "value")

    def __init__(self, affinity: Affinity, value: str | None) -> None:
        self._affinity = affinity
        self.value = value
        self.is_untold = value is None  # the response may tell it
        self._found: tuple[Worker | None, str] | None = None
        self._change = -1

    def worker(self, change: int) -> Worker | None:
        """Return the worker that the request is to go to; None: any. `change` of the workers."""
        if self.value is None:
            return None
        if self._found is None or self._change != change:
            self._found, self._change = self._affinity.worker_of(self.value), change
        return self._found[0]

    def begun(self, counters: Any) -> None:
        """Count where it went, now that it goes there."""
        if self._found is not None:
            counters.add(board.STICKY_REQUESTS + board.STICKY.index(self._found[1]))

    def learn_from(self, worker: Worker, status: int, headers: Headers, body: bytes) -> None:
        """Learn from the beginning of the response of `worker`, before the client has it."""
        name = self._affinity.name
        if name is None:
            return
        value = self._told(name.encode(), status, headers, body)
        if value is not None and value != self.value:
            self.is_untold = False
            self._affinity.learn(value, worker)

    def _told(self, name: bytes, status: int, headers: Headers, body: bytes) -> str | None:
        for key, said in headers:
            field = key.lower()
            if field == b"set-cookie":
                cookie, _, rest = said.partition(b"=")
                if cookie.strip() == name and (value := _unquoted(rest.partition(b";")[0])):
                    return value
            elif field == name.lower():
                return said.decode("latin-1")
            elif (
                field == b"location" and self.is_untold and (found := self._affinity.told_in(said))
            ):
                return found
        if not self.is_untold or not 200 <= status < 300:
            return None
        return self._affinity.told_in(body[:_LOOKED_AT])


def _pattern(name: str) -> re.Pattern[bytes]:
    """Return what finds a value: "name": "value", also quoted once more, and ?name=value."""
    quoted = re.escape(name.encode())
    text = rb"""(?:\\?"%b\\?"\s*:\s*\\?"|[?&]%b=)([^\s"'\\&<>#;]{1,512})"""
    return re.compile(text % (quoted, quoted))


def _value(scope: MutableMapping[str, Any], name: str) -> str | None:
    """Return the value of the query parameter, the cookie or the header of that name."""
    query: bytes = scope.get("query_string", b"")
    wanted = name.encode()
    if wanted in query:
        for part in query.split(b"&"):
            key, _, value = part.partition(b"=")
            if key == wanted and value:
                return unquote_plus(value.decode("latin-1"))
    field = wanted.lower()
    in_header: str | None = None
    for key, said in scope["headers"]:
        if key == b"cookie" and wanted in said:
            for part in said.split(b";"):
                cookie, _, value = part.partition(b"=")
                if cookie.strip() == wanted and (found := _unquoted(value)):
                    return found
        elif key == field:
            in_header = said.decode("latin-1")
    return in_header


def _unquoted(value: bytes) -> str:
    return value.strip().strip(b'"').decode("latin-1")


def _weight(worker: Worker, value: str) -> tuple[bytes, int]:
    """Return by what a worker is chosen for a value: highest random weight, by names of slots."""
    text = f"{worker.name}\0{value}".encode(errors="surrogateescape")
    return blake2b(text, digest_size=8).digest(), worker.generation
