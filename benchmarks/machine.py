"""What a figure depends on: when, where and with which versions it was measured."""

import datetime
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

LIBRARIES = (
    "chansup", "uvicorn", "uvloop", "httptools", "websockets", "granian", "hypercorn", "daphne",
    "gunicorn", "supervisor", "django", "channels", "channels_redis", "redis", "hiredis", "msgpack",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """The circumstances of one run."""

    date: str
    processor: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    load_average: float  # over the last minute, before the run: 0 on a quiet machine
    command: str
    versions: dict[str, str]

    def lines(self) -> list[str]:
        """Return what a report says about them."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        hardware = f"{self.cores} cores of {self.processor}, {self.memory_gib:.1f} GiB"
        return [
            f"Date: {self.date}; load average before: {self.load_average:.2f}",
            f"Machine: {hardware}, Linux {self.kernel}",
            f"Python {self.python}; {versions}",
            f"Command: {self.command}",
        ]

    def as_dict(self) -> dict[str, object]:
        """Return the same for machines."""
        return asdict(self)


def describe(module: str) -> Machine:
    """Look at this machine; `module` is the script that runs."""
    return Machine(
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        kernel=platform.release(),
        python=platform.python_version(),
        load_average=os.getloadavg()[0],
        command=" ".join(["python -m", module, *sys.argv[1:]]),
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if shutil.which("wrk"):
        # It prints its version and fails.
        shown = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout
        versions["wrk"] = shown.split()[1].removeprefix("debian/") if shown.split()[1:] else "?"
    if shutil.which("redis-server"):
        command = ["redis-server", "--version"]
        shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        found = [word for word in shown.split() if word.startswith("v=")]
        versions["redis-server"] = found[0].removeprefix("v=") if found else "?"
    return versions


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
