"""What `chansup check` asks in relay mode, and whom."""

import json
import os
import sys
from pathlib import Path

import pytest

from chansup.check import probe
from chansup.check.check import check
from chansup.config.load import load
from chansup.protocol.probe import Question

pytestmark = pytest.mark.slow  # the interpreter makes no difference

ENVIRON = {"PATH": os.environ["PATH"]}
SITE = '[app]\nasgi = "site_app:app"\ndirectory = "app"\n[admin]\nbind = ""\n'
HOLDING = '[interface]\nbind = "127.0.0.1:0"\n'
WEB = '[workers.web]\nserves = ["http", "websocket"]\n'
APP = "async def app(scope, receive, send): ..."
WSGI = "def app(environ, start_response): ..."


@pytest.fixture
def site(tmp_path: Path):
    """Write an app and a config for it; return the path of that."""

    def write(text: str, **modules: str) -> Path:
        (tmp_path / "app").mkdir(exist_ok=True)
        for name, source in {"site_app": APP, **modules}.items():
            (tmp_path / f"app/{name}.py").write_text(source)
        path = tmp_path / "chansup.toml"
        path.write_text(text)
        return path

    return write


def interpreter(place: Path, answer: str) -> Path:
    """Write a program that answers as a probe, and keeps what it was asked."""
    place.parent.mkdir(exist_ok=True)
    place.write_text(f"#!/bin/sh\ncat >{place}.asked\nenv >{place}.env\necho '{answer}'\n")
    place.chmod(0o755)
    return place


def found(report) -> list[tuple[str, int | None]]:
    return [(problem.key, problem.line) for problem in report.problems]


def test_an_app_behind_the_relay_that_is_fine(site):
    report = check(site(SITE + HOLDING + WEB), ENVIRON)
    assert report.problems == []
    assert [note.partition(" ")[0] for note in report.notes] == [
        "the",
        "Python",
        "uvicorn",
        "workers.web:",
        "workers.web:",
    ]


def test_what_is_partly_served_is_a_note(site):
    def notes(*routes: str) -> list[str]:
        path = site(f"{SITE}{HOLDING}[workers.web]\nserves = {json.dumps(routes)}\n")
        return [note for note in check(path, ENVIRON).notes if "404" in note]

    (websockets,) = notes("http", "websocket:/ws/*")
    assert websockets == 'WebSockets that no route fits are answered 404: none is "websocket" alone'
    assert [note.split()[0] for note in notes("http:/a/*", "websocket:a.org/*")] == [
        "requests",
        "WebSockets",
    ]
    assert notes("http", "websocket:/ws/*", "websocket") == notes("http") == []


def test_an_app_of_the_other_gateway(site):
    path = site(SITE + HOLDING + WEB, site_app=WSGI)
    (problem,) = check(path, ENVIRON).problems
    assert (problem.key, problem.line) == ("app.asgi", 2)
    assert 'is a WSGI application: write wsgi = "site_app:app"' in problem.message


def test_who_is_asked_what(site, tmp_path):
    path = site(
        SITE.replace("[admin]", 'python = "./main"\nenvironment = { A = "app" }\n[admin]')
        + HOLDING
        + 'environment = { A = "holding" }\noptions = { ws_ping_interval = 3.0 }\n'
        + WEB
        + '[workers.old]\nserves = ["http:/old/*"]\npython = "venv/own"\nwsgi = "old:app"\n'
        + 'environment = { B = "old" }\n'
        + '[workers.more]\nserves = ["http:/more/*"]\n'
    )
    for name in ("main", "venv/own"):
        interpreter(tmp_path / "app" / name, "{}")
    loaded = load(path, ENVIRON)
    holding, web, old = probe.questions(loaded, ENVIRON)
    assert holding.question == Question(
        "uvicorn",
        "asgi",
        "",
        {"ws_ping_interval": 3.0},
        str(tmp_path),
        "interface.server",
        relayed=["http", "websocket", "http:/old/*", "http:/more/*"],
    )
    assert (holding.python, holding.python_key) == (sys.executable, "interface.server")
    assert holding.environment == {**ENVIRON, "A": "holding"}
    directory = str(tmp_path / "app")
    assert web.question == Question(
        "relay",
        "asgi",
        "site_app:app",
        {},
        directory,
        "app.asgi",
        system_checks=True,
        protocols=["http", "websocket"],
    )
    assert (web.python, web.python_key) == (f"{directory}/main", "app.python")
    assert web.environment == {"PATH": f"{directory}:{ENVIRON['PATH']}", "A": "app"}
    key = "workers.old.wsgi"
    assert old.question == Question(
        "relay", "wsgi", "old:app", {}, directory, key, system_checks=True
    )
    assert (old.python, old.python_key) == (f"{directory}/venv/own", "workers.old.python")
    assert old.environment["PATH"] == f"{directory}/venv:{ENVIRON['PATH']}"
    probe.ask(loaded, ENVIRON)
    asked = [
        json.loads((tmp_path / f"app/{name}.asked").read_text()) for name in ("main", "venv/own")
    ]
    assert [question["key"] for question in asked] == ["app.asgi", "workers.old.wsgi"]
    assert "B=old\n" in (tmp_path / "app/venv/own.env").read_text()


