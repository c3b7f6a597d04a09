"""A pretended supervisor: it holds the sockets, starts processes, and gives what is orphaned away."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chansup.protocol import carry, launch, notify
from chansup.protocol.launch import Carry, Drain, Launch, Listener

PATIENCE = 30.0  # seconds


@dataclass
class Held:
    """A socket, and whose it is."""

    owner: "Process"
    slot: int
    descriptor: int
    survives_crash: bool
    ticket: int = 0  # of an Adopt that was not answered
    target: "Process | None" = None
    count: int = 0


@dataclass
class Process:
    """One process that serves."""

    popen: "subprocess.Popen[bytes]"
    channel: socket.socket
    log: Path
    memory: dict[int, int] = field(default_factory=dict)  # descriptor of each of its segments
    known: set[tuple[int, int]] = field(default_factory=set)
    is_ready: bool = False
    is_leaving: bool = False
    is_old: bool = False  # of an older generation
    is_gone: bool = False
    survives_crash: bool = False


class Holder:
    """All processes of one pretended site, and the sockets that they have."""

    def __init__(self, directory: Path, app: str, **settings: Any) -> None:
        self.directory = directory
        self.app = app
        self.options = settings.pop("options", {})
        self.carry = settings.pop("carry", {})
        self.drain = settings.pop("drain", Drain(0.0, 0.1, 0.1, 10.0))
        self.environment = settings.pop("environment", {})
        self.listener = settings.pop("listener", None) or socket.create_server(
            ("127.0.0.1", 0), backlog=512
        )
        assert not settings, settings
        self.loop = asyncio.get_running_loop()
        self.processes: list[Process] = []
        self.held: dict[tuple[int, int], Held] = {}  # by pid and slot
        self.tickets: dict[int, Held] = {}
        self.orphans: list[tuple[Held, str]] = []
        self.counts: Counter[str] = Counter()
        self.failures: list[carry.Failed] = []
        self.keys: dict[tuple[int, int], int] = {}
        self.changed = asyncio.Event()
        self.numbers = 0
        self.frozen = False

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    @property
    def ready(self) -> list[Process]:
        return [one for one in self.processes if one.is_ready and not one.is_leaving]

    async def until(self, condition: Any, patience: float = PATIENCE) -> None:
        end = time.monotonic() + patience
        while not condition():
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), max(0.01, end - time.monotonic()))
            except TimeoutError:
                raise AssertionError(f"waited in vain: {self.describe()}") from None

    def describe(self) -> str:
        logs = "\n".join(one.log.read_text()[-3000:] for one in self.processes)
        return f"{dict(self.counts)} held {len(self.held)} {self.failures}\n{logs}"

    # Processes

    def spawn(self) -> Process:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for one in (ours, theirs):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.numbers += 1
        notifier = f"{self.directory}/notify.{self.numbers}"
        inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        inbox.bind(notifier)
        inbox.setblocking(False)
        unix = self.listener.family == socket.AF_UNIX
        document = Launch(
            pool="interface",
            slot=0,
            generation=self.numbers,
            server="uvicorn",
            application=self.app,
            gateway="asgi",
            directory=str(self.directory),
            listeners=[Listener(self.listener.fileno(), "unix" if unix else "tcp", False)],
            options=self.options,
            drain=self.drain,
            carry=Carry(theirs.fileno(), **self.carry),
        )
        log = self.directory / f"log.{self.numbers}"
        popen = subprocess.Popen(
            [sys.executable, "-m", "chansup.launch", "uvicorn", self.app],
            env={
                **os.environ,
                **self.environment,
                launch.VARIABLE: launch.encode(document),
                notify.SOCKET_VARIABLE: notifier,
            },
            pass_fds=[theirs.fileno(), self.listener.fileno()],
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parents[2],
        )
        theirs.close()
        ours.setblocking(False)
        process = Process(popen, ours, log)
        self.processes.append(process)
        self.loop.add_reader(ours, self._read, process)
        self.loop.add_reader(inbox, self._notified, inbox, process)
        return process

    def _notified(self, inbox: socket.socket, process: Process) -> None:
        fields = notify.parse(inbox.recv(4096))
        if "READY" in fields:
            process.is_ready = True
            orphans, self.orphans = self.orphans, []
            for held, reason in orphans:
                self.place(held, reason)
        if "STOPPING" in fields:
            process.is_leaving = True
        self.changed.set()

    async def start(self, count: int = 2) -> None:
        new = [self.spawn() for _ in range(count)]
        await self.until(lambda: all(one.is_ready for one in new))

    def _read(self, process: Process) -> None:
        while not process.is_gone:
            try:
                message, descriptor = carry.receive_from_child(process.channel)
            except BlockingIOError:
                return
            except carry.ChannelClosedError:
                self._gone(process)
                return
            self._take(process, message, descriptor)
            self.changed.set()

    def _take(self, process: Process, message: carry.ChildMessage, descriptor: int | None) -> None:
        self.counts[type(message).__name__] += 1
        pid = process.popen.pid
        if isinstance(message, carry.Ready):
            process.survives_crash = message.survives_crash
            assert message.survives_crash, message.why_not
        elif isinstance(message, carry.Segment):
            assert descriptor is not None
            process.memory[message.number] = descriptor
            self.numbers += 1
            self.keys[pid, message.number] = self.numbers
        elif isinstance(message, carry.Open):
            assert descriptor is not None
            assert (pid, message.slot) not in self.held
            self.held[pid, message.slot] = Held(
                process, message.slot, descriptor, message.survives_crash
            )
        elif isinstance(message, carry.Closed | carry.Plain):
            os.close(self.held.pop((pid, message.slot)).descriptor)
        elif isinstance(message, carry.Parked):
            self.place(self.held[pid, message.slot], "deploy")
        elif isinstance(message, carry.Adopted):
            held = self.tickets.pop(message.ticket)
            del self.held[held.owner.popen.pid, held.slot]
            held.owner, held.slot, held.target = process, message.slot, None
            held.ticket = message.ticket  # for Failed after it
            self.held[pid, message.slot] = held
            self.counts["lost"] += message.lost
            self.counts["again"] += message.again
        elif isinstance(message, carry.Failed):
            self.failures.append(message)
            held = next(
                one
                for one in (*self.tickets.values(), *self.held.values())
                if one.ticket == message.ticket
            )
            self.tickets.pop(message.ticket, None)
            held.target = None
            if message.closed:
                self.held.pop((held.owner.popen.pid, held.slot), None)
                os.close(held.descriptor)
            else:
                self.place(held, "crash")
        elif isinstance(message, carry.Leaving):
            process.is_leaving = True

    def place(self, held: Held, reason: str, close: int = 0) -> None:
        ready = [one for one in self.ready if not one.is_old] or self.ready
        if not ready:
            self.orphans.append((held, reason))
            return
        loads = Counter(id(one.target or one.owner) for one in self.held.values())
        target = min(ready, key=lambda one: loads[id(one)])
        segment, index = carry.place_of(held.slot)
        owner = held.owner
        if (owner.popen.pid, segment) not in target.known:
            target.known.add((owner.popen.pid, segment))
            key = self.keys[owner.popen.pid, segment]
            self._say(target, carry.Memory(key), owner.memory[segment])
        self.numbers += 1
        held.ticket, held.target = self.numbers, target
        held.count += 1
        self.tickets[self.numbers] = held
        order = carry.Adopt(
            self.numbers,
            self.keys[owner.popen.pid, segment],
            index,
            reason,  # type: ignore[arg-type]
            held.count,
            close,
        )
        self._say(target, order, held.descriptor)

    def _say(self, target: Process, message: carry.HolderMessage, descriptor: int | None) -> None:
        for _ in range(3000):
            try:
                carry.send(target.channel, message, descriptor)
                return
            except BlockingIOError:
                time.sleep(0.001)
            except OSError:
                return  # it dies: its end will come

    def _gone(self, process: Process) -> None:
        process.is_gone = True
        self.loop.remove_reader(process.channel)
        process.channel.close()
        process.popen.wait()
        self.processes.remove(process)
        reason = "deploy" if process.is_leaving else "crash"
        for held in list(self.held.values()):
            if held.target is process:
                self.tickets.pop(held.ticket, None)
                held.target = None
                self.place(held, reason)
            elif held.owner is process and held.target is None:
                if (held, "deploy") in self.orphans:
                    continue
                if reason == "deploy" or not held.survives_crash:
                    # It has left what it could; the rest it has closed, or it must end.
                    del self.held[process.popen.pid, held.slot]
                    os.close(held.descriptor)
                    self.counts["ended with its process"] += 1
                else:
                    self.place(held, "crash")
        self.changed.set()

    # What happens to them

    def fullest(self) -> Process:
        loads = Counter(id(one.owner) for one in self.held.values())
        return max(self.ready, key=lambda one: loads[id(one)])

    async def kill(self, process: Process | None = None, count: int = 2) -> None:
        """Kill a process, and have another one start at once."""
        process = process or self.fullest()
        process.popen.send_signal(signal.SIGKILL)
        self.spawn()
        await self.until(lambda: process.is_gone and len(self.ready) >= count)
        await self.settled()

    async def deploy(self) -> None:
        """Replace each process."""
        former = self.ready
        for old in former:
            old.is_old = True
        for old in former:
            new = self.spawn()
            await self.until(lambda new=new: new.is_ready)
            old.is_leaving = True
            old.popen.send_signal(signal.SIGTERM)
            await self.until(lambda old=old: old.is_gone)
        await self.settled()

    async def settled(self) -> None:
        await self.until(lambda: not self.tickets and not self.orphans)

    async def stop(self) -> None:
        for process in self.processes:
            process.popen.kill()
        for process in list(self.processes):
            self.loop.remove_reader(process.channel)
            process.channel.close()
            process.popen.wait()
        for held in self.held.values():
            os.close(held.descriptor)
        self.listener.close()


@contextlib.asynccontextmanager
async def holding(
    directory: Path, app: str, count: int = 2, **settings: Any
) -> AsyncIterator[Holder]:
    holder = Holder(directory, app, **settings)
    try:
        await holder.start(count)
        yield holder
    finally:
        await holder.stop()
