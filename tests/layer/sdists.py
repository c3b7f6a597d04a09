"""Test files that other projects publish in their source distributions, unchanged."""

import asyncio
import fcntl
import importlib.metadata
import subprocess
import sys
import tarfile
import types
from pathlib import Path

import pytest


def source(cache: Path, package: str, path: str) -> str:
    """Return a file of the source distribution of the installed version of a package."""
    version = importlib.metadata.version(package)
    archive = cache / f"{package}-{version}.tar.gz"
    with (cache / f"{package}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            _download(cache, f"{package}=={version}")
    if not archive.exists():
        pytest.skip(f"{package}'s source distribution cannot be downloaded here")
    with tarfile.open(archive) as opened:
        member = opened.extractfile(f"{package}-{version}/{path}")
        assert member is not None
        return member.read().decode()


def _download(cache: Path, requirement: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*command, "-d", str(cache), requirement], check=False)


def module(name: str, text: str) -> types.ModuleType:
    """Return a test file as a module. Its `async_timeout` is asyncio's."""
    stand_in = types.ModuleType("async_timeout")
    stand_in.timeout = asyncio.timeout  # type: ignore[attr-defined]
    found = types.ModuleType(name)
    sys.modules.setdefault("async_timeout", stand_in)
    text = text.replace("@pytest.mark.asyncio\n", "\n")  # of a plugin that is not used here
    exec(compile(text, f"{name}.py", "exec"), found.__dict__)
    return found
