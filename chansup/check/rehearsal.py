"""Whether a process can be started as a table says, tried in a process of its own.

It becomes who the table names, and then looks at what it would execute: so groups, access control
lists, mounts and missing capabilities count as they will.
"""

import os
import resource
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

from chansup.config import accounts, limits
from chansup.config.keys import quoted
from chansup.protocol import refusals

_MOST = 60_000  # bytes of an answer: what a pipe holds without a reader


def obstacles(
    words: Sequence[str],
    directory: str,
    search_path: str,
    user: str | None,
    group: str | None,
    wanted: Mapping[str, int | str],
) -> list[str]:
    """Return what keeps `words` from running, run in `directory` as `user` with limits `wanted`."""
    account = accounts.find(user, group)
    if (account is None or account.user == os.geteuid()) and not wanted:
        return list(_unusable(words, directory, search_path))
    name = user or group or ""
    return _in_a_process(lambda: _rehearse(words, directory, search_path, account, name, wanted))


def file_obstacles(path: str, user: str | None, group: str | None) -> list[str]:
    """Return what keeps a process of `user` from making the file at `path`, or adding to it."""
    account = accounts.find(user, group)
    if account is None or account.user == os.geteuid():
        return list(_unwritable(path))
    name = user or group or ""

    def look() -> list[str]:
        refused = _become(account, name)
        return [refused] if refused else list(_unwritable(path))

    return _in_a_process(look)


def _in_a_process(look: Callable[[], list[str]]) -> list[str]:
    """Return what `look` finds in a child, where it may change what it likes."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: this child only looks
        pid = os.fork()
    if pid == 0:
        try:
            found = look()
            os.write(writer, "\0".join(found).encode(errors="surrogateescape")[:_MOST])
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader, "rb") as answer:
        text = answer.read().decode(errors="replace")
    return text.split("\0") if text else []


def _rehearse(
    words: Sequence[str],
    directory: str,
    search_path: str,
    account: accounts.Account | None,
    name: str,
    wanted: Mapping[str, int | str],
) -> list[str]:
    call, what = "", ""
    try:
        for limit, value in wanted.items():
            call, what = "setrlimit", limit
            one = limits.parse(limit, value)
            if one.resource != resource.RLIMIT_NOFILE or one.soft > 64:  # it needs some itself
                resource.setrlimit(one.resource, (one.soft, one.hard))
    except OSError as error:
        return [refusals.explain(call, what, error, name)]
    if account is not None and (refused := _become(account, name)):
        return [refused]
    found = list(_unusable(words, directory, search_path))
    if not found and account is not None:
        program = words[0] if "/" in words[0] else shutil.which(words[0], path=search_path) or ""
        path = os.path.join(directory, program)
        closed = refusals.closed(path, name)
        return [closed] if closed else []
    return found


def _become(account: accounts.Account, name: str) -> str:
    """Become `account`, if we may; return why that is refused, or nothing."""
    if os.geteuid() != 0:
        return ""
    call, what = "setgroups", ", ".join(map(str, account.groups))
    try:
        os.setgroups(account.groups)
        call, what = "setgid", str(account.group)
        os.setgid(account.group)
        call, what = "setuid", name
        os.setuid(account.user)
    except OSError as error:
        return refusals.explain(call, what, error, name)
    return ""


def _unwritable(path: str) -> Iterator[str]:
    directory = os.path.dirname(path)
    who = f"user {os.geteuid()}"
    if closed := refusals.closed_directory(directory):
        yield f"{who} may not go into {closed}, on the way to {path}: let that user pass"
    elif not os.path.lexists(path):
        if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
            place = quoted(directory, limit=300)
            yield f"{who} may not make files in {place}: give it to that user, or name another file"
    elif os.path.exists(path) and not os.path.isfile(path):
        yield f"{quoted(path, limit=300)} is not a file: name one"
    elif not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        name = quoted(path, limit=300)
        yield f"{who} may not read and write {name}: give it to that user, or name another file"


def _unusable(words: Sequence[str], directory: str, search_path: str) -> Iterator[str]:
    program = words[0]
    if "/" in program:
        path = os.path.join(directory, program)
    else:
        found = shutil.which(program, path=search_path)
        path = os.path.abspath(found) if found else ""
        if not path:
            yield f"no program {quoted(program)} on PATH ({search_path})"
    if path and not os.path.exists(path):
        if closed := refusals.closed_directory(os.path.dirname(path)):
            yield f"user {os.geteuid()} may not go into {closed}, on the way to {path}"
        else:
            yield f"{quoted(path, limit=300)} does not exist"
    elif path and (os.path.isdir(path) or not os.access(path, os.X_OK, effective_ids=True)):
        reason = refusals.closed(path, str(os.geteuid()))
        if os.path.isdir(path) or not os.stat(path).st_mode & 0o111 or not reason:
            name = quoted(path, limit=300)
            reason = f"{name} is not executable: chmod +x it, or name what runs it"
        yield reason
    elif path and (reason := refusals.missing_interpreter(path, search_path)):
        yield reason
    script = words[1] if len(words) > 1 else ""
    if os.path.basename(program).startswith("python") and script.endswith(".py"):
        path = os.path.join(directory, script)
        if not os.path.isfile(path):
            yield f"{quoted(path, limit=300)} does not exist"
