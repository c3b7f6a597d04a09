"""A process is ready when its app has answered the page that `ready` names, and not before."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from chansup.launch import warm_up
from chansup.protocol.launch import ReadyRequest

from . import client, django_project
from .harness import Process, Supervisor, eventually

pytestmark = pytest.mark.slow  # the interpreter makes no difference

ASGI = ("uvicorn", "granian", "hypercorn", "daphne", "gunicorn")
NATIVE_WSGI = [("granian", {}), ("gunicorn", {}), ("gunicorn", {"worker_class": "sync"})]
HEALTH = ReadyRequest("", "/health", 10.0)


def start(
    supervisor: Supervisor, server: str, environment: dict[str, str], **keywords: Any
) -> Process:
    return supervisor.start(
        server,
        application=keywords.pop("application", "ready_app:application"),
        environment=environment,
        ready_request=keywords.pop("ready_request", HEALTH),
        **keywords,
    )


def was_ready(process: Process) -> bool:
    return any("READY" in fields for _, fields in process.notifications.seen)


@pytest.mark.parametrize("lifespan", [{}, {"WITHOUT_LIFESPAN": "1"}], ids=["lifespan", "without"])
@pytest.mark.parametrize("server", ASGI)
def test_the_app_is_asked_before_it_is_ready(
    supervisor: Supervisor, server: str, lifespan: dict[str, str]
) -> None:
    # The app itself wants more time, twice.
    process = start(supervisor, server, {"STATUSES": "503 429 302", **lifespan}).wait_ready()
    eventually(lambda: process.output().count("health answers") == 3)
    told = client.get(process.address).body.decode().split(";")
    assert len(told) == 3
    assert told[0].startswith("https://localhost")
    if server != "daphne" and not lifespan:
        assert "'pool': 'open'" in told[0]
    eventually(lambda: process.requests("GET", 200) == 1)  # the questions are not counted
    process.terminate()
    assert process.wait_exit() == 0, process.output()


@pytest.mark.parametrize("lifespan", [{}, {"WITHOUT_LIFESPAN": "1"}], ids=["lifespan", "without"])
@pytest.mark.parametrize("server", ASGI)
def test_an_answer_that_is_an_error_is_a_failed_boot(
    supervisor: Supervisor, server: str, lifespan: dict[str, str]
) -> None:
    process = start(supervisor, server, {"STATUSES": "503 500", **lifespan})
    assert process.wait_exit() not in (0, -9)
    assert (
        'GET /health (Host "localhost") was answered 500: disk: full\\x1b[31m' in process.output()
    )
    assert not was_ready(process)
    if server != "daphne" and not lifespan:
        assert "lifespan shutdown" in process.output()


@pytest.mark.parametrize("server", ASGI)
def test_an_app_that_raises_shows_its_traceback(supervisor: Supervisor, server: str) -> None:
    process = start(supervisor, server, {"STATUSES": "599"})
    assert process.wait_exit() not in (0, -9)
    output = process.output()
    assert "failed in ready_app.py, line" in output
    assert "RuntimeError: the model is not there" in output
    assert "in next_status" in output
    assert "chansup/launch" not in output


@pytest.mark.parametrize(
    ("server", "options"),
    [("uvicorn", {"lifespan": "off"}), ("gunicorn", {"asgi_lifespan": "off"})],
)
def test_servers_that_are_told_to_run_no_lifespan(
    supervisor: Supervisor, server: str, options: dict[str, Any]
) -> None:
    process = start(supervisor, server, {"STATUSES": "503 200"}, options=options).wait_ready()
    eventually(lambda: process.output().count("health answers") == 2)
    process = start(supervisor, server, {"STATUSES": "500"}, options=options)
    assert process.wait_exit() not in (0, -9)
    assert "was answered 500" in process.output()
    assert not was_ready(process)


@pytest.mark.parametrize(("server", "options"), [*NATIVE_WSGI, ("uvicorn", {}), ("daphne", {})])
def test_a_wsgi_app_is_asked_too(
    supervisor: Supervisor, server: str, options: dict[str, Any]
) -> None:
    wsgi: dict[str, Any] = {"application": "ready_app:wsgi", "gateway": "wsgi", "options": options}
    process = start(supervisor, server, {"STATUSES": "503 204"}, **wsgi).wait_ready()
    assert client.get(process.address).body == b"https://localhost;https://localhost"
    process = start(supervisor, server, {"STATUSES": "404"}, **wsgi)
    assert process.wait_exit() not in (0, -9)
    assert "was answered 404" in process.output()
    assert not was_ready(process)


def test_an_app_that_does_not_answer(supervisor: Supervisor) -> None:
    brief = ReadyRequest("", "/health", 0.4)
    process = start(supervisor, "uvicorn", {"HANG": "1"}, ready_request=brief)
    assert process.wait_exit() not in (0, -9)
    assert "was not answered within 0.4 s" in process.output()
    process = start(supervisor, "uvicorn", {"STATUSES": "503"}, ready_request=brief)
    assert process.wait_exit() not in (0, -9)
    assert "was still answered 503 within 0.4 s: disk: full" in process.output()


@pytest.mark.parametrize(
    ("server", "gateway"), [("uvicorn", "asgi"), ("gunicorn", "wsgi"), ("daphne", "asgi")]
)
def test_django_is_asked_for_a_host_that_it_allows(
    supervisor: Supervisor, tmp_path: Path, server: str, gateway: str
) -> None:
    # Redirects to https would hide what is behind them.
    settings = django_project.SETTINGS + (
        'MIDDLEWARE = ["django.middleware.security.SecurityMiddleware",'
        ' "django.middleware.common.CommonMiddleware"]\nSECURE_SSL_REDIRECT = True\n'
    )
    views = django_project.VIEWS.replace(
        "    return", '    print("asked as", request.get_host(), flush=True)\n    return'
    )
    django = {
        "application": f"shop.{gateway}:application",
        "gateway": gateway,
        "directory": django_project.write(tmp_path, settings=settings, views=views),
    }
    index = ReadyRequest("", "/", 10.0)
    environment = django_project.ENVIRONMENT
    process = start(supervisor, server, environment, ready_request=index, **django).wait_ready()
    process.wait_for_output("asked as shop.example")
    foreign = ReadyRequest("other.example", "/", 10.0)
    process = start(supervisor, server, environment, ready_request=foreign, **django)
    assert process.wait_exit() not in (0, -9)
    assert (
        'GET / (Host "other.example") was answered 400. If the app does not accept that host, '
        'write ready = "http://HOST/"'
    ) in process.output()


def test_what_the_app_does_after_its_response_is_not_waited_for() -> None:
    ended = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})
        assert (await receive())["type"] == "http.disconnect"
        await asyncio.sleep(0.01)
        ended.set()

    async def ask() -> None:
        await warm_up.WarmUp(application, ReadyRequest("", "/", 5.0)).ask({})
        assert not ended.is_set()
        await asyncio.wait_for(ended.wait(), 5)

    asyncio.run(ask())


def test_an_app_that_returns_without_a_response() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        return

    with pytest.raises(warm_up.NotReadyError, match="got no response"):
        asyncio.run(warm_up.WarmUp(application, ReadyRequest("a.example", "/", 5.0)).ask({}))
