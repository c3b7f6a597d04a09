"""Env files: read as python-dotenv reads them, without its package."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import dotenv
import dotenv.parser
import pytest

import chansup
from chansup.config import env_files
from chansup.vendored import dotenv_parser

LINES = """\
PLAIN=value
  export EXPORTED = x y  # comment
HASH=a#b
QUOTED='a # "b" $C ${D} \\n \\' \\\\'
ESCAPED="tab\\there\\nnext \\"quoted\\" \\\\n"
EMPTY=
ALSO_EMPTY= # comment
URL=amqp://u:p%40ss=@host/v?a=1&b=2#frag
DOLLARS=a$$b$(c)`d`
SEVERAL="first
  second\\tthird

fourth"
IN_SINGLE='begin
# no comment
end' # comment
'SPACED NAME'=x
ŁÓDŹ=ąę 🚋
JSON={"a": ["b"]}
BARE
LAST=no newline at the end"""

VARIANTS = {
    "lf": lambda text: text.encode(),
    "crlf": lambda text: text.replace("\n", "\r\n").encode(),
    "cr": lambda text: text.replace("\n", "\r").encode(),
    "mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_they_are_read_as_people_expect(variant: str, tmp_path: Path) -> None:
    (tmp_path / "a.env").write_bytes(VARIANTS[variant](LINES))
    (tmp_path / "reference").write_text(LINES)
    found = dotenv.dotenv_values(tmp_path / "reference", interpolate=False)
    expected = {name: value for name, value in found.items() if value is not None}
    assert expected["SEVERAL"] == "first\n  second\tthird\n\nfourth"
    assert env_files.load("a.env", tmp_path) == (expected, [])


@pytest.mark.parametrize("variant", ["crlf", "cr"])
def test_the_line_of_an_error_does_not_depend_on_line_ends(variant: str, tmp_path: Path) -> None:
    text = "A='1\n2'\n\nnot one\nB=x\n"
    (tmp_path / "a.env").write_bytes(VARIANTS[variant](text))
    variables, (problem,) = env_files.load("a.env", tmp_path)
    assert variables == {"A": "1\n2", "B": "x"}
    assert problem.line == 4


def test_the_copy_is_what_was_released() -> None:
    version = importlib.metadata.version("python-dotenv")
    package = Path(chansup.__file__).parent / "vendored"
    assert f"python-dotenv {version}" in (package / "__init__.py").read_text()
    ours, theirs = dotenv_parser.__file__, dotenv.parser.__file__
    assert Path(ours).read_text() == Path(theirs).read_text()
    assert "Jacob Kaplan-Moss" in (package / "dotenv_parser.LICENSE").read_text()


def test_chansup_installs_and_imports_nothing_called_dotenv(tmp_path: Path) -> None:
    requirements = (Path(chansup.__file__).parent.parent / "pyproject.toml").read_text()
    assert not re.search(r'"[^"]*dotenv[^"]*>=', requirements)
    # An app's own module of that name is left alone, even where an env file is read.
    (tmp_path / "dotenv.py").write_text("raise RuntimeError('imported')\n")
    (tmp_path / "a.env").write_text("NAME=value\n")
    (tmp_path / "chansup.toml").write_text(
        '[app]\nenv_file = "a.env"\n[programs.x]\ncommand = "true"\n'
    )
    script = (
        "import sys; sys.path.insert(0, '.'); from chansup.config.load import load; "
        "print(load('chansup.toml', {}).environment)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "{'NAME': 'value'}\n", done.stderr


def test_what_is_not_a_file_is_an_error_and_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, kind in (("pipe", "a named pipe"), (".", "a directory"), ("/dev/zero", "a device")):
        variables, problems = env_files.load(name, tmp_path)
        assert variables == {}
        assert f"is {kind}, not a file: write the variables into a file" in problems[0].message
    assert env_files.load("/dev/null", tmp_path) == ({}, [])
