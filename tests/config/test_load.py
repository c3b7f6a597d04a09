import os
from pathlib import Path

import pytest

from chansup.config.errors import ConfigError
from chansup.config.load import load

APP = '[app]\nasgi = "mysite.asgi:application"\n'
SITE = APP + "[interface]\n"


def test_the_least_config_has_every_default(config, tmp_path):
    loaded = config(SITE)
    assert loaded.config.interface.bind == "127.0.0.1:8000"
    assert loaded.path == tmp_path / "chansup.toml"
    assert loaded.directory == tmp_path
    assert loaded.environment == {}
    assert loaded.python is None
    assert loaded.warnings == []


def test_directory_follows_a_symlink_anew_each_time(config, tmp_path):
    for release in ("1", "2"):
        (tmp_path / "releases" / release).mkdir(parents=True)
    current = tmp_path / "current"
    current.symlink_to("releases/1")
    text = '[app]\nasgi = "a:b"\ndirectory = "current"\n[interface]\n'
    assert config(text).directory == tmp_path / "releases/1"
    current.unlink()
    current.symlink_to("releases/2")
    assert config(text).directory == tmp_path / "releases/2"


def test_the_path_of_the_file_keeps_its_symlinks(tmp_path):
    (tmp_path / "real.toml").write_text(SITE)
    (tmp_path / "chansup.toml").symlink_to("real.toml")
    assert load(tmp_path / "chansup.toml", {}).path == tmp_path / "chansup.toml"


def test_variables_fill_in_numbers_and_truth(config):
    loaded = config(
        SITE + 'processes = "${N:-3}"\nbacklog = "${BACKLOG}"\n[rollout]\nsettle = "${S:-0.5}"\n',
        BACKLOG="7",
    )
    assert loaded.config.interface.processes == 3
    assert loaded.config.interface.backlog == 7
    assert loaded.config.rollout.settle == 0.5


def test_a_number_in_quotes_is_still_an_error(problems):
    (problem,) = problems(SITE + 'backlog = "7"\n')
    assert problem.message.endswith("write 7 without quotes")


def test_a_variable_that_holds_no_number(problems):
    (problem,) = problems(SITE + 'backlog = "${B}"\n', B="many")
    assert '"many" (after its variables were filled in)' in problem.message


def test_env_files_come_before_the_environment_of_the_config(config, tmp_path):
    (tmp_path / "a.env").write_text("A=file\nB=file\nPLAIN=${HOME}\nexport Q='x y'\n")
    (tmp_path / "b.env").write_text("B=later\n")
    loaded = config(
        '[app]\nasgi = "a:b"\nenv_file = ["a.env", "${WHICH}.env", "-missing.env"]\n'
        'environment = { A = "config", D = "${B}" }\n[interface]\n',
        WHICH="b",
        B="inherited",
    )
    assert loaded.environment == {
        "A": "config",
        "B": "later",
        "PLAIN": "${HOME}",
        "Q": "x y",
        "D": "later",
    }


def test_the_environment_holds_nothing_inherited(config):
    assert "SECRET" not in config(SITE, SECRET="s").environment


def test_a_missing_env_file_is_one_problem_and_names_the_way_out(problems):
    found = problems(
        '[app]\nasgi = "a:b"\nenv_file = "x.env"\n[interface]\nbind = "${FROM_THERE}"\n'
    )
    assert [(problem.key, problem.line) for problem in found] == [("app.env_file", 3)]
    assert '"-x.env"' in found[0].message


def test_a_bad_line_of_an_env_file_is_named_without_its_text(problems, tmp_path):
    (tmp_path / "x.env").write_text("A=1\n\nhunter2 is my secret\n")
    (problem,) = problems('[app]\nasgi = "a:b"\nenv_file = "x.env"\n[interface]\n')
    assert (problem.file, problem.line) == (str(tmp_path / "x.env"), 3)
    assert "hunter2" not in problem.message


def test_an_escape_is_undone_once(config, tmp_path):
    (tmp_path / "${X}").mkdir()
    loaded = config('[app]\nasgi = "a:b"\ndirectory = "$${X}"\n[interface]\n')
    assert loaded.directory == tmp_path / "${X}"


