"""Whom a socket's file belongs to, and that nobody can divert what root does to it."""

import os
import pwd
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chansup.unix import FileIdentity, Ownership

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
NOBODY = pwd.getpwnam("nobody").pw_uid
# What the unit in contrib/systemd lists for a site of several users: not CAP_FOWNER.
OF_THE_UNIT = "-all,+setuid,+setgid,+kill,+chown,+dac_override,+sys_ptrace"


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "a.sock"))
        yield tmp_path / "a.sock"


def owner(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def test_the_mode_alone(path: Path) -> None:
    Ownership(0o640).give(path)
    assert owner(path) == (0o640, os.geteuid(), path.lstat().st_gid)


@as_root
def test_given_away_and_changed_later_without_more_rights_than_chown(path: Path) -> None:
    steps = (
        "from chansup.unix import Ownership;"
        f"path = {str(path)!r};"
        f"Ownership(0o660, {NOBODY}, 1234).give(path);"
        f"Ownership(0o600, {NOBODY}, 1234).give(path);"
        "Ownership(0o666, 1, 2).give(path)"
    )
    command = ["setpriv", f"--bounding-set={OF_THE_UNIT}", sys.executable, "-c", steps]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert owner(path) == (0o666, 1, 2)


@as_root
def test_a_link_in_the_place_of_the_socket_leads_nowhere(path: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(FileNotFoundError):
        Ownership(0o666, NOBODY, NOBODY).give(path)
    os.link(secret, tmp_path / "hard")
    with pytest.raises(FileNotFoundError):
        Ownership(0o666, NOBODY, NOBODY).give(tmp_path / "hard")
    assert owner(secret) == (0o600, 0, 0)


def test_another_file_in_the_place_of_ours_is_left_alone(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Ownership(0o666).give(path, FileIdentity(0, 0))


@as_root
def test_a_directory_that_is_made_belongs_to_the_owner(tmp_path: Path) -> None:
    Ownership(0o660, NOBODY, 1234).make_directory(tmp_path / "a/b")
    assert owner(tmp_path / "a") == (0o755, 0, 0)
    assert owner(tmp_path / "a/b") == (0o755, NOBODY, 1234)
    present = tmp_path / "present"
    present.mkdir(mode=0o700)
    Ownership(0o660, NOBODY, 1234).make_directory(present)
    assert owner(present) == (0o700, 0, 0)
