"""The path of a Unix socket: free, short enough, in a directory that is there."""

import errno
import os
import stat
from pathlib import Path

from chansup.config.address import Unix
from chansup.config.runtime_places import in_the_way
from chansup.supervisor.errors import AddressError
from chansup.unix import MAX_PATH, Ownership, who_listens

_OTHER_PATH = "Remove it, or choose another path"


def require_vacant(path: Path) -> None:
    """Raise AddressError unless `path` is free or a socket that nobody listens on."""
    name = f"cannot listen on unix:{path}"
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise AddressError(f"{name}: {explain_path(error, path)}") from None
    if not stat.S_ISSOCK(kind):
        raise AddressError(
            f"{name}: path exists and is not a socket: remove it, or choose another path"
        )
    try:
        listening = who_listens(path) is not None
    except OSError as error:
        raise AddressError(
            f"{name}: a socket stands there that cannot be tried ({error.strerror}). {_OTHER_PATH}"
        ) from None
    if listening:
        raise AddressError(
            f"{name}: another process already listens there. Stop it, or choose another path"
        )


def require_usable(path: Path) -> None:
    """Raise AddressError if no socket can be made at `path`, whose directory may be missing."""
    parent = path.parent
    while not os.path.lexists(parent) and parent != parent.parent:
        parent = parent.parent  # those that are missing are made
    if not parent.is_dir():
        raise AddressError(
            f"cannot listen on unix:{path}: {parent} is not a directory. Remove it, or choose"
            " another path"
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise AddressError(
            f"cannot listen on unix:{path}: the directory {parent} is not writable. Choose another"
            " path, or give it to the supervisor's user"
        )
    require_vacant(path)


def require_short(private: Path, path: Path) -> None:
    """Raise AddressError if one of two paths is too long for a Unix socket."""
    length = max(len(os.fsencode(private)), len(os.fsencode(path)))
    if length > MAX_PATH:
        raise AddressError(
            f"cannot listen on unix:{path}: the path is too long, a Unix socket's has at most "
            f"{MAX_PATH} bytes. Choose a shorter one"
        )


def make_directory(directory: Path, ownership: Ownership, address: Unix) -> None:
    """Make the directory of a socket if it is missing. Raises AddressError."""
    try:
        ownership.make_directory(directory)
    except OSError as error:
        if (other := in_the_way(directory / "socket")) is not None:
            raise AddressError(
                f"cannot listen on {address}: {other} is not a directory. Remove it"
            ) from None
        reason = error.strerror or str(error)
        raise AddressError(
            f"cannot listen on {address}: the directory {directory} does not exist, and cannot be"
            f" made ({reason}). Create it"
        ) from None


def not_given(address: Unix, error: OSError) -> str:
    """Return what to say when a socket file does not get its mode and owner."""
    reason = error.strerror or str(error)
    remedy = (
        ": only root with CAP_CHOWN may. Unset [interface] unix_owner and unix_group, or add the"
        " capability to CapabilityBoundingSet= of the unit"
        if error.errno == errno.EPERM
        else ""
    )
    return f"cannot set mode and owner of {address} ({reason}){remedy}"


def explain_path(error: OSError, path: Path) -> str:
    """Return why nothing can be made at `path`, and what to do."""
    if (other := in_the_way(path)) is not None:
        return f"{other} is not a directory. Remove it"
    if error.errno == errno.ENOENT:
        return f"the directory {path.parent} does not exist. Create it"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"the directory {path.parent} is not writable ({error.strerror})"
    return error.strerror or str(error)
