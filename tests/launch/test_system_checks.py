"""A Django app proves that its URLs import and its checks pass before it counts as ready."""

import os
from pathlib import Path
from typing import Any

import pytest

from . import client, django_project
from .harness import Supervisor
from .test_boot import probe

pytestmark = pytest.mark.slow  # the interpreter makes no difference

BROKEN_VIEWS = "from django.http import HttpResponse\n\ndef index(request)\n    return 1\n"
MISSING_IMPORT = "from django.http import HttpResponze\n"
FAILING_CHECK = """
from django.core import checks
from django.urls import path
@checks.register()
def look(app_configs, **kwargs):
    return [
        checks.Error("the till is empty", hint="fill it", id="shop.E001"),
        checks.Error("nobody is silent", id="shop.E002"),
        checks.Warning("the lamp is old", id="shop.W001"),
    ]
urlpatterns = []
"""
SILENCED = django_project.SETTINGS + 'SILENCED_SYSTEM_CHECKS = ["shop.E001", "shop.E002"]\n'


def start(supervisor: Supervisor, directory: Path, server: str = "uvicorn", **keywords: Any) -> Any:
    gateway = keywords.get("gateway", "asgi")
    return supervisor.start(
        server,
        application=f"shop.{gateway}:application",
        directory=directory,
        environment=django_project.ENVIRONMENT,
        **keywords,
    )


@pytest.mark.parametrize(
    ("server", "gateway"),
    [
        ("uvicorn", "asgi"),
        ("uvicorn", "wsgi"),
        ("granian", "asgi"),
        ("granian", "wsgi"),
        ("hypercorn", "asgi"),
        ("daphne", "asgi"),
        ("gunicorn", "asgi"),
        ("gunicorn", "wsgi"),
    ],
)
def test_views_that_do_not_compile_are_a_failed_boot(
    supervisor: Supervisor, tmp_path: Path, server: str, gateway: str
) -> None:
    directory = django_project.write(tmp_path, views=BROKEN_VIEWS)
    process = start(supervisor, directory, server, gateway=gateway)
    assert process.wait_exit() == 1
    output = process.output()
    assert 'importing ROOT_URLCONF "shop.urls" failed in shop/views.py, line 3' in output
    assert "SyntaxError" in output
    assert "chansup/launch" not in output


def test_a_project_that_is_fine_serves(supervisor: Supervisor, tmp_path: Path) -> None:
    process = start(supervisor, django_project.write(tmp_path)).wait_ready()
    answer = client.get(process.address, "/", Host="shop.example")
    assert (answer.status, answer.body) == (200, b"shop.example")


def test_errors_of_the_check_framework_fail_and_are_listed(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    process = start(supervisor, django_project.write(tmp_path, urls=FAILING_CHECK))
    assert process.wait_exit() == 1
    output = process.output()
    assert "Django's system checks found 2 errors: ?: (shop.E001) the till is empty" in output
    assert "HINT: fill it" in output
    assert "shop.W001" not in output


def test_what_the_project_silences_or_only_warns_of_does_not_fail(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    directory = django_project.write(tmp_path, urls=FAILING_CHECK, settings=SILENCED)
    start(supervisor, directory).wait_ready()


def test_the_checks_can_be_turned_off(supervisor: Supervisor, tmp_path: Path) -> None:
    directory = django_project.write(tmp_path, views=BROKEN_VIEWS)
    start(supervisor, directory, system_checks=False).wait_ready()


def ask(directory: Path, monkeypatch: pytest.MonkeyPatch, **question: Any) -> dict[str, Any]:
    for name, value in django_project.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return probe(
        application="shop.asgi:application",
        directory=os.path.realpath(directory),
        **{"system_checks": True, "protocols": ["http"], **question},
    )


def test_the_probe_runs_the_checks_and_counts_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = django_project.write(tmp_path, urls=FAILING_CHECK)
    (found,) = ask(directory, monkeypatch)["problems"]
    assert found["key"] == "app.asgi"
    assert "(shop.E001) the till is empty" in found["message"]
    django_project.write(tmp_path, urls=FAILING_CHECK, settings=SILENCED)
    answer = ask(directory, monkeypatch)
    assert answer["problems"] == []
    assert "Django's system checks have a warning: python manage.py check" in answer["notes"]
    django_project.write(tmp_path, views=MISSING_IMPORT)
    (found,) = ask(directory, monkeypatch)["problems"]
    assert (
        "shop/views.py, line 1: ImportError: cannot import name 'HttpResponze'"
        in (found["message"])
    )


@pytest.mark.parametrize(
    ("modules", "remedy"),
    [
        (
            {"asgi": "from django.contrib.contenttypes.models import ContentType\n"},
            "Call get_asgi_application() (in wsgi.py",
        ),
        (
            {"apps": "from django.contrib.contenttypes.models import ContentType\n"},
            "Import them in AppConfig.ready()",
        ),
    ],
)
def test_an_import_before_the_apps_are_loaded_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules: dict[str, str], remedy: str
) -> None:
    directory = django_project.write(tmp_path, **modules)
    found = ask(directory, monkeypatch)["problems"][0]
    assert "AppRegistryNotReady" in found["message"]
    assert f"shop/{next(iter(modules))}.py, line" in found["message"]
    assert remedy in found["message"]


def test_settings_that_are_not_known_name_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = django_project.write(tmp_path)
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    found = probe(application="shop.asgi:application", directory=str(directory))["problems"][0]
    assert "Set DJANGO_SETTINGS_MODULE in [app] environment" in found["message"]


ROUTERS = """
from django.core.asgi import get_asgi_application
django_application = get_asgi_application()
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from channels.sessions import CookieMiddleware
from django.urls import path, re_path
class Chat(AsyncWebsocketConsumer): ...
class News(WebsocketConsumer): ...
application = ProtocolTypeRouter({
    "websocket": OriginValidator(CookieMiddleware(URLRouter([
        path("chat/", Chat),
        re_path("^news/$", News),
        path("fine/", Chat.as_asgi()),
    ])), ["*"]),
    "channel": ChannelNameRouter({"mail": News, "post": News.as_asgi()}),
})
"""


def test_routers_that_lead_to_classes_or_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = ask(
        django_project.write(tmp_path, asgi=ROUTERS),
        monkeypatch,
        protocols=["http", "websocket"],
    )
    said = [found["message"] for found in answer["problems"]]
    assert [message.partition(",")[0] for message in said] == [
        'the route "^news/$" leads to the class News',
        'the route "chat/" leads to the class Chat',
        'the route "mail" leads to the class News',
    ]
    assert said[1].endswith("write Chat.as_asgi()")
    (warning,) = answer["warnings"]
    assert 'ProtocolTypeRouter has no "http"' in warning["message"]
    assert '"http": get_asgi_application()' in warning["message"]
