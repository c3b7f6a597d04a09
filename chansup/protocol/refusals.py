"""Why the kernel refused a call that starts a process, in words that name the remedy.

Standard library only: the first thing that runs in a child executes the text of this module when a
call fails there. `explain` must run as the user that was refused, so that it sees what that sees.
Sources: execve(2), elf(5), env(1), chdir(2), setuid(2), setgroups(2), setrlimit(2), fork(2),
pidfd_open(2).
"""

import errno
import os
import resource
import stat

_ELF_HEADER = 52  # bytes that each has at least

_PROCESSES = (
    "raise it (`ulimit -u`, LimitNPROC= or TasksMax= in a systemd unit, the pids limit of a"
    " container)"
)
_SHORTAGES = {
    errno.EMFILE: "too many open files: raise the limit (`ulimit -n`, LimitNOFILE= in a unit)",
    errno.ENFILE: "too many open files on the whole machine: raise fs.file-max",
    errno.ENOMEM: "not enough memory: free some, or lift the memory limit",
    errno.ENOSPC: "no space left: free some on the disk, or in /dev/shm",
    errno.EDQUOT: "the disk quota is used up: free some space",
}
_CAPABILITIES = {"setuid": "CAP_SETUID", "setgid": "CAP_SETGID", "setgroups": "CAP_SETGID"}


def explain(call: str, wanted: str, error: OSError, user: str = "") -> str:
    """Return what `call` ("execve", "chdir", …) was to do, why it failed, and what to do.

    `wanted` is what it was called with: a path, a user, the name of a limit. `user` is who calls.
    """
    reason = error.strerror or str(error)
    if error.errno in _SHORTAGES:
        return f"{call} failed: {_SHORTAGES[error.errno]}"
    if call == "execve":
        return _execution(wanted, error, user)
    if call == "chdir":
        return f"cannot go into its directory {wanted}: {_directory(wanted, error, user)}"
    if call in _CAPABILITIES:
        return _identity(call, wanted, error)
    if call == "setrlimit":
        hint = reason
        if error.errno == errno.EPERM:
            hint = "it is above the hard limit of chansup, and raising that needs CAP_SYS_RESOURCE"
        return f"cannot set the limit {wanted}: {hint}"
    if call == "fork":
        if error.errno == errno.EAGAIN:
            return f"no more processes are allowed, {_processes()}: {_PROCESSES}"
        return f"cannot create a process: {reason}"
    return f"{call} of {wanted} failed: {reason}" if wanted else f"{call} failed: {reason}"


def shortage(error: OSError) -> str:
    """Return what a call lacked, and the remedy where there is a known one."""
    return _SHORTAGES.get(error.errno or 0, error.strerror or str(error))


def closed(path: str, user: str) -> str:
    """Return what keeps this process from executing the file `path`; "" if nothing does."""
    remedy = "let that user pass (chmod o+x), or install the program elsewhere"
    for way in dict.fromkeys((path, os.path.realpath(path))):
        directory = closed_directory(os.path.dirname(way))
        if directory:
            return f"user {user} may not go into {directory}, on the way to {way}: {remedy}"
    if not os.path.exists(path) or os.access(path, os.X_OK, effective_ids=True):
        return ""
    if _is_noexec(path):
        return f"{path} lies on a file system that is mounted noexec: install it elsewhere"
    if not os.stat(path).st_mode & 0o111:
        return f"{path} is not executable: chmod +x it, or name what runs it"
    return f"user {user} may not execute {path}: let that user, or set another one"


def closed_directory(path: str) -> str:
    """Return the first directory on the way into `path` that this process may not enter, or ""."""
    names = path.rstrip("/").split("/")
    for depth in range(2, len(names) + 1):
        directory = "/".join(names[:depth])
        if os.path.isdir(directory) and not os.access(directory, os.X_OK, effective_ids=True):
            return directory
    return ""


