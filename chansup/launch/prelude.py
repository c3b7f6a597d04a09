"""The first thing that runs in every child: it makes the process what the config says, then execs.

Run by path with ``python -I -S``, so it may import the standard library only. It exists because
three things can only be done by the new process itself, between fork and exec: to ask the kernel
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

PR_SET_PDEATHSIG = 1
FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
EXIT_CANNOT_EXECUTE = 126


def main() -> None:
    """Apply the order in ``argv[1]``, marshalled, as hexadecimal digits; never returns."""
    order = marshal.loads(bytes.fromhex(sys.argv[1]))  # noqa: S302 - from the supervisor itself
    try:
        _place(order["descriptors"])
        for number, limits in order["limits"].items():
            resource.setrlimit(number, limits)
        if order["umask"] is not None:
            os.umask(order["umask"])
        if order["groups"] is not None:
            os.setgroups(order["groups"])
        if order["gid"] is not None:
            os.setgid(order["gid"])
        if order["uid"] is not None:
            os.setuid(order["uid"])
        _die_with(order["parent"])
        environment = dict(os.environ)
        if order["listeners"]:
            environment["LISTEN_FDS"] = str(order["listeners"])
            environment["LISTEN_FDNAMES"] = ":".join(["chansup"] * order["listeners"])
            environment["LISTEN_PID"] = str(os.getpid())
        _restore_signals()
        os.execve(order["executable"], order["argv"], environment)  # noqa: S606 - its purpose
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        if isinstance(error, PermissionError):
            reason = _closed(order["executable"], order["user"]) or reason
        sys.stderr.write(f"chansup: cannot run {order['program']}: {reason}\n")
        sys.stderr.flush()
        os._exit(EXIT_CANNOT_EXECUTE)


def _closed(program: str, user: str) -> str:
    """Say what keeps this process from a program that it may not execute; "" if nothing does."""
    remedy = "let that user pass (chmod o+x), or install what is to run elsewhere"
    for path in dict.fromkeys((program, os.path.realpath(program))):
        names = path.split("/")
        for depth in range(2, len(names)):
            directory = "/".join(names[:depth])
            if not os.access(directory, os.X_OK, effective_ids=True):
                return f"user {user} may not go into {directory}, on the way to {path}: {remedy}"
        if not os.access(path, os.X_OK, effective_ids=True):
            return f"user {user} may not execute {path}: let that user, or set another one"
    return ""


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
