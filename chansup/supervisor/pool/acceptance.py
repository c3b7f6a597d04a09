"""Whether processes that are ready take the clients that come to them.

Two signs tell of one that does not, and both are seen from outside, whichever server it runs: in
each heartbeat it tries whether it could open a file; and the queue of its listening socket. Where
the same connections have waited there for seconds, and none was taken, nobody accepts.

It is said, counted and makes the site not ready; nobody is killed for it, and a process whose loop
stands still is left to `liveness`. Where clients can be kept away from a slot, they are.
"""

import os
import resource
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from chansup.protocol.scoreboard import OUT_OF_DESCRIPTORS_NOW
from chansup.supervisor.logs.repetition import Repetition
from chansup.supervisor.pool.liveness import TICK
from chansup.supervisor.pool.pool import Pool, PoolHost
from chansup.supervisor.pool.slot import Slot
from chansup.supervisor.process.process import Process
from chansup.supervisor.sockets import accept_queue

PATIENCE = 5.0  # seconds that connections wait and none is taken
LONG_PATIENCE = 15.0  # where some may have been taken: the queue is full, or cannot be looked into
OF_PROGRAMS = 30.0  # of one that does not beat: it may be busy with one long request
_BEATS_LATE = 2.5  # seconds without a heartbeat: it is busy, or hangs
_LINGER = 3.0  # seconds that a process counts as out of descriptors after it last was
_ALMOST = 3  # descriptors that may be left where a server stops to accept
RAISE = (
    "raise the limit (limits = { nofile = 65536 } in its table, ulimit -n, or LimitNOFILE= in a"
    " systemd unit)"
)


class AcceptanceHost(PoolHost, Protocol):
    """What this asks of the site."""

    pools: dict[str, Pool]
    not_accepting: dict[str, str]


@dataclass
class _Wait:
    """Connections that wait on one listening socket, from the second look on that saw some."""

    length: int
    connections: frozenset[int] | None  # those that waited then, and still do; None: unknown
    seconds: float = 0.0


@dataclass
class _Listening:
    """One listening socket, and the processes that are to accept there."""

    sock: socket.socket
    where: str
    slots: list[Slot]
    holders: list[Process]
    wait: _Wait | None = None
    seen: bool = False  # connections waited at the last look


@dataclass
class _Watched:
    """The facts of one process; seconds since its last heartbeat, and without descriptors."""

    beats: int
    since_beat: float = 0.0
    since_used_up: float = _LINGER


class _Complaint(NamedTuple):
    kind: str
    process: Process
    line: str


