"""Starting a child: its command, its credentials, and the descriptors meant for it."""

import contextlib
import marshal
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import chansup
from chansup.config import accounts, limits
from chansup.protocol import refusals
from chansup.supervisor.errors import SpawnError
from chansup.supervisor.plan import descriptors as descriptor_limit
from chansup.supervisor.plan.command import Command

# Their text, not their path: an upgrade of the package must not change them under a running
# supervisor.
PRELUDE = (Path(chansup.__file__).parent / "launch" / "prelude.py").read_text()
_REFUSALS = Path(refusals.__file__).read_text()
# What the prelude runs by needs the standard library only. A virtual environment may be removed
# with an old release, while the Python that it was made from stays.
INTERPRETER = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
CANNOT_RUN = "chansup: cannot run "  # how the prelude begins to say why it cannot


@dataclass(frozen=True)
class Child:
    """A process that was just started."""

    popen: subprocess.Popen[bytes]
    pidfd: int  # readable when the process has ended: pidfd_open(2)
    output: int  # non-blocking read end of its stdout and stderr

    @property
    def pid(self) -> int:
        """The process id, also the id of its process group and session."""
        return self.popen.pid


def spawn(command: Command, listeners: Sequence[int], others: Sequence[int]) -> Child:
    """Start `command` with `listeners` as descriptors 3, 4, … and `others` right after them.

    Blocks for the time of a vfork and an exec (1–2 ms). Must be called from the main thread: the
    child dies with the *thread* that started it. Raises SpawnError.
    """
    account = account_of(command)
    descriptors = [*listeners, *others]
    order = {
        "parent": os.getpid(),
        "descriptors": descriptors,
        "listeners": len(listeners),
        "directory": command.directory,
        "executable": _executable(command),
        "argv": list(command.argv),
        "program": command.program,
        "umask": None if command.umask is None else int(command.umask, 8),
        "limits": _limits(command),
        "user": command.user or (account.name if account else None) or str(os.geteuid()),
        "uid": account.user if account else None,
        "gid": account.group if account else None,
        "groups": account.groups if account else None,
        "hides_path": command.hides_path,
        "complaint": CANNOT_RUN,
        "refusals": _REFUSALS,
    }
    reader, writer = _output(command, account)
    try:
        popen = subprocess.Popen(
            [INTERPRETER, "-I", "-S", "-c", PRELUDE, marshal.dumps(order).hex()],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            env={"PWD": command.directory, **command.environment},
            pass_fds=descriptors,
            start_new_session=True,
        )
    except OSError as error:
        os.close(reader)
        raise SpawnError(f"cannot start {command.program}: {_explain(error)}") from None
    finally:
        os.close(writer)
    try:
        return Child(popen, os.pidfd_open(popen.pid), reader)
    except OSError as error:
        os.close(reader)
        popen.kill()
        popen.wait()
        reason = refusals.explain("pidfd_open", "", error)
        raise SpawnError(f"cannot watch {command.program}: {reason}") from None


def _output(command: Command, account: accounts.Account | None) -> tuple[int, int]:
    """Return a pipe for stdout and stderr that the child may open again, as /dev/stdout.

    That asks for the permissions of the pipe itself, which belongs to who made it. Nobody else can
    get at them: only a process that has the pipe, or its own user, finds it in /proc. proc(5)
    """
    try:
        reader, writer = os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        reason = refusals.explain("pipe", "", error)
        raise SpawnError(f"cannot start {command.program}: {reason}") from None
    os.set_blocking(reader, False)
    if os.geteuid() == 0:
        os.fchmod(writer, 0o622)  # a program may change its user by itself, as nginx does
        if account is not None:
            with contextlib.suppress(OSError):  # without CAP_CHOWN it can be written to at least
                os.fchown(writer, account.user, account.group)
    return reader, writer


def account_of(command: Command) -> accounts.Account | None:
    """Return the account that `command` changes to; None if it stays what the supervisor is.

    Raises SpawnError.
    """
    try:
        account = accounts.find(command.user, command.group)
    except ValueError as error:
        raise SpawnError(f"cannot run {command.program}: {error}") from None
    if account is None or os.geteuid() == account.user != 0:
        return None
    if not accounts.is_permitted(account):
        raise SpawnError(
            f"cannot run {command.program} as {command.user or command.group}: only a supervisor"
            " that runs as root can"
        )
    return account


def _executable(command: Command) -> str:
    program = command.argv[0]
    search_path = command.environment.get("PATH", os.defpath)
    if "/" in program:
        path = os.path.join(command.directory, program)
        missing = not os.path.exists(path) and refusals.absent(path)
        if not missing and not os.access(path, os.X_OK):
            missing = refusals.closed(path, str(os.geteuid()))
    else:
        found = shutil.which(program, path=search_path)
        path = os.path.abspath(found) if found else program
        missing = "" if found else f"no program {program!r} on the PATH of its processes"
    if missing := missing or refusals.missing_interpreter(path, search_path):
        if command.hides_path:
            missing = "the program is missing, or it cannot be executed"
        raise SpawnError(f"cannot start {command.program}: {missing}")
    return path


def _limits(command: Command) -> dict[str, tuple[int, int, int]]:
    """Return the limits by their names: the number of each, its soft and its hard value."""
    found = {"nofile": (resource.RLIMIT_NOFILE, *descriptor_limit.INHERITED)}
    try:
        for name, value in command.limits.items():
            one = limits.parse(name, value)
            found[name] = (one.resource, one.soft, one.hard)
    except ValueError as error:
        raise SpawnError(f"cannot run {command.program}: {error}") from None
    return found


def _explain(error: OSError) -> str:
    """Return why this Python itself could not be started: it is what a child runs first."""
    if error.filename is None:  # the fork was refused
        return refusals.explain("fork", "", error)
    user = str(os.geteuid())
    reason = refusals.explain("execve", INTERPRETER, error, user)
    if isinstance(error, FileNotFoundError):
        return f"the Python that runs chansup is gone: {reason}, then restart chansup"
    return reason
