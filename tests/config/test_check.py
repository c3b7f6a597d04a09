import functools
import os
import socket
import stat
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from chansup.check import probe, rehearsal
from chansup.check.check import check
from chansup.config.load import load
from chansup.protocol.probe import Answer, Finding

pytestmark = pytest.mark.slow  # the interpreter makes no difference

ENVIRON = {"PATH": os.environ["PATH"]}


@pytest.fixture
def site(tmp_path: Path):
    """Write a config for an app whose probe finds nothing wrong; return its path."""

    def write(text: str, answer: str = "{}") -> Path:
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\ncat >{tmp_path}/question\ncat <<'END'\n{answer}\nEND\n")
        python.chmod(0o755)
        (tmp_path / "chansup.toml").write_text(
            '[app]\nasgi = "mysite.asgi:application"\npython = "./python"\n'
            '[admin]\nbind = ""\n[interface]\n' + text
        )
        return tmp_path / "chansup.toml"

    return write


def keys(report) -> list[str]:
    return [problem.key for problem in report.problems]


def test_a_config_that_is_fine(site):
    report = check(
        site('bind = ["127.0.0.1:0", "unix:web.sock", "[::]:0", "localhost:0"]'), ENVIRON
    )
    assert report.problems == []


def test_a_config_that_does_not_load(site):
    report = check(site("bnid = 3"), ENVIRON)
    assert keys(report) == ["interface.bnid"]


def test_a_port_in_use_is_named_with_its_holder(site):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        path = site(f'bind = ["127.0.0.1:{port}", "0.0.0.0:{port}"]')
        report = check(path, ENVIRON)
        assert keys(report) == ["interface.bind[0]", "interface.bind[1]"]
        expected = (
            f"cannot listen on 127.0.0.1:{port}: this supervisor itself already listens there"
        )
        assert expected in report.problems[0].message
        assert {problem.line for problem in report.problems} == {7}
        held = {f"127.0.0.1:{port}", f"0.0.0.0:{port}"}
        assert check(path, ENVIRON, held=held).problems == []


