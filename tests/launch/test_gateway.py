"""An app that speaks the other gateway than the config says is refused, and no other app is."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chansup.launch import application

from .harness import Supervisor
from .test_boot import probe

pytestmark = pytest.mark.slow  # the interpreter makes no difference


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


class Flask:  # and Pyramid, Bottle, WhiteNoise; by its signature
    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return []

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None: ...


class Quart:  # and Starlette, FastAPI, Litestar, Channels' ProtocolTypeRouter
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def wsgi(self, environ: Any, start_response: Any) -> list[bytes]:
        return []


class WsgiByInstance:  # a class that is a WSGI app itself
    def __init__(self, environ: Any, start_response: Any) -> None: ...


class Asgi2:
    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


def asgi_2(scope: Any) -> Callable[..., Any]:
    return asgi


def returns_awaitable(scope: Any, receive: Any, send: Any) -> Any:
    return asgi(scope, receive, send)


@functools.wraps(wsgi)
def adapted(*arguments: Any) -> Any:
    """Do what an adapter does: it takes other arguments than what it wraps."""


class Proxy:
    def __call__(self, *arguments: Any, **named: Any) -> Any: ...


def optional(scope: Any, more: Any = None) -> Any: ...


async def neither(receive: Any, send: Any) -> None: ...


@pytest.mark.parametrize(
    ("app", "gateway"),
    [
        (asgi, "asgi"),
        (Quart(), "asgi"),
        (Flask().asgi, "asgi"),
        (functools.partial(asgi), "asgi"),
        (returns_awaitable, "asgi"),
        (wsgi, "wsgi"),
        (Flask(), "wsgi"),
        (Quart().wsgi, "wsgi"),
        (functools.partial(wsgi), "wsgi"),
        (lambda environ, start_response: [], "wsgi"),
        (Asgi2, None),
        (asgi_2, None),
        (WsgiByInstance, None),
        (adapted, None),
        (Proxy(), None),
        (optional, None),
        (neither, None),
        (dict.update, None),
        (print, None),
    ],
)
def test_what_an_app_speaks(app: Any, gateway: str | None) -> None:
    assert application.gateway_of(app) == gateway


def test_what_frameworks_speak() -> None:
    from a2wsgi import ASGIMiddleware, WSGIMiddleware
    from asgiref.compatibility import guarantee_single_callable
    from asgiref.wsgi import WsgiToAsgi
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.wsgi import WSGIHandler

    for spoken, apps in {
        "asgi": [
            Quart(),
            ASGIHandler.__new__(ASGIHandler),
            WsgiToAsgi(wsgi),
            WSGIMiddleware(wsgi),
            guarantee_single_callable(asgi),
            guarantee_single_callable(Asgi2),
        ],
        "wsgi": [WSGIHandler.__new__(WSGIHandler), ASGIMiddleware(asgi)],
    }.items():
        for app in apps:
            assert application.gateway_of(app) == spoken, app


def test_consumers_of_channels() -> None:
    pytest.importorskip("channels")
    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels.routing import ProtocolTypeRouter, URLRouter

    as_asgi = AsyncWebsocketConsumer.as_asgi()
    for app in (as_asgi, ProtocolTypeRouter({}), URLRouter([])):
        assert application.gateway_of(app) != "wsgi", app


@pytest.mark.parametrize(
    ("gateway", "name", "message"),
    [
        ("asgi", "wsgi", 'is a WSGI application: write wsgi = "mysite:wsgi" in place of asgi'),
        ("wsgi", "asgi", 'is an ASGI application: write asgi = "mysite:asgi" in place of wsgi'),
    ],
)
def test_the_other_gateway_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gateway: str, name: str, message: str
) -> None:
    source = "async def asgi(scope, receive, send): ...\ndef wsgi(environ, start_response): ...\n"
    (tmp_path / "mysite.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mysite", raising=False)
    with pytest.raises(application.ApplicationError) as caught:
        application.load(f"mysite:{name}", gateway)
    assert str(caught.value) == f'"mysite:{name}" {message}'
    assert application.load(f"mysite:{gateway}", gateway) is sys.modules["mysite"].__dict__[gateway]
    found = probe(gateway=gateway, application=f"mysite:{name}", directory=str(tmp_path))
    assert found["problems"][0]["key"] == f"app.{gateway}"
    assert message in found["problems"][0]["message"]


def test_a_launcher_refuses_it(supervisor: Supervisor, tmp_path: Path) -> None:
    (tmp_path / "backwards.py").write_text("def app(environ, start_response): ...\n")
    process = supervisor.start("uvicorn", application="backwards:app", directory=tmp_path)
    assert process.wait_exit() == 1
    assert "is a WSGI application" in process.output()
