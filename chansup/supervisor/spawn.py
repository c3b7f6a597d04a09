"""Starting a child: its command, its credentials, and the descriptors meant for it."""

import marshal
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chansup.config import accounts, limits
from chansup.supervisor.errors import SpawnError

_inherited_descriptor_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
# Its text, not its path: an upgrade of the package must not change it under a running supervisor.
PRELUDE = (Path(__file__).parent.parent / "launch" / "prelude.py").read_text()


@dataclass(frozen=True)
class Command:
    """What to run, and as whom."""

    argv: tuple[str, ...] = field(repr=False)  # may hold secrets
    program: str  # what messages call it: as the config has it, before anything was filled in
    environment: Mapping[str, str] = field(repr=False)  # may hold secrets
    directory: str
    user: str | None = None
    group: str | None = None
    umask: str | None = None
    limits: Mapping[str, int | str] = field(default_factory=dict)


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
        "executable": _executable(command),
        "argv": list(command.argv),
        "program": command.program,
        "umask": None if command.umask is None else int(command.umask, 8),
        "limits": {
            resource.RLIMIT_NOFILE: _inherited_descriptor_limit,
            **{one.resource: (one.soft, one.hard) for one in _limits(command)},
        },
        "user": command.user or (account.name if account else None) or str(os.geteuid()),
        "uid": account.user if account else None,
        "gid": account.group if account else None,
        "groups": account.groups if account else None,
    }
    try:
        reader, writer = os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise SpawnError(f"cannot start {command.program}: {error.strerror}") from None
    os.set_blocking(reader, False)
    try:
        popen = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", PRELUDE, marshal.dumps(order).hex()],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            cwd=command.directory,
            env={"PWD": command.directory, **command.environment, **_home(account)},
            pass_fds=descriptors,
            start_new_session=True,
        )
    except OSError as error:
        os.close(reader)
        raise SpawnError(f"cannot start {command.program}: {_explain(error, command)}") from None
    finally:
        os.close(writer)
    try:
        return Child(popen, os.pidfd_open(popen.pid), reader)
    except OSError as error:
        os.close(reader)
        popen.kill()
        popen.wait()
        raise SpawnError(f"cannot watch {command.program}: {error.strerror}") from None


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


def _home(account: accounts.Account | None) -> dict[str, str]:
    if account is None or account.name is None or account.home is None:
        return {}
    return {"HOME": account.home, "USER": account.name, "LOGNAME": account.name}


def raise_descriptor_limit() -> None:
    """Let the supervisor have every descriptor it may: each child costs a few.

    Children get the limit that the supervisor was started with: a program that uses select(2)
    cannot live with more than 1024.
    """
    _, most = _inherited_descriptor_limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def most_descriptors() -> int:
    """Return the hard limit of open descriptors: what a server that holds connections takes."""
    return _inherited_descriptor_limit[1]


def _executable(command: Command) -> str:
    program = command.argv[0]
    if "/" in program:
        path = os.path.join(command.directory, program)
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
        problem = "is not executable" if os.path.exists(path) else "does not exist"
        raise SpawnError(f"{command.program} {problem} (seen from {command.directory})")
    search = command.environment.get("PATH", os.defpath)
    found = shutil.which(program, path=search)
    if found is None:
        raise SpawnError(f"no program {command.program!r} on the PATH of its processes")
    return os.path.abspath(found)


def _limits(command: Command) -> list[limits.Limit]:
    try:
        return [limits.parse(name, value) for name, value in command.limits.items()]
    except ValueError as error:
        raise SpawnError(f"cannot run {command.program}: {error}") from None


def _explain(error: OSError, command: Command) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"its directory {command.directory} does not exist"
    return error.strerror or str(error)