@pytest.mark.parametrize(("now", "then"), [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")])
def test_an_address_that_overlaps_with_one_of_the_running_site(site, now, then):
    with closing(socket.create_server((now, 0))) as taken:
        port = taken.getsockname()[1]
        path = site(f'bind = "{then}:{port}"')
        (problem,) = check(path, ENVIRON, held=[f"{now}:{port}"]).problems
        assert problem.key == "interface.bind"
        assert (
            f"{then}:{port} overlaps with {now}:{port}, where this site listens" in problem.message
        )
        assert "`chansup stop` and `chansup run`" in problem.message
        (problem,) = check(path, ENVIRON, held=[f"127.0.0.2:{port}"][: now == "0.0.0.0"]).problems
        assert "already listens there" in problem.message


def test_localhost_beside_the_running_site(site):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        path = site(f'bind = "localhost:{port}"')
        assert check(path, ENVIRON, held=[f"127.0.0.1:{port}", f"[::1]:{port}"]).problems == []


def test_a_port_that_another_program_would_share_is_in_use(site):
    with socket.socket() as shared:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind(("127.0.0.1", 0))
        shared.listen()
        report = check(site(f'bind = "127.0.0.1:{shared.getsockname()[1]}"'), ENVIRON)
    assert "already listens there" in report.problems[0].message


def test_connections_of_the_past_are_no_obstacle(site):
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # this side closes first, and keeps the port in TIME_WAIT
        client.close()
    assert check(site(f'bind = "127.0.0.1:{port}"'), ENVIRON).problems == []


def test_an_address_of_no_interface(site):
    report = check(site('bind = ["203.0.113.7:8000", "no-such-host.invalid:1"]'), ENVIRON)
    assert "no network interface of this machine has that address" in report.problems[0].message
    assert "host name is unknown" in report.problems[1].message


def test_unix_sockets(site, tmp_path):
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale"))
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(tmp_path / "live"))
        live.listen()
        report = check(
            site('bind = ["unix:file/x", "unix:file", "unix:stale", "unix:live", "unix:no/x"]'),
            ENVIRON,
        )
    assert [problem.message.split(": ")[1] for problem in report.problems] == [
        f"{tmp_path / 'file'} is not a directory. Remove it, or choose another path",
        "path exists and is not a socket",
        "another process already listens there. Stop it, or choose another path",
    ]
    assert keys(report) == ["interface.bind[0]", "interface.bind[1]", "interface.bind[3]"]
    assert stat.S_ISSOCK(os.lstat(tmp_path / "stale").st_mode)


def test_systemd_s_sockets_are_a_note(site):
    report = check(site('bind = "systemd"'), ENVIRON)
    assert any("systemd" in note for note in report.notes)
    assert check(site('bind = "systemd"'), {**ENVIRON, "LISTEN_FDS": "1"}).notes == []


def test_commands_that_cannot_run(site, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/tool").touch()
    path = site(
        'bind = "127.0.0.1:0"\n'
        '[programs.a]\ncommand = "no-such-program -x"\n'
        '[programs.b]\ncommand = ["./tool"]\ndirectory = "sub"\n'
        '[programs.c]\ncommand = "./sub/nothing"\n'
        '[programs.d]\ncommand = "python manage.py clock"\n'
        '[programs.e]\ncommand = "sh -c true"\n'
    )
    report = check(path, ENVIRON)
    assert keys(report) == [f"programs.{name}.command" for name in "abcd"]
    words = ["on PATH", "chmod +x", "does not exist", "manage.py"]
    for word, problem in zip(words, report.problems, strict=True):
        assert word in problem.message


def test_what_per_core_means_here_is_a_note(site):
    (note,) = check(site('processes = "2-per-core"\nbind = "127.0.0.1:0"'), ENVIRON).notes
    assert "2-per-core means" in note


def test_a_runtime_directory_that_run_would_refuse(site, tmp_path):
    path = site('bind = "127.0.0.1:0"')
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    assert check(path, ENVIRON, runtime_directory=tmp_path / "link" / "run").problems == []
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name, said in (("link", "is a symbolic link"), ("open", "chmod 700"), ("x" * 99, "longer")):
        (problem,) = check(path, ENVIRON, runtime_directory=tmp_path / name).problems
        assert said in problem.message


def test_the_runtime_directory(site, tmp_path):
    path = site('bind = "127.0.0.1:0"')
    assert check(path, ENVIRON, runtime_directory=tmp_path / "a/b").problems == []
    (tmp_path / "file").touch()
    report = check(path, ENVIRON, runtime_directory=tmp_path / "file/b")
    assert keys(report) == ["supervisor.runtime_directory"]


def test_a_runtime_directory_that_systemd_makes_is_a_note(site, tmp_path, monkeypatch):
    path = site('bind = "127.0.0.1:0"')
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.setattr("chansup.check.check._RUN", run)
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not (path == run and mode & os.W_OK) and access(path, mode)
    )
    report = check(path, ENVIRON, runtime_directory=run / "mysite")
    assert report.problems == []
    assert any("a unit with RuntimeDirectory=mysite makes it" in note for note in report.notes)
    (problem,) = check(path, ENVIRON, runtime_directory=run / "deeper/mysite").problems
    assert "cannot be written to" in problem.message


def test_what_the_probe_is_asked_and_answers(site, tmp_path):
    answer = (
        '{"problems": [{"key": "interface.options.foo", "message": "no such option"}],'
        ' "notes": ["uvicorn 1.0"]}'
    )
    path = site(
        'bind = "127.0.0.1:0"\n[interface.options]\nfoo = 1', f"hello from the app\n{answer}"
    )
    report = check(path, ENVIRON)
    assert [(problem.key, problem.line) for problem in report.problems] == [
        ("interface.options.foo", 9)
    ]
    assert report.notes == ["uvicorn 1.0"]
    assert (tmp_path / "question").read_text() == (
        '{"server":"uvicorn","gateway":"asgi","application":"mysite.asgi:application",'
        f'"options":{{"foo":1}},"directory":"{tmp_path}","key":"app.asgi",'
        '"system_checks":true,"protocols":["http"]}'
    )


def _ask(site, script: str, timeout: float = 10.0) -> Finding:
    path = site('bind = "127.0.0.1:0"')
    loaded = load(path, ENVIRON)
    assert loaded.python is not None
    python = Path(loaded.python)
    python.write_text(script)
    (finding,) = probe.ask(loaded, ENVIRON, timeout).problems
    return finding


@pytest.mark.parametrize(
    ("script", "key", "words"),
    [
        ("#!/bin/sh\nexit 3", "app.asgi", "exit code 3"),
        ("#!/bin/sh\nkill -SEGV $$", "app.asgi", "SIGSEGV"),
        ("#!/bin/sh\necho '[1]'", "app.asgi", "exit code 0"),
        ("#!/bin/sh\necho Traceback >&2; echo 'Oops: x' >&2; exit 1", "app.asgi", "\n    Oops: x"),
        ("#!/no/such/interpreter", "app.python", "cannot be run"),
        ("\x7fELF", "app.python", "cannot be run"),
        (f'#!/bin/sh\nexec {sys.executable} -IS "$@"', "app.python", "is not installed"),
    ],
)
def test_a_probe_that_cannot_answer(site, script, key, words):
    finding = _ask(site, script)
    assert finding.key == key
    assert words in finding.message


def test_a_probe_that_never_ends_is_killed_with_its_children(site, tmp_path):
    finding = _ask(site, f"#!/bin/sh\nsleep 1000 & echo $! >{tmp_path}/pid\nwait", timeout=0.5)
    assert "longer than 0.5 s" in finding.message
    pid = int((tmp_path / "pid").read_text())
    for _ in range(1000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        os.sched_yield()
    pytest.fail("the probe's child lives on")


def test_no_probe_without_an_app(tmp_path):
    (tmp_path / "chansup.toml").write_text('[programs.x]\ncommand = "x"')
    assert probe.ask(load(tmp_path / "chansup.toml", ENVIRON), ENVIRON) == Answer()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has users to choose from")
def test_a_user_who_cannot_run_the_interpreter(site):
    path = site('user = "nobody"\n[programs.x]\ncommand = "true"\nuser = "nobody"\n')
    closed = path.parent
    closed.chmod(0o700)  # as is what pytest puts it in
    report = check(path, ENVIRON)
    assert keys(report) == ["interface.user"]
    message = report.problems[0].message
    assert message.startswith('"nobody" may not go into /')
    assert f"cannot run {closed}/python" in message
    assert "chmod o+x" in message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has users to choose from")
def test_a_command_is_tried_as_its_user(site, tmp_path):
    tmp_path.chmod(0o700)  # so is what pytest puts it in
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    path = site(
        'bind = "127.0.0.1:0"\n'
        f'[programs.a]\ncommand = ["{tool}"]\nuser = "nobody"\n'
        '[programs.b]\ncommand = ["true"]\nuser = "nobody"\n'
        f'[programs.c]\ncommand = ["{tool}"]\n'
    )
    (problem,) = check(path, ENVIRON).problems
    assert problem.key == "programs.a.command"
    assert "may not go into /" in problem.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo hello\n", "not a program of this machine"),
        ("", "not a program of this machine"),
        ("#!/usr/bin/env python1.4\n", "its interpreter python1.4 is not on PATH"),
    ],
)
def test_a_command_that_no_kernel_can_execute(site, tmp_path, text, said):
    tool = tmp_path / "tool"
    tool.write_text(text)
    tool.chmod(0o755)
    path = site('bind = "127.0.0.1:0"\n[programs.a]\ncommand = "./tool"\n')
    (problem,) = check(path, ENVIRON).problems
    assert said in problem.message


