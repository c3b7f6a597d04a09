"""The signals that reach the supervisor, and what each of them asks for.

They are blocked and read from a descriptor, for two reasons: none can kill the supervisor, which
would kill every process at once, and the kernel tells who sent each of them. Sources: signalfd(2),
sigaction(2), signal(7).
"""

import asyncio
import ctypes
import os
import signal
import struct
from collections.abc import Callable
from dataclasses import dataclass

from chansup.protocol.launch import STACK_DUMP_SIGNAL
from chansup.text import visible

STOP = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGPWR, signal.SIGXCPU})
# Those that nobody can read, that a fault of the process itself raises, that harm nobody, and that
# job control or Python itself needs. All others are read.
_LEFT_ALONE = frozenset(
    {
        *(signal.SIGKILL, signal.SIGSTOP),
        *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP),
        *(signal.SIGABRT, signal.SIGSYS),
        *(signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH),
        *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
        *(signal.SIGPIPE, signal.SIGXFSZ, STACK_DUMP_SIGNAL),
    }
)
_READ = frozenset(signal.valid_signals()) - _LEFT_ALONE

_FROM_KERNEL = 0x80  # SI_KERNEL
_RECORD = struct.Struct("=IiiI112x")  # of signalfd_siginfo: ssi_signo, ssi_errno, ssi_code, ssi_pid
_SET_BYTES = 128  # sigset_t


@dataclass(frozen=True)
class Received:
    """One signal. `sender` is a pid, 0 if it is unknown here."""

    number: int
    sender: int
    by_kernel: bool  # not by a process: of SIGHUP, the terminal was closed

    @property
    def name(self) -> str:
        """Return what people call the signal."""
        try:
            return signal.Signals(self.number).name
        except ValueError:
            return f"signal {self.number}"

    def sent(self) -> str:
        """Return who sent it, for the end of a message; "" if that is unknown."""
        if not self.sender or self.by_kernel:
            return ""
        return f" (sent by {_described(self.sender)})"


class SignalReader:
    """Holds signals back from its making on, and hands them on once it was started.

    Make it before any thread: a thread inherits the blocked signals.
    """

    def __init__(self) -> None:
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self.survives_its_terminal = ignored  # as nohup(1) starts a program
        signal.pthread_sigmask(signal.SIG_SETMASK, _READ)  # whatever was blocked before
        # What is ignored on delivery is read nevertheless while it is blocked, but not by name.
        for number in _READ:
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        self._descriptor = _signalfd(_READ)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, on_signal: Callable[[Received], None]) -> None:
        """Hand on what came since, and all that comes."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._read, on_signal)

    def stop(self) -> None:
        """Hand on no more; signals stay blocked, so that none cuts the end short."""
        if self._loop is not None:
            self._loop.remove_reader(self._descriptor)
            self._loop = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self, on_signal: Callable[[Received], None]) -> None:
        while self._loop is not None:
            try:
                record = os.read(self._descriptor, _RECORD.size)
            except BlockingIOError:
                return
            number, _, code, sender = _RECORD.unpack(record)
            on_signal(Received(number, sender, code == _FROM_KERNEL))


def _signalfd(numbers: frozenset[int]) -> int:
    bits = sum(1 << (number - 1) for number in numbers)
    mask = ctypes.create_string_buffer(bits.to_bytes(_SET_BYTES, "little"), _SET_BYTES)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = int(libc.signalfd(-1, mask, os.O_NONBLOCK | os.O_CLOEXEC))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor


def _described(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            name = file.read().decode(errors="replace").strip()
    except OSError:
        return f"process {pid}"
    return f"process {pid}, {visible(name)}"
