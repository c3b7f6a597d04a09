"""How many cores this process may use, and how many processes a pool gets from that."""

import math
import os
import re
from collections.abc import Callable
from pathlib import Path

from chansup.config.keys import quoted

MAX_PROCESSES = 4096  # of one pool; more is a typing error

_PER_CORE = re.compile(r"(?:(?P<count>[0-9]{1,3})-)?per-core\Z", re.ASCII)

Read = Callable[[str], str]  # the text of a file; raises OSError


def _read(path: str) -> str:
    return Path(path).read_text(errors="replace")


def _affinity() -> int:
    return len(os.sched_getaffinity(0))


def usable(read: Read = _read, affinity: Callable[[], int] = _affinity) -> int:
    """Return the number of cores that affinity mask and cgroup quotas leave; at least 1.

    A quota of 2.5 cores counts as 3, as in os.process_cpu_count with a container's limit rounded
    up. Sources: cgroups(7), and cpu.max in the kernel's cgroup-v2 documentation; cpu.cfs_quota_us
    for version 1. `read` and `affinity` are the system's; tests give their own.
    """
    quotas = [*_unified(read), *_legacy(read)]
    return max(1, min([affinity(), *(math.ceil(quota) for quota in quotas)]))


def processes(value: int | str, cores: int | None = None) -> int:
    """Return how many processes ``3``, ``"per-core"`` or ``"2-per-core"`` means.

    `cores` is what `usable` returns unless given. Raises ValueError for anything else.
    """
    if isinstance(value, int):
        if not 0 <= value <= MAX_PROCESSES:
            raise ValueError(f"{value} is not a number of processes: expected 0 to {MAX_PROCESSES}")
        return value
    match = _PER_CORE.match(value)
    if not match or match["count"] == "0":
        hint = "write the number without quotes" if value.isdigit() else _FORMS
        raise ValueError(f"{quoted(value)} is not a number of processes: {hint}")
    return int(match["count"] or 1) * (usable() if cores is None else cores)


_FORMS = 'write a whole number, "per-core" or "2-per-core"'


def _unified(read: Read) -> list[float]:
    """Return the quotas, in cores, of this process's cgroup (version 2) and those around it."""
    group = _group("", read)
    if group is None:
        return []
    quotas = []
    for path in _ancestors(group):
        try:
            quota, period = read(f"/sys/fs/cgroup{path}/cpu.max").split()
            if quota != "max":
                quotas.append(int(quota) / int(period))
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return quotas


def _legacy(read: Read) -> list[float]:
    """Return the same of version 1."""
    group = _group("cpu", read)
    if group is None:
        return []
    quotas = []
    for path in _ancestors(group):
        try:
            quota = int(read(f"/sys/fs/cgroup/cpu{path}/cpu.cfs_quota_us"))
            period = int(read(f"/sys/fs/cgroup/cpu{path}/cpu.cfs_period_us"))
            if quota > 0:
                quotas.append(quota / period)
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return quotas


def _group(controller: str, read: Read) -> str | None:
    """Return the path of this process's cgroup, of version 2 if `controller` is empty."""
    try:
        lines = read("/proc/self/cgroup").splitlines()
    except OSError:
        return None
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            return path
    return None


def _ancestors(path: str) -> list[str]:
    """Return ``["/a/b", "/a", ""]`` for ``/a/b``.

    In a container the path may be the host's, and not exist: the root is then the container's own.
    """
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return ["".join(f"/{part}" for part in parts[:length]) for length in range(len(parts), -1, -1)]