def test_a_command_whose_interpreter_is_gone(site, tmp_path):
    tool = tmp_path / "tool"
    tool.write_text("#!/gone/venv/bin/python\n")
    tool.chmod(0o755)
    path = site('bind = "127.0.0.1:0"\n[programs.a]\ncommand = "./tool"\n')
    (problem,) = check(path, ENVIRON).problems
    assert "its interpreter /gone/venv/bin/python does not exist" in problem.message


LETTERS = """
[workers.mail]
channels = ["mail"]
redeliver = true
dead_letters = "letters/dead"
"""


def test_dead_letters_must_be_writable_by_the_worker(site, tmp_path):
    directory = tmp_path / "letters"
    directory.mkdir()
    path = site('bind = "127.0.0.1:0"' + LETTERS)
    assert check(path, ENVIRON).problems == []
    os.mkfifo(directory / "dead")
    (found,) = check(path, ENVIRON).problems
    assert found.key == "workers.mail.dead_letters"
    assert "is not a file" in found.message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes of another user")
def test_dead_letters_must_be_writable_by_the_user_of_the_worker():
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # not below a directory of mode 0700
        place = Path(name)
        place.chmod(0o755)
        letters = place / "letters"
        letters.mkdir(mode=0o755)
        obstacles = functools.partial(
            rehearsal.file_obstacles, str(letters / "dead"), "nobody", None
        )
        assert "may not make files in" in obstacles()[0]
        letters.chmod(0o777)
        assert obstacles() == []
        (letters / "dead").touch(mode=0o600)
        assert "may not read and write" in obstacles()[0]
        letters.chmod(0o700)
        assert "may not go into" in obstacles()[0]


def test_a_program_that_goes_into_the_background_is_named(site):
    text = 'bind = "127.0.0.1:0"\n[programs.cache]\ncommand = "sh -c \'sleep 9 &\'"\n'
    (warning,) = check(site(text), ENVIRON).warnings
    assert warning.key == "programs.cache.command"
    assert "goes into the background: run it in the foreground (without &" in warning.message
