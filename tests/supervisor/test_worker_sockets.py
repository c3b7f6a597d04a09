"""The Unix sockets of app workers."""

import os
import socket
import stat
from pathlib import Path

import pytest

from chansup.supervisor.errors import SpawnError
from chansup.supervisor.sockets.worker_sockets import WorkerSockets


def never(*arguments: object) -> None:
    raise AssertionError("nobody else needs to get there")


@pytest.fixture
def sockets(tmp_path: Path) -> WorkerSockets:
    return WorkerSockets(tmp_path, never, never)


def test_each_process_gets_one_of_its_own(sockets: WorkerSockets) -> None:
    one, other = sockets.listen({os.geteuid()}), sockets.listen(())
    assert one.path != other.path
    for made in (one, other):
        status = os.stat(made.path)
        assert stat.S_ISSOCK(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(made.path)
        made.sock.close()


def test_a_worker_that_died_refuses_and_its_path_goes(sockets: WorkerSockets) -> None:
    made = sockets.listen(())
    made.sock.close()
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(made.path)
    made.remove()
    assert not os.path.exists(made.path)
    made.remove()


def test_what_a_killed_supervisor_left_is_cleared(tmp_path: Path, sockets: WorkerSockets) -> None:
    made = sockets.listen(())
    made.sock.close()
    others = [tmp_path / "w1.txt", tmp_path / "w2.sock"]
    for other in others:
        other.touch()
    web = socket.socket(socket.AF_UNIX)
    web.bind(str(tmp_path / "web.sock"))
    again = WorkerSockets(tmp_path, never, never)
    again.clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w1.txt", "w2.sock", "web.sock"]
    again.listen(()).sock.close()  # the same name again
    web.close()
    WorkerSockets(tmp_path / "nowhere", never, never).clear()


def test_a_path_that_is_too_long_is_a_clear_error(tmp_path: Path) -> None:
    place = tmp_path / ("x" * 100)
    place.mkdir()
    with pytest.raises(SpawnError, match=r"cannot listen on .*w1\.sock for the interface: "):
        WorkerSockets(place, never, never).listen(())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_user_of_the_interface_may_connect(tmp_path: Path) -> None:
    opened: list[bool] = []
    warnings: list[str] = []
    sockets = WorkerSockets(tmp_path, lambda: opened.append(True), warnings.append)
    made = sockets.listen({0, 12345})
    status = os.stat(made.path)
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (12345, 0o600)
    assert opened
    made.sock.close()
    both = sockets.listen({0, 12345, 12346})  # while [interface] user changes
    assert stat.S_IMODE(os.stat(both.path).st_mode) == 0o666
    both.sock.close()
    # Directories of pytest are closed to others.
    (warning,) = warnings
    assert "is closed to user 12345, as whom the interface runs" in warning
