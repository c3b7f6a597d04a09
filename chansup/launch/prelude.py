"""The first thing that runs in every child: it makes the process what the config says, then execs.

Run by path with ``python -I -S``, so it may import the standard library only. It exists because
some things can only be done by the new process itself, between fork and exec: to ask the kernel
for its death with the supervisor's (prctl(2), PR_SET_PDEATHSIG), to place the descriptors where
sd_listen_fds(3) wants them, and to know its own pid for ``LISTEN_PID``.
"""

import _signal  # type: ignore[import-not-found]  # signal imports enum, and this must start fast
import ctypes
import fcntl
import marshal
import os
import resource
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PR_SET_PDEATHSIG = 1
FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
EXIT_CANNOT_EXECUTE = 126


def main() -> None:
    """Apply the order in ``argv[1]``, marshalled, as hexadecimal digits; never returns."""
    order = marshal.loads(bytes.fromhex(sys.argv[1]))  # noqa: S302 - from the supervisor itself
    step = ("preparing", "")  # the call under way, and what for: whatever is refused names itself
    try:
        step = ("dup", "the descriptors")
        _place(order["descriptors"])
        for name, (number, *limits) in order["limits"].items():
            step = ("setrlimit", f"{name} = {limits[0]}:{limits[1]}")
            resource.setrlimit(number, limits)
        if order["umask"] is not None:
            os.umask(order["umask"])
        step = ("chdir", order["directory"])
        entered = _enter(order["directory"])
        if order["groups"] is not None:
            step = ("setgroups", ", ".join(map(str, order["groups"])))
            os.setgroups(order["groups"])
        if order["gid"] is not None:
            step = ("setgid", str(order["gid"]))
            os.setgid(order["gid"])
        if order["uid"] is not None:
            step = ("setuid", order["user"])
            os.setuid(order["uid"])
        if not entered:
            step = ("chdir", order["directory"])
            os.chdir(order["directory"])
        step = ("prctl", "PR_SET_PDEATHSIG")
        _die_with(order["parent"])
        environment = dict(os.environ)
        if order["listeners"]:
            environment["LISTEN_FDS"] = str(order["listeners"])
            environment["LISTEN_FDNAMES"] = ":".join(["chansup"] * order["listeners"])
            environment["LISTEN_PID"] = str(os.getpid())
        _restore_signals()
        step = ("execve", order["executable"])
        os.execve(order["executable"], order["argv"], environment)  # noqa: S606 - its purpose
    except (OSError, ValueError) as error:
        if step[0] == "setrlimit" and isinstance(error, ValueError):  # how Python says EPERM
            error = PermissionError(1, str(error))
        reason = str(error)
        if isinstance(error, OSError) and step[0] == "execve" and order["hides_path"]:
            reason = f"execve: {error.strerror}"
        elif isinstance(error, OSError):
            refusals: dict[str, Any] = {}
            exec(order["refusals"], refusals)  # noqa: S102 - the text of protocol/refusals.py
            reason = refusals["explain"](*step, error, order["user"])
        sys.stderr.write(f"{order['complaint']}{order['program']}: {reason}\n")
        sys.stderr.flush()
        os._exit(EXIT_CANNOT_EXECUTE)


def _enter(directory: str) -> bool:
    """Go into the working directory; False if this user may not, and perhaps the child's may."""
    try:
        os.chdir(directory)
    except PermissionError:  # NFS keeps root out
        return False
    return True


def _place(descriptors: list[int]) -> None:
    """Move the inherited descriptors to 3, 4, … in their order."""
    high = FIRST_DESCRIPTOR + len(descriptors)
    # Out of the way first: a source may lie where another one must go.
    lifted = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, high) for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    for place, descriptor in enumerate(lifted, FIRST_DESCRIPTOR):
        os.dup2(descriptor, place, inheritable=True)
        os.close(descriptor)


def _restore_signals() -> None:
    """Give every signal its default action and block none, whatever started the supervisor did.

    A shell without job control starts what ends with ``&`` with SIGINT and SIGQUIT ignored,
    nohup(1) with SIGHUP, and Python itself ignores SIGPIPE and SIGXFSZ. All outlive execve(2).
    """
    for number in _signal.valid_signals():
        if _signal.getsignal(number) != _signal.SIG_DFL:
            try:
                _signal.signal(number, _signal.SIG_DFL)
            except OSError:  # SIGKILL and SIGSTOP
                pass
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _die_with(parent: int) -> None:
    """End this process when the supervisor ends, however that happens."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, _signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before we asked
        os._exit(EXIT_CANNOT_EXECUTE)


if __name__ == "__main__":
    main()
