"""The user and group that a process runs as."""

import grp
import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec

from chansup.config.keys import quoted

# What a login session leaves in the environment that is of its user, and of nobody else.
_OF_A_SESSION = frozenset(
    {
        "HOME",
        "USER",
        "LOGNAME",
        "MAIL",
        "DBUS_SESSION_BUS_ADDRESS",
        "XDG_RUNTIME_DIR",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_STATE_HOME",
    }
)


class Account(msgspec.Struct, frozen=True):
    """What a child becomes before it runs its program."""

    user: int
    group: int
    groups: tuple[int, ...]  # supplementary
    home: str | None  # for $HOME; None where the user is not listed
    name: str | None


def find(user: str | None, group: str | None) -> Account | None:
    """Return the account for a user and a group, each a name or a number; None if neither is given.

    A missing group is the user's own; a missing user is who runs this. Raises ValueError for
    those that do not exist.
    """
    if user is None and group is None:
        return None
    record = _record(user)
    number = record.pw_uid if record else int(user or os.geteuid())
    main = _group(group) if group is not None else (record.pw_gid if record else None)
    if main is None:
        raise ValueError(f"user {number} is not listed on this machine: give its group too")
    groups = tuple(os.getgrouplist(record.pw_name, main)) if record and user else (main,)
    return Account(
        number, main, groups, record.pw_dir if record else None, record.pw_name if record else None
    )


def is_permitted(account: Account) -> bool:
    """Say whether this process may start others as that account."""
    if os.geteuid() == 0:
        return True
    return account.user == os.geteuid() and account.group == os.getegid()


def environment(
    inherited: Mapping[str, str], user: str | None, group: str | None
) -> dict[str, str]:
    """Return what a process inherits that becomes `user`: HOME, USER and LOGNAME are that user's.

    A user who is not listed has no name, and "/" for a home, as in a container.
    """
    try:
        account = find(user, group)
    except ValueError:  # the rules, or its own start, say so
        account = None
    if user is None or account is None or os.geteuid() == account.user != 0:
        return dict(inherited)
    own = {"HOME": account.home or "/"}
    if account.name is not None:
        own |= {"USER": account.name, "LOGNAME": account.name}
    kept = {name: value for name, value in inherited.items() if name not in _OF_A_SESSION}
    return {**kept, **own}


def of_socket(
    user: str | None, group: str | None, owner: str | None, owner_group: str | None
) -> tuple[int, int]:
    """Return user and group id of a Unix socket's file; -1: as it is made.

    `owner` and `owner_group` are what it is given; else it follows the `user` and `group` of the
    processes. Raises ValueError for those that do not exist, or that this process cannot give to.
    """
    name = owner if owner is not None else user
    number = found = -1
    if name is not None:
        record = _record(name)
        number = record.pw_uid if record else int(name)
        found = record.pw_gid if record else -1
    chosen = owner_group if owner_group is not None else group
    if chosen is not None:
        found = _group(chosen)
    if os.geteuid() != 0:
        if number not in (-1, os.geteuid()):
            raise ValueError("only root can give a socket to another user: remove it")
        if owner_group is not None and found not in (*os.getgroups(), os.getegid()):
            raise ValueError(
                f"{quoted(owner_group)} is not a group of the user that runs chansup, who can give"
                " the socket to their own groups only: add that user to it (usermod -aG)"
            )
    return number, found


def obstacle(path: Path, user: int) -> Path | None:
    """Return the directory above that seems closed to `user`; groups and ACLs may still let it."""
    for directory in path.parents:
        status = directory.stat()
        passable = stat.S_IXUSR if status.st_uid == user else stat.S_IXGRP | stat.S_IXOTH
        if not status.st_mode & passable:
            return directory
    return None


def _record(user: str | None) -> pwd.struct_passwd | None:
    try:
        if user is None:
            return pwd.getpwuid(os.geteuid())
        return pwd.getpwuid(int(user)) if _is_number(user) else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        if user is None or _is_number(user):
            return None
        raise ValueError(f"unknown user {quoted(user)}: name one of this machine") from None


def _group(group: str) -> int:
    if _is_number(group):
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ValueError(f"unknown group {quoted(group)}: name one of this machine") from None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 2**32 - 1
