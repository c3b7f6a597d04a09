"""A page of a Django project that fails leaves its traceback in the log, once."""

from pathlib import Path

import pytest

from . import client, django_project
from .harness import Supervisor
from .test_system_checks import start

FAILS = "def index(request):\n    return 1 / zero\nzero = 0\n"
OWN = django_project.SETTINGS + (
    "LOGGING = {'version': 1, 'handlers': {'own': {'class': 'logging.StreamHandler',"
    " 'formatter': 'own'}}, 'formatters': {'own': {'format': 'OWN %(message)s'}},"
    " 'loggers': {'django': {'handlers': ['own'], 'level': 'ERROR'}}}\n"
)
MAILED = django_project.SETTINGS + (
    "ADMINS = [('Ann', 'ann@example.org')]\n"
    "EMAIL_BACKEND = 'django.core.mail.backends.console.EmailBackend'\n"
)


@pytest.mark.parametrize(("server", "gateway"), [("uvicorn", "asgi"), ("gunicorn", "wsgi")])
@pytest.mark.parametrize(
    ("settings", "begins"),
    [
        (django_project.SETTINGS, "ERROR django.request: Internal Server Error: /"),
        (OWN, "OWN Internal Server Error: /"),
        (django_project.SETTINGS + "DEBUG = True\n", "Internal Server Error: /"),
    ],
    ids=["default", "own", "debug"],
)
def test_a_failed_page_is_in_the_log(
    supervisor: Supervisor, tmp_path: Path, server: str, gateway: str, settings: str, begins: str
) -> None:
    directory = django_project.write(tmp_path, views=FAILS, settings=settings)
    process = start(supervisor, directory, server, gateway=gateway).wait_ready()
    assert client.get(process.address, "/", Host="shop.example").status == 500
    process.terminate()
    process.wait_exit()
    output = process.output()
    assert f"{begins}\n" in output
    assert output.count("ZeroDivisionError: division by zero") == 1


def test_a_project_that_mails_its_errors_is_left_alone(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    directory = django_project.write(tmp_path, views=FAILS, settings=MAILED)
    process = start(supervisor, directory).wait_ready()
    assert client.get(process.address, "/", Host="shop.example").status == 500
    process.terminate()
    process.wait_exit()
    assert "To: ann@example.org" in process.output()
    assert "ERROR django.request" not in process.output()
