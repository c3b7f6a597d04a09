"""The runtime directory, on real file systems."""

import fcntl
import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from chansup.config import runtime_places
from chansup.errors import ExitCode
from chansup.supervisor.errors import AlreadyRunningError, RuntimeDirectoryError
from chansup.supervisor.runtime.runtime import RuntimeDirectory, control_socket_path, directory_for
from chansup.unix import Presence

pytestmark = pytest.mark.slow  # the interpreter makes no difference

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def opened(tmp_path):
    directory = RuntimeDirectory(tmp_path / "a" / "run")
    directory.open()
    yield directory
    directory.close()


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


# Where it is


def test_a_configured_directory_is_relative_to_the_config_file(tmp_path):
    config = tmp_path / "site" / "chansup.toml"
    assert directory_for(config, "run", {}) == tmp_path / "site" / "run"
    assert directory_for(config, "../run", {}) == tmp_path / "run"
    assert directory_for(config, "/run/site", {}) == Path("/run/site")


def test_every_way_to_write_the_path_leads_to_the_same_place(tmp_path, monkeypatch):
    config = tmp_path / "chansup.toml"
    config.touch()
    link = tmp_path / "link.toml"
    link.symlink_to(config)
    monkeypatch.chdir(tmp_path)
    places = {directory_for(Path(one)) for one in (config, link, "chansup.toml", "./chansup.toml")}
    assert len(places) == 1
    assert places != {directory_for(tmp_path / "other.toml")}


def test_where_it_is_without_a_setting(tmp_path, monkeypatch):
    config = tmp_path / "chansup.toml"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert directory_for(config, None, {}).parent == Path("/run/chansup")
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner or 1234)
    assert directory_for(config, None, {}).parent == Path(f"/tmp/chansup-{owner or 1234}")
    foreign = {"XDG_RUNTIME_DIR": "/proc"}
    assert directory_for(config, None, foreign).parent == Path(f"/tmp/chansup-{owner or 1234}")


