"""What `chansup init` says of packages whose WebSockets have a session of their own."""

from pathlib import Path

import pytest

from chansup.config.load import load
from chansup.config.session_packages import PACKAGES
from chansup.project import discover, notes, render

pytestmark = pytest.mark.slow  # the interpreter makes no difference

APP = "import fastapi\napp = fastapi.FastAPI()\n"


def project(directory: Path, **files: str) -> tuple[str, str, str]:
    """Return the app that is found, the file that is written and the notes."""
    for name, text in files.items():
        (directory / f"{name}.py").write_text(text)
    found = discover(directory)
    text = render(found)
    (directory / "chansup.toml").write_text(text)
    assert load(directory / "chansup.toml", {}).warnings == []
    return str(found.asgi), text, "\n".join(notes(found))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (
            "import socketio\nsio = socketio.AsyncServer()\napp = socketio.ASGIApp(sio)\n",
            "Socket.IO",
        ),
        ("from strawberry.fastapi import GraphQLRouter\n# subscription\n" + APP, "Strawberry"),
        ("from ariadne import SubscriptionType\n" + APP, "Ariadne"),
        ("from nicegui import ui\n" + APP, "NiceGUI"),
        ("from ocpp.v16 import ChargePoint\n" + APP, "OCPP"),
        ("import autobahn.asyncio.wamp\n" + APP, "WAMP"),
        ("import channels_graphql_ws\n" + APP, "GraphQL"),
    ],
)
def test_protocols_that_are_recognised_are_left_to_chansup(
    tmp_path: Path, source: str, name: str
) -> None:
    _, text, said = project(tmp_path, main=source)
    assert "[workers.web]" in text and "handover =" not in text
    assert name in text and name in said and "1012" in said


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from reactpy.backend.fastapi import configure\n" + APP, "ReactPy"),
        ("from pycrdt.websocket import WebsocketServer\n" + APP, "pycrdt"),
        ("from fastapi_websocket_rpc import RpcMethodsBase\n" + APP, "fastapi_websocket_rpc"),
        ("INSTALLED_APPS = ['reactpy_django']\n" + APP, "ReactPy"),
    ],
)
def test_what_cannot_be_recognised_is_closed_by_the_file(
    tmp_path: Path, source: str, name: str
) -> None:
    _, text, said = project(tmp_path, main=source)
    assert 'handover = "close"' in text
    assert name in text and name in said


@pytest.mark.parametrize(
    "source",
    [
        "import strawberry\n" + APP,  # without subscriptions
        "import websockets, json\n" + APP,
        "from . import ocpp\n" + APP,
        "from autobahn.websocket import protocol\n" + APP,
    ],
)
def test_others_are_not_named(tmp_path: Path, source: str) -> None:
    _, text, said = project(tmp_path, main=source)
    assert "1012" not in text + said


def test_a_module_of_the_project_is_no_package(tmp_path: Path) -> None:
    _, text, _ = project(tmp_path, main="import flet\n" + APP, flet="")
    assert "handover" not in text


def test_the_app_around_another_one_is_taken(tmp_path: Path) -> None:
    source = APP + "import socketio\nsio = 1\nouter = socketio.ASGIApp(sio, other_asgi_app=app)\n"
    assert project(tmp_path, main=source)[0] == "main:outer"


def test_a_mounted_one_is_not(tmp_path: Path) -> None:
    source = (
        APP + "import socketio\nsio = 1\ninner = socketio.ASGIApp(sio)\napp.mount('/s', inner)\n"
    )
    assert project(tmp_path, main=source)[0] == "main:app"


def test_each_module_is_named_once() -> None:
    modules = [package.module for package in PACKAGES]
    assert len(modules) == len(set(modules))