class Acceptance:
    """Watches the slots of the interface, of workers, and the hub."""

    def __init__(self, site: AcceptanceHost) -> None:
        self._site = site
        self._processes: dict[Process, _Watched] = {}
        self._listening: dict[tuple[str, int], _Listening] = {}
        self._complaints: dict[str, Repetition] = {}  # by slot, or by address
        self._said: dict[str, Process] = {}  # what is said at present to be so, and of whom

    def look(self, elapsed: float) -> None:
        """Look at everybody; `elapsed` seconds went by since the last look."""
        counted = min(elapsed, 1.5 * TICK)  # if the supervisor was frozen, nobody is blamed
        if self._site.stopping:
            self._site.not_accepting = {}
            return
        self._look_at_processes(counted)
        reasons: dict[str, str] = {}
        complaints: dict[str, _Complaint] = {}
        idle: set[Slot] = set()  # whatever comes to them is refused, or waits
        for slot, process in self._filled():
            if self._processes[process].since_used_up < _LINGER:
                reasons[slot.name] = f"{slot.name}: no file descriptors left"
                line = (
                    f"{slot.name}[{process.pid}]: no file descriptors are left{_limit(process)}, so"
                    f" clients are refused or wait: {RAISE}"
                )
                complaints[slot.name] = _Complaint("descriptors", process, line)
                idle.add(slot)
        stuck: set[Slot] = set()
        for one in self._look_at_queues(counted):
            stuck.update(one.slots)
            name = one.slots[0].name if len(one.slots) == 1 else one.where
            if name not in reasons:
                reasons[name] = f"{name}: {_accepts_none(one)}"
                complaints[name] = _Complaint("queue", one.holders[0], self._line(name, one))
        self._tell(complaints)
        self._site.not_accepting = reasons
        for pool in self._site.pools.values():
            for slot in pool.slots:
                if slot in stuck and not slot.stalled:
                    slot.accept_stalls += 1
                slot.stalled = slot in stuck
                slot.accepts = slot not in stuck | idle

    # Processes

    def _filled(self) -> "Iterator[tuple[Slot, Process]]":
        for pool in self._site.pools.values():
            for slot in pool.slots:
                if slot.serves and slot.current is not None:
                    yield slot, slot.current

    def _look_at_processes(self, counted: float) -> None:
        seen: dict[Process, _Watched] = {}
        for _, process in self._filled():
            beats = process.beats()
            watched = self._processes.get(process) or _Watched(beats)
            watched.since_beat = 0.0 if beats != watched.beats else watched.since_beat + counted
            watched.beats = beats
            watched.since_used_up += counted
            board = process.scoreboard
            if board is not None and board.read(OUT_OF_DESCRIPTORS_NOW):
                watched.since_used_up = 0.0
            seen[process] = watched
        self._processes = seen

    def _is_busy(self, process: Process) -> bool:
        """Whether its loop may stand still, so that it could not accept anyway."""
        return _beats(process) and self._processes[process].since_beat > _BEATS_LATE

    # Queues

    def _look_at_queues(self, counted: float) -> list[_Listening]:
        """Return the sockets on which nobody accepts."""
        present: dict[tuple[str, int], _Listening] = {}
        for key, fresh in self._sockets():
            former = self._listening.get(key)
            if former is not None and former.holders == fresh.holders:
                fresh.wait, fresh.seen = former.wait, former.seen
            present[key] = fresh
        self._listening = present
        some = accept_queue.some_wait(one.sock for one in present.values())
        for one in present.values():
            if one.sock.fileno() not in some or all(map(self._is_busy, one.holders)):
                one.wait, one.seen = None, False
            elif not one.seen:
                one.seen = True
            else:
                self._look_at(one, counted)
        return [one for one in present.values() if self._is_stuck(one)]

    def _sockets(self) -> Iterator[tuple[tuple[str, int], _Listening]]:
        pools = self._site.pools
        if "interface" in pools:
            serving = [slot for slot in pools["interface"].slots if slot.serves and slot.current]
            for listeners in self._site.addresses.listeners():
                shares = [[slot] for slot in serving] if listeners.steered else [serving]
                for slots in shares:
                    holders = [slot.current for slot in slots if slot.current is not None]
                    if not holders:
                        continue
                    sock = listeners.socket_of(slots[0].number)
                    where = str(listeners.address)
                    yield (where, sock.fileno()), _Listening(sock, where, slots, holders)
        if "hub" in pools and (hub := self._site.hub.listener) is not None:
            for slot in pools["hub"].slots:
                if slot.serves and slot.current is not None:
                    yield ("hub", 0), _Listening(hub, "hub", [slot], [slot.current])

    def _look_at(self, one: _Listening, counted: float) -> None:
        queue = accept_queue.look(one.sock)
        length = queue.length if queue is not None else 1
        former = one.wait
        if former is None or length < former.length:
            one.wait = _Wait(length, accept_queue.waiting(one.sock))
            return
        former.length = length
        former.seconds += counted
        if former.connections:
            now = accept_queue.waiting(one.sock)
            former.connections = None if now is None else former.connections & now

    def _is_stuck(self, one: _Listening) -> bool:
        wait = one.wait
        if wait is None:
            return False
        queue = accept_queue.look(one.sock)
        used_up = any(self._is_used_up(process) for process in one.holders)
        if not used_up and not all(map(_beats, one.holders)):
            patience = OF_PROGRAMS
        elif queue is None or queue.is_full or not wait.connections:
            patience = LONG_PATIENCE
        else:
            patience = PATIENCE
        if wait.seconds < patience:
            return False
        # A full queue looks the same whether somebody accepts or not: only its members tell.
        return bool(wait.connections) or (queue is not None and not queue.is_full)

    def _is_used_up(self, process: Process) -> bool:
        if self._processes[process].since_used_up < _LINGER:
            return True
        opened, limit = _descriptors(process.pid)
        return opened is not None and limit is not None and opened + _ALMOST >= limit

    # Saying so

    def _line(self, name: str, one: _Listening) -> str:
        assert one.wait is not None
        process = one.holders[0]
        who = f"{name}[{process.pid}]" if len(one.slots) == 1 else name
        begins = (
            f"{who}: {_accepts_none(one)}: {one.wait.length} on {one.where} have waited for"
            f" {one.wait.seconds:.0f} s"
        )
        if self._is_used_up(process):
            return f"{begins}. No file descriptors are left{_limit(process)}: {RAISE}"
        if process.specification.kind == "interface" and not process.specification.launcher:
            return (
                f"{begins}. It may be busy with one long request; if it never accepts any, it must"
                " take its socket from descriptor 3 ({fd}) or LISTEN_FDS"
            )
        return f"{begins}. It may hold as many as its options allow"

    def _tell(self, complaints: dict[str, _Complaint]) -> None:
        for name, one in complaints.items():
            if name not in self._said:
                known = self._complaints.setdefault(name, Repetition())
                if known.filter(f"{one.kind} {one.process.pid}") is not None:
                    self._site.say(one.line, "error")
                    self._said[name] = one.process
        for name in [name for name in self._said if name not in complaints]:
            if self._said.pop(name) in self._processes:  # not another one by now
                self._site.say(f"{name}: accepts connections again")


def _accepts_none(one: _Listening) -> str:
    return "accepts no connections" if len(one.slots) == 1 else "no process accepts connections"


def _beats(process: Process) -> bool:
    return process.specification.launcher or process.specification.takes_over


def _descriptors(pid: int) -> tuple[int | None, int | None]:
    """Return how many descriptors a process has open, and may have; None where it hides that."""
    try:
        opened = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        opened = None
    try:
        limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
    except (OSError, ValueError):
        limit = None
    return opened, limit


def _limit(process: Process) -> str:
    limit = _descriptors(process.pid)[1]
    return f" (it may have {limit})" if limit is not None else ""
