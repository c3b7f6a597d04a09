"""The file of a public Unix socket, and its second name."""

import os
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from chansup.supervisor.sockets.socket_file import SocketFile
from chansup.unix import Presence


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    (tmp_path / "pub").mkdir(mode=0o755)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "pub" / "a.sock"))
        sock.listen()
        yield sock


def test_the_same_socket_gets_its_name_back(tmp_path: Path, listener: socket.socket) -> None:
    path = tmp_path / "pub" / "a.sock"
    file = SocketFile(path)
    assert file.presence() is Presence.OURS
    path.unlink()
    assert file.presence() is Presence.MISSING
    assert file.relink()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        listener.accept()[0].close()
    file.remove()
    assert os.listdir(path.parent) == []


def test_a_stranger_s_file_is_never_linked_or_removed(
    tmp_path: Path, listener: socket.socket
) -> None:
    path = tmp_path / "pub" / "a.sock"
    file = SocketFile(path)
    path.unlink()
    kept = path.parent / ".a.sock.chansup"
    kept.unlink()
    kept.touch()
    assert not file.relink()
    path.touch()
    assert file.presence() is Presence.FOREIGN
    file.remove()
    assert sorted(os.listdir(path.parent)) == [".a.sock.chansup", "a.sock"]


def test_the_directory_is_made_as_it_was(tmp_path: Path, listener: socket.socket) -> None:
    path = tmp_path / "pub" / "a.sock"
    file = SocketFile(path)
    path.parent.chmod(0o751)
    again = SocketFile(path)  # takes the second name over
    shutil.rmtree(path.parent)
    assert not again.relink()
    again.restore_directory()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o751
    again.restore_directory()  # it stands there: nothing to do
    assert file.presence() is Presence.MISSING