def test_the_server_and_its_options_are_asked_of_chansup_s_own_interpreter(site, tmp_path):
    path = site(
        SITE.replace("[admin]", 'python = "./main"\n[admin]')
        + HOLDING
        + WEB
        + "[interface.options]\nws_pnig_interval = 3\n"
    )
    interpreter(tmp_path / "app/main", '{"notes": ["Python 2"]}')
    report = check(path, ENVIRON)
    assert found(report) == [("interface.options.ws_pnig_interval", 12)]
    assert "workers.web: Python 2" in report.notes


def test_each_app_is_imported_and_what_is_wrong_stands_where_it_is_named(site):
    path = site(
        SITE
        + HOLDING
        + WEB
        + '[workers.a]\nserves = ["http:/a/*"]\nasgi = "no_such:app"\n'
        + '[workers.b]\nserves = ["http:/b/*"]\nasgi = "site_app:nothing"\n',
        site_app="app = None",
    )
    report = check(path, ENVIRON)
    assert found(report) == [("app.asgi", 2), ("workers.a.asgi", 12), ("workers.b.asgi", 15)]
    words = ["is a NoneType", 'no module named "no_such"', 'has no "nothing"']
    for word, problem in zip(words, report.problems, strict=True):
        assert word in problem.message


def test_what_two_pools_find_is_said_once(site):
    path = site(
        SITE + HOLDING + WEB + '[workers.b]\nserves = ["http:/b/*"]\nenvironment = { X = "1" }\n',
        site_app="raise RuntimeError",
    )
    assert found(check(path, ENVIRON)) == [("app.asgi", 2)]


def test_a_wsgi_app_needs_an_extra(site, tmp_path):
    pytest.importorskip("a2wsgi")
    old = '[workers.old]\nserves = ["http:/old/*"]\nwsgi = "old:app"\n'
    path = site(SITE + HOLDING + WEB + old, old=WSGI)
    assert check(path, ENVIRON).problems == []
    (tmp_path / "app/a2wsgi.py").write_text("raise ModuleNotFoundError(name='a2wsgi')")
    (problem,) = check(path, ENVIRON).problems
    assert (problem.key, problem.line) == ("workers.old.wsgi", 12)
    assert f'{sys.executable} -m pip install "chansup[wsgi]"' in problem.message


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (f'#!/bin/sh\nexec {sys.executable} -IS "$@"', "is not installed there"),
        (
            '#!/bin/sh\necho \'{"problems": [{"key": "interface.server", "message": "x"}]}\'',
            "is older there than this one",
        ),
    ],
)
def test_an_interpreter_without_this_chansup(site, tmp_path, script, words):
    path = site(SITE + HOLDING + WEB + 'python = "./own"\n')
    (tmp_path / "app/own").write_text(script)
    (tmp_path / "app/own").chmod(0o755)
    (problem,) = check(path, ENVIRON).problems
    assert (problem.key, problem.line) == ("workers.web.python", 10)
    assert words in problem.message


def test_packages_whose_websockets_have_a_session(site):
    apps = {"socketio": "", "reactpy": "", "site_app": f"import socketio, reactpy\n{APP}"}
    head = SITE + '[interface]\nbind = "127.0.0.1:0"\n[workers.web]\nserves = ["websocket"]\n'

    def look(more: str) -> tuple[bool, list[str]]:
        report = check(site(head + more, **apps), os.environ)
        assert not report.problems, report
        named = any("imports Socket.IO" in note and "1012" in note for note in report.notes)
        return named, [one.key for one in report.warnings if "ReactPy" in one.message]

    assert look("") == (True, ["workers.web.handover"])
    assert look('[handover]\nclose = [{ path = "/ui/*" }]\n') == (True, [])
    assert look('handover = "close"\n') == (False, [])
