"""Starting a child: its command, its credentials, and the descriptors meant for it."""

import grp
import json
import os
import pwd
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chansup.supervisor.errors import SpawnError

_inherited_descriptor_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
PRELUDE = Path(__file__).parent.parent / "launch" / "prelude.py"


@dataclass(frozen=True)
class Command:
    """What to run, and as whom."""

    argv: tuple[str, ...]
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
    identity = _identity(command)
    descriptors = [*listeners, *others]
    order = {
        "parent": os.getpid(),
        "descriptors": descriptors,
        "listeners": len(listeners),
        "executable": _executable(command),
        "argv": list(command.argv),
        "umask": None if command.umask is None else int(command.umask, 8),
        "limits": {
            "RLIMIT_NOFILE": _inherited_descriptor_limit,
            **{f"RLIMIT_{name.upper()}": _limit(value) for name, value in command.limits.items()},
        },
        **identity,
    }
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    try:
        popen = subprocess.Popen(
            [sys.executable, "-I", "-S", str(PRELUDE), json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            cwd=command.directory,
            env=dict(command.environment),
            pass_fds=descriptors,
            start_new_session=True,
        )
    except OSError as error:
        os.close(reader)
        raise SpawnError(f"cannot start {command.argv[0]}: {_explain(error, command)}") from None
    finally:
        os.close(writer)
    try:
        return Child(popen, os.pidfd_open(popen.pid), reader)
    except OSError as error:
        os.close(reader)
        popen.kill()
        popen.wait()
        raise SpawnError(f"cannot watch {command.argv[0]}: {error.strerror}") from None


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


def user_id(command: Command) -> int | None:
    """Return the uid that `command` runs as; None for the supervisor's own. Raises SpawnError."""
    uid = _identity(command)["uid"]
    return uid if isinstance(uid, int) else None


def _executable(command: Command) -> str:
    program = command.argv[0]
    if "/" in program:
        path = os.path.join(command.directory, program)
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
        problem = "is not executable" if os.path.exists(path) else "does not exist"
        raise SpawnError(f"{path} {problem}")
    search = command.environment.get("PATH", os.defpath)
    found = shutil.which(program, path=search)
    if found is None:
        raise SpawnError(f"no program {program!r} on PATH ({search})")
    return os.path.abspath(found)


def _identity(command: Command) -> dict[str, object]:
    """Return the numeric ids to take on; None where the supervisor's own stay."""
    uid = gid = groups = None
    try:
        if command.user is not None:
            entry = (
                pwd.getpwuid(int(command.user))
                if command.user.isdigit()
                else pwd.getpwnam(command.user)
            )
            uid, gid = entry.pw_uid, entry.pw_gid
            groups = os.getgrouplist(entry.pw_name, gid)
        if command.group is not None:
            gid = (
                int(command.group)
                if command.group.isdigit()
                else grp.getgrnam(command.group).gr_gid
            )
            groups = [gid] if groups is None else sorted({*groups, gid})
    except KeyError as error:
        raise SpawnError(
            f"cannot run as {command.user or command.group}: {error.args[0]}"
        ) from None
    if os.geteuid() != 0:
        if uid not in (None, os.geteuid()):
            raise SpawnError(
                f"cannot run as {command.user}: only a supervisor that runs as root can"
            )
        return {"uid": None, "gid": None, "groups": None}
    return {"uid": uid, "gid": gid, "groups": groups}


def _limit(value: int | str) -> tuple[int, int]:
    number = resource.RLIM_INFINITY if value == "unlimited" else int(value)
    return number, number


def _explain(error: OSError, command: Command) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"its directory {command.directory} does not exist"
    return error.strerror or str(error)
