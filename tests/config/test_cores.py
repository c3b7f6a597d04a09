import os

import pytest

from chansup.config.cores import processes, usable


def system(files: dict[str, str]):
    def read(path: str) -> str:
        if path not in files:
            raise FileNotFoundError(path)
        return files[path]

    return read


UNIFIED = {"/proc/self/cgroup": "0::/a/b\n"}
LEGACY = {"/proc/self/cgroup": "12:memory:/m\n3:cpu,cpuacct:/a/b\n1:name=systemd:/\n"}


def quota(path: str, quota: str, period: str = "100000") -> dict[str, str]:
    return {
        f"/sys/fs/cgroup/cpu{path}/cpu.cfs_quota_us": quota,
        f"/sys/fs/cgroup/cpu{path}/cpu.cfs_period_us": period,
    }


@pytest.mark.parametrize(
    ("files", "affinity", "expected"),
    [
        ({}, 4, 4),
        (UNIFIED, 4, 4),
        ({**UNIFIED, "/sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 4, 4),
        ({**UNIFIED, "/sys/fs/cgroup/a/b/cpu.max": "200000 100000\n"}, 4, 2),
        ({**UNIFIED, "/sys/fs/cgroup/a/b/cpu.max": "250000 100000\n"}, 4, 3),
        ({**UNIFIED, "/sys/fs/cgroup/a/b/cpu.max": "50000 100000\n"}, 4, 1),
        ({**UNIFIED, "/sys/fs/cgroup/a/b/cpu.max": "9900000 100000\n"}, 4, 4),
        ({**UNIFIED, "/sys/fs/cgroup/a/cpu.max": "100000 100000\n"}, 4, 1),
        ({**UNIFIED, "/sys/fs/cgroup/cpu.max": "200000 100000\n"}, 8, 2),
        ({**UNIFIED, "/sys/fs/cgroup/a/b/cpu.max": "junk\n"}, 4, 4),
        ({**LEGACY, **quota("/a/b", "-1")}, 4, 4),
        ({**LEGACY, **quota("/a/b", "150000")}, 4, 2),
        ({**LEGACY, **quota("/a", "100000")}, 4, 1),
        ({**LEGACY, **quota("", "300000"), **quota("/a/b", "100", "0")}, 4, 3),
        ({"/proc/self/cgroup": "0::/../other\n", "/sys/fs/cgroup/cpu.max": "100000 100000"}, 4, 1),
    ],
)
def test_usable_cores(files, affinity, expected):
    assert usable(system(files), lambda: affinity) == expected


def test_this_machine():
    assert 1 <= usable() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("value", "count"), [(0, 0), (3, 3), ("per-core", 4), ("1-per-core", 4), ("2-per-core", 8)]
)
def test_processes(value, count):
    assert processes(value, cores=4) == count


@pytest.mark.parametrize("value", [-1, 5000, "", "3", "0-per-core", "per-cores", "-per-core", "x"])
def test_what_is_no_number_of_processes(value):
    with pytest.raises(ValueError, match="is not a number of processes"):
        processes(value, cores=4)