def test_the_directory_of_the_session_is_used(tmp_path, monkeypatch):
    status = os.stat(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setattr(os, "stat", lambda path: os.stat_result((*status[:4], 1234, *status[5:])))
    found = directory_for(Path("/x.toml"), None, {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert found.parent == tmp_path / "chansup"


def test_a_supervisor_from_another_environment_is_found(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    monkeypatch.setattr(runtime_places, "directories", lambda *_: [here, there])
    assert control_socket_path(Path("x")) == here / "control.sock"  # none runs
    directory = RuntimeDirectory(there)
    directory.open()
    with directory.control_socket():
        assert control_socket_path(Path("x")) == there / "control.sock"
    directory.close()
    assert control_socket_path(Path("x")) == here / "control.sock"


# Opening and closing


def test_it_is_private_and_goes_without_a_trace(tmp_path):
    directory = RuntimeDirectory(tmp_path / "a" / "b" / "run")
    directory.open()
    assert [mode(tmp_path / part) for part in ("a", "a/b", "a/b/run")] == [0o700] * 3
    with directory.control_socket() as listener:
        path = directory.path / "control.sock"
        assert mode(path) == 0o600
        assert not listener.getblocking()
        assert not listener.get_inheritable()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            listener.accept()[0].close()
    directory.close()
    assert os.listdir(tmp_path) == []


def test_a_directory_that_was_there_stays(tmp_path):
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    directory = RuntimeDirectory(path)
    directory.open()
    directory.control_socket().close()
    directory.close()
    assert os.listdir(path) == []


def test_a_umask_opens_nothing(tmp_path):
    before = os.umask(0)
    try:
        directory = RuntimeDirectory(tmp_path / "run")
        directory.open()
        directory.control_socket().close()
        names = ("run", "run/control.sock", "run/lock")
        assert [mode(tmp_path / name) for name in names] == [0o700, 0o600, 0o600]
        directory.close()
    finally:
        os.umask(before)


def test_what_a_killed_supervisor_left_is_no_obstacle(tmp_path):
    path = tmp_path / "run"
    program = (
        "import os, signal, sys; from pathlib import Path;"
        "from chansup.supervisor.runtime.runtime import RuntimeDirectory;"
        "directory = RuntimeDirectory(Path(sys.argv[1])); directory.open();"
        "listener = directory.control_socket(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(path)])
    assert sorted(os.listdir(path)) == ["control.sock", "lock"]
    directory = RuntimeDirectory(path)
    directory.open()
    with directory.control_socket(), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path / "control.sock"))
    directory.close()


# Two at once


def test_a_second_supervisor_is_told_of_the_first(opened):
    with pytest.raises(AlreadyRunningError, match=f"process {os.getpid()} ") as caught:
        RuntimeDirectory(opened.path).open()
    assert caught.value.exit_code == ExitCode.ALREADY_RUNNING
    assert int(caught.value.exit_code) == 4
    assert "chansup stop" in str(caught.value)
    assert (opened.path / "lock").exists()  # the one that failed took nothing with it


def test_a_second_process_is_told_of_the_first(opened):
    program = (
        "import sys; from pathlib import Path;"
        "from chansup.supervisor.runtime.runtime import RuntimeDirectory\n"
        "try: RuntimeDirectory(Path(sys.argv[1])).open()\n"
        "except Exception as error: print(error)"
    )
    arguments = [sys.executable, "-c", program, str(opened.path)]
    said = subprocess.run(arguments, capture_output=True, text=True).stdout
    assert f"process {os.getpid()} " in said


def test_the_lock_does_not_live_on_in_children(tmp_path):
    directory = RuntimeDirectory(tmp_path / "run")
    directory.open()
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        directory.close()
        again = RuntimeDirectory(tmp_path / "run")
        again.open()
        again.close()
        child.kill()


def test_a_directory_that_was_just_removed_is_no_claim(tmp_path, monkeypatch):
    # Between open and flock of the second, the first ends and removes both.
    path = tmp_path / "run"
    first = RuntimeDirectory(path)
    first.open()
    second = RuntimeDirectory(path)
    flock = fcntl.flock

    def late(descriptor, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        first.close()
        assert not path.exists()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    second.open()
    with pytest.raises(AlreadyRunningError):
        RuntimeDirectory(path).open()
    second.close()


def test_the_claim_holds_when_the_lock_file_is_removed(opened):
    (opened.path / "lock").unlink()
    with opened.control_socket():
        inode = (opened.path / "control.sock").stat().st_ino
        with pytest.raises(AlreadyRunningError, match=f"process {os.getpid()} "):
            RuntimeDirectory(opened.path).open()
        assert (opened.path / "control.sock").stat().st_ino == inode


def test_who_answers_without_a_lock_is_not_pushed_aside(tmp_path):
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as answering:
        answering.bind(str(path / "control.sock"))
        answering.listen()
        with pytest.raises(AlreadyRunningError, match=f"process {os.getpid()} "):
            RuntimeDirectory(path).open()
        assert (path / "control.sock").is_socket()
        assert not (path / "lock").exists()


def test_what_vanished_is_made_again(opened):
    assert opened.restore() == []
    (opened.path / "lock").unlink()
    assert opened.restore() == [str(opened.path / "lock")]
    opened.let_pass()
    opened.control_socket().close()
    assert opened.control_presence() is Presence.OURS
    shutil.rmtree(opened.path)
    assert opened.control_presence() is Presence.MISSING
    assert opened.restore() == [str(opened.path), str(opened.path / "lock")]
    assert mode(opened.path) == 0o711  # as it was
    assert opened.restore() == []
    with pytest.raises(AlreadyRunningError):
        RuntimeDirectory(opened.path).open()


def test_a_place_that_another_supervisor_took_is_left_to_it(opened):
    shutil.rmtree(opened.path)
    other = RuntimeDirectory(opened.path)
    other.open()
    with pytest.raises(AlreadyRunningError):
        opened.restore()
    opened.close()  # takes nothing of the other along
    assert sorted(os.listdir(other.path)) == ["lock"]
    other.close()


# What cannot be used


@pytest.mark.parametrize("bits", [0o720, 0o702, 0o777])
def test_a_directory_that_others_can_write_to_is_refused(tmp_path, bits):
    path = tmp_path / "run"
    path.mkdir()
    path.chmod(bits)
    with pytest.raises(RuntimeDirectoryError, match=f"mode {bits:04o}.*chmod 700"):
        RuntimeDirectory(path).open()


def test_a_link_is_refused(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to(tmp_path / "real")
    with pytest.raises(RuntimeDirectoryError, match="symbolic link"):
        RuntimeDirectory(tmp_path / "run").open()


def test_a_link_in_the_middle_is_followed_once(tmp_path):
    for name in ("real", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("real")  # as /var/run leads to /run
    directory = RuntimeDirectory(tmp_path / "link" / "run")
    directory.open()
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("other")
    with directory.control_socket():
        assert (tmp_path / "real" / "run" / "control.sock").is_socket()
    directory.close()
    assert os.listdir(tmp_path / "real") == os.listdir(tmp_path / "other") == []


def test_a_file_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(RuntimeDirectoryError, match="is not a directory: remove it"):
        RuntimeDirectory(tmp_path / "run").open()
    with pytest.raises(RuntimeDirectoryError, match="runtime_directory"):
        RuntimeDirectory(tmp_path / "run" / "deeper").open()


@as_root
@pytest.mark.parametrize("which", ["run", "."])
def test_a_directory_of_somebody_else_is_refused(tmp_path, which):
    # As the last part, or as the one in which it could be exchanged.
    place = tmp_path / "place"
    (place / "run").mkdir(parents=True, mode=0o700)
    os.chown(place / which, 65534, 65534)
    with pytest.raises(RuntimeDirectoryError, match="belongs to user 65534"):
        RuntimeDirectory(place / "run").open()


def test_a_path_too_long_for_a_socket(tmp_path):
    with pytest.raises(RuntimeDirectoryError, match="longer than 107 bytes"):
        RuntimeDirectory(tmp_path / ("x" * 100)).open()
    assert os.listdir(tmp_path) == []


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    (path / "lock").symlink_to(victim)
    with pytest.raises(RuntimeDirectoryError):
        RuntimeDirectory(path).open()
    assert victim.read_text() == "precious"


@pytest.fixture
def mount(tmp_path):
    """Mount a file system with the given options; skip where that is not allowed."""
    mounted = []

    def mount(options):
        path = tmp_path / "mounted"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "chansup-test", str(path)]
        if shutil.which("mount") is None or subprocess.run(command).returncode:
            pytest.skip("this machine does not allow a mount")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", str(path)], check=True)


@as_root
def test_a_full_disk(mount):
    path = mount("size=4k")
    (path / "filler").write_bytes(b"x" * 4096)
    with pytest.raises(RuntimeDirectoryError, match=r"disk is full.*runtime_directory"):
        RuntimeDirectory(path / "run").open()
    (path / "filler").unlink()
    directory = RuntimeDirectory(path / "run")
    directory.open()
    directory.close()


@as_root
def test_a_disk_without_inodes(mount):
    with pytest.raises(RuntimeDirectoryError, match="disk is full"):
        RuntimeDirectory(mount("nr_inodes=1") / "run").open()


@as_root
def test_a_disk_that_is_full_when_the_socket_is_made(mount):
    path = mount("nr_inodes=3")  # the root, the directory and the lock
    directory = RuntimeDirectory(path / "run")
    directory.open()
    with pytest.raises(RuntimeDirectoryError, match="disk is full"):
        directory.control_socket()
    directory.close()


@as_root
def test_a_read_only_disk(mount):
    with pytest.raises(RuntimeDirectoryError, match="Read-only"):
        RuntimeDirectory(mount("ro") / "run").open()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RuntimeDirectoryError, match="Permission denied"):
        RuntimeDirectory(tmp_path / "run").open()


def test_nothing_leaks(tmp_path):
    before = os.listdir("/proc/self/fd")
    for _ in range(10):
        directory = RuntimeDirectory(tmp_path / "run")
        directory.open()
        directory.control_socket().close()
        with pytest.raises(AlreadyRunningError):
            RuntimeDirectory(tmp_path / "run").open()
        directory.close()
    assert os.listdir("/proc/self/fd") == before


def test_the_cli_finds_the_socket_without_heavy_imports():
    program = (
        "import sys, chansup.supervisor.runtime.runtime;"
        "print([name for name in ('asyncio', 'psutil', 'rich', 'uvicorn') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert said.stdout.strip() == "[]"


def test_other_users_get_through_to_a_socket_but_see_no_names(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    directory = RuntimeDirectory(tmp_path / "a" / "run")
    directory.open()
    try:
        directory.let_pass()
        modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (
            tmp_path, tmp_path / "a", tmp_path / "a" / "run", tmp_path / "a" / "run" / "lock")]  # fmt: skip
        assert modes == [0o700, 0o711, 0o711, 0o600]
    finally:
        directory.close()
    assert not (tmp_path / "a").exists()