def interpreter(path: str) -> str:
    """Return the interpreter in the first line of a script, or the loader of a program; or ""."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:
        return ""
    if head.startswith(b"#!"):
        line = head[2:].split(b"\n", 1)[0].strip(b" \t")
        return os.fsdecode(line.split(b" ")[0].split(b"\t")[0])
    if head.startswith(b"\x7fELF") and (start := head.find(b"/lib")) >= 0:
        return os.fsdecode(head[start:].split(b"\0", 1)[0])
    return ""


def missing_interpreter(path: str, search_path: str = "") -> str:
    """Return what is wrong with the interpreter of the file `path`, if it is missing; or "".

    `search_path` is the PATH on which ``#!/usr/bin/env NAME`` looks for NAME; "": it is not known.
    """
    needed = interpreter(path)
    if not needed:
        return _no_program(path) if _is_no_program(path) else ""
    if os.path.exists(needed):
        name = _sought_by_env(path)
        if not name or not search_path or _is_on(search_path, name):
            return ""
        return (
            f"its interpreter {name} is not on PATH ({search_path}; the first line of {path} names"
            " it): install it, or name another"
        )
    if needed.endswith("\r"):
        return f"the first line of {path} ends in a carriage return: save it with Unix line ends"
    return (
        f"its interpreter {needed} does not exist (the first line of {path} names it): install"
        " it again, or name another"
        if _is_script(path)
        else f"its loader {needed} does not exist: {path} was built for another system"
    )


def absent(path: str) -> str:
    """Return what to say of a file to execute that is not there; a closed directory hides it."""
    if closed := closed_directory(os.path.dirname(path)):
        return f"{path} cannot be seen: its directory {closed} is closed to this user"
    if os.path.islink(path):
        target = os.path.realpath(path)
        return f"{path} leads to {target}, which does not exist: install it again"
    parent = os.path.dirname(path)
    while not os.path.exists(parent) and parent != os.path.dirname(parent):
        parent = os.path.dirname(parent)
    missing = path[len(parent) :].strip("/").split("/")[0]
    where = "" if parent == os.path.dirname(path) else f" (there is no {missing} in {parent})"
    return f"{path} does not exist{where}: install it again, or name another program"


def _execution(path: str, error: OSError, user: str) -> str:
    number = error.errno
    if number in (errno.ENOENT, errno.ENOTDIR):
        if os.path.exists(path):
            return missing_interpreter(path) or f"something that {path} needs does not exist"
        return absent(path)
    if number == errno.EACCES:
        if os.path.isdir(path):
            return f"{path} is a directory"
        needed = interpreter(path)
        return (
            closed(path, user)
            or (closed(needed, user) if needed else "")
            or f"user {user} may not execute {path} ({error.strerror}): look at its mode, its"
            " mount (noexec), and at AppArmor or SELinux"
        )
    if number == errno.ENOEXEC:
        return _no_program(path)
    if number == errno.E2BIG:
        return (
            "its arguments and environment are larger than the kernel takes (execve: Argument list"
            " too long; one string has at most 128 KiB): hand over a file instead"
        )
    if number == errno.EAGAIN:
        return f"user {user} has too many processes, {_processes()}: {_PROCESSES}"
    if number == errno.ETXTBSY:
        return f"{path} is open for writing: somebody is installing it"
    if number == errno.EPERM:
        return (
            f"the system forbids user {user} to execute {path} (Operation not permitted): look at"
            " NoNewPrivileges=, SystemCallFilter= and AppArmor or SELinux"
        )
    return f"{path} cannot be executed: {error.strerror or error}"


def _directory(path: str, error: OSError, user: str) -> str:
    if error.errno == errno.ENOENT:
        if os.path.islink(path):
            return f"the symbolic link leads to {os.path.realpath(path)}, which does not exist"
        return "it does not exist"
    if error.errno == errno.ENOTDIR:
        return "it is not a directory"
    if error.errno == errno.EACCES:
        where = closed_directory(path) or closed_directory(os.path.realpath(path)) or path
        return f"user {user} may not go into {where}: let that user pass (chmod o+x)"
    return error.strerror or str(error)


def _identity(call: str, wanted: str, error: OSError) -> str:
    what = {"setuid": "become user", "setgid": "become group", "setgroups": "take the groups"}
    begin = f"cannot {what[call]} {wanted} ({call}: {error.strerror})"
    if error.errno == errno.EPERM:
        return (
            f"{begin}: chansup lacks {_CAPABILITIES[call]}: run it as root, with that capability in"
            " CapabilityBoundingSet= of its unit"
        )
    if error.errno == errno.EINVAL:
        return f"{begin}: this container or user namespace has no such number: choose another"
    if error.errno == errno.EAGAIN:
        return f"{begin}: that user has too many processes, {_processes()}: {_PROCESSES}"
    return begin


def _processes() -> str:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft == resource.RLIM_INFINITY:
        return "more than the control group or the kernel lets it"
    return f"RLIMIT_NPROC is {soft}"


def _is_noexec(path: str) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_NOEXEC)


def _no_program(path: str) -> str:
    return (
        f"{path} is not a program of this machine: a script needs #! and its interpreter in the"
        " first line, a binary the right architecture"
    )


def _is_no_program(path: str) -> bool:
    """Whether the kernel can execute the file under no circumstances that are seen from here."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            head = file.read(_ELF_HEADER)
    except OSError:
        return False
    if head.startswith(b"#!") or (head.startswith(b"\x7fELF") and len(head) == _ELF_HEADER):
        return False
    try:
        formats = set(os.listdir("/proc/sys/fs/binfmt_misc"))
    except OSError:
        return True
    return formats <= {"register", "status"}  # no format of others is registered


def _is_on(search_path: str, name: str) -> bool:
    """Whether a program stands on PATH. No module is imported here: the user may not read it."""
    places = (os.path.join(place, name) for place in search_path.split(os.pathsep))
    return any(os.path.isfile(place) and os.access(place, os.X_OK) for place in places)


def _sought_by_env(path: str) -> str:
    """Return NAME where the first line of a script is ``#!/usr/bin/env NAME``; or ""."""
    with open(path, "rb") as file:
        head = file.read(4096)
    words = os.fsdecode(head[2:].split(b"\n", 1)[0]).split() if head.startswith(b"#!") else []
    if len(words) < 2 or os.path.basename(words[0]) != "env":
        return ""
    name = words[2] if words[1] == "-S" and len(words) > 2 else words[1]
    return "" if name.startswith("-") or "=" in name or "/" in name else name


def _is_script(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"#!"