def test_python_is_relative_to_the_directory_and_stays_a_symlink(config, tmp_path):
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/python").symlink_to("/bin/sh")
    loaded = config('[app]\nasgi = "a:b"\npython = "venv/bin/python"\n[interface]\n')
    assert loaded.python == str(tmp_path / "venv/bin/python")
    environment = loaded.child_environment({"PATH": "/usr/bin"}, {"X": "1"})
    assert environment == {"PATH": f"{tmp_path}/venv/bin:/usr/bin", "X": "1"}


def test_a_path_that_the_config_sets_is_left_alone(config):
    loaded = config('[app]\nasgi = "a:b"\nenvironment = { PATH = "/opt" }\n[interface]\n')
    assert loaded.child_environment({"PATH": "/usr/bin"}, {})["PATH"] == "/opt"
    assert loaded.child_environment({}, {"PATH": "/own"})["PATH"] == "/own"


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("no-such-python", "is not on PATH"),
        ("venv/bin/python", "does not exist"),
        (".", "is not on PATH"),
        ("./", "is a directory"),
    ],
)
def test_a_python_that_is_none(problems, python, message):
    (problem,) = problems(f'[app]\nasgi = "a:b"\npython = "{python}"\n[interface]\n')
    assert (problem.key, problem.line) == ("app.python", 3)
    assert message in problem.message


def _fails(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    (problem,) = caught.value.problems
    assert problem.message
    return str(caught.value)


def test_a_missing_file_names_init(tmp_path):
    assert "chansup init" in _fails(tmp_path / "chansup.toml")


def test_files_that_are_none(tmp_path):
    assert "is a directory" in _fails(tmp_path)
    assert "does not exist" in _fails(tmp_path / "x" / "chansup.toml")
    (tmp_path / "latin1").write_bytes("[app]\n# sch\xf6n\n".encode("latin-1"))
    assert "is not UTF-8 (line 2)" in _fails(tmp_path / "latin1")
    (tmp_path / "large").write_bytes(b"#" * (1024 * 1024 + 1))
    assert "larger than 1 MiB" in _fails(tmp_path / "large")
    assert "is a device, not a file: name another" in _fails(Path("/dev/zero"))
    os.mkfifo(tmp_path / "pipe")
    assert "is a named pipe, not a file: name another" in _fails(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    assert "is a named pipe, not a file" in _fails(tmp_path / "link")
    assert "cannot be read" in _fails(tmp_path / ("x" * 300))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    (tmp_path / "chansup.toml").write_text(SITE)
    (tmp_path / "chansup.toml").chmod(0)
    assert "Permission denied" in _fails(tmp_path / "chansup.toml")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[app]\nasgi = \n", 2, "column 8: this is not TOML: invalid value"),
        ("[app]\n\nasgi = 'a'\nasgi = 'b'\n", 4, '"asgi" is set twice: remove one'),
        ("[a]\n'b' = 1\n\n[a.b]\nc = 1\n", 4, '"a.b" is set twice'),
        ('[a]\nb = 1\nb = """\nc = 2"""\n', 4, "cannot overwrite a value"),
        ("[app\n", 1, "this is not TOML"),
        ("x = " + "[" * 3000, None, "nested too deeply"),
        ("x" + ".x" * 3000 + " = 1", None, "nested too deeply"),
        ("x = " + "9" * 9000, None, "a number is too long"),
    ],
)
def test_what_is_no_toml(problems, text, line, words):
    (problem,) = problems(text)
    assert problem.line == line
    assert words in problem.message


def test_a_byte_order_mark_and_windows_lines_do_no_harm(tmp_path):
    (tmp_path / "chansup.toml").write_bytes(b"\xef\xbb\xbf" + SITE.replace("\n", "\r\n").encode())
    assert load(tmp_path / "chansup.toml", {}).config.app.asgi == "mysite.asgi:application"


def test_loading_needs_nothing_heavy():
    import subprocess
    import sys

    heavy = "{'rich', 'psutil', 'tomlkit', 'asyncio', 'django', 'uvicorn', 'subprocess'}"
    code = f"import sys, chansup.config.load; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
