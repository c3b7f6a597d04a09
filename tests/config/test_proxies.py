"""Whom a server believes, and which variables it reads."""

import pytest

from chansup.config import server_variables
from chansup.config.load import load

APP = '[app]\nasgi = "mysite.asgi:application"\nenv_file = "-env"\n'
WEB = '[workers.web]\nserves = ["http"]\n'
UNIX = 'bind = "unix:web.sock"\n'
PUBLIC = 'bind = ["127.0.0.1:8000", "0.0.0.0:8001"]\n'


def warned(tmp_path, interface: str, env: str = "", environ=None, rest: str = "") -> list:
    (tmp_path / "env").write_text(env)
    path = tmp_path / "chansup.toml"
    path.write_text(f"{APP}[interface]\n{interface}{rest}")
    return [(found.key, found.message) for found in load(path, environ or {}).warnings]


@pytest.mark.parametrize(
    ("interface", "env", "key", "words"),
    [
        (UNIX, "", "interface.bind", 'forwarded_allow_ips = "unix:"'),
        (UNIX, "FORWARDED_ALLOW_IPS=10.0.0.1", "app.env_file", "no address"),
        (UNIX, "FORWARDED_ALLOW_IPS=*", "app.env_file", 'write "unix:"'),
        (
            UNIX + 'environment = { FORWARDED_ALLOW_IPS = "*" }\n',
            "",
            "interface.environment.FORWARDED_ALLOW_IPS",
            'write "unix:"',
        ),
        (
            UNIX + 'options = { forwarded_allow_ips = ["*"] }\n',
            "FORWARDED_ALLOW_IPS=10.0.0.1",
            "interface.options.forwarded_allow_ips",
            "leftmost",
        ),
        ('options = { forwarded_allow_ips = "*" }\n', "",
         "interface.options.forwarded_allow_ips", "write 127.0.0.1"),
        (PUBLIC + 'options = { forwarded_allow_ips = "*" }\n', "",
         "interface.options.forwarded_allow_ips", "0.0.0.0:8001 is open to other machines"),
        (PUBLIC + 'server = "daphne"\noptions = { proxy_headers = true }\n', "",
         "interface.options.proxy_headers", "whoever writes X-Forwarded-For"),
        (PUBLIC + 'server = "gunicorn"\n', "FORWARDED_ALLOW_IPS=*",
         "app.env_file", "came by https"),
        ("", "UVICORN_WS_MAX_SIZE=7", "app.env_file", "write its options into [interface.options]"),
        ("", "WEB_CONCURRENCY=7", "app.env_file", "write [interface] processes"),
        ('server = "granian"\n', "GRANIAN_WORKERS=7", "app.env_file", '"GRANIAN_WORKERS"'),
        ('server = "hypercorn"\n', "FORWARDED_ALLOW_IPS=*", "app.env_file", "wrap the app"),
        ('server = "gunicorn"\nenvironment = { GUNICORN_CMD_ARGS = "-w 3" }\n', "",
         "interface.environment.GUNICORN_CMD_ARGS", "no effect on gunicorn"),
    ],
)  # fmt: skip
def test_what_is_warned_of(tmp_path, interface, env, key, words):
    ((found, message),) = warned(tmp_path, interface, env)
    assert found == key
    assert words in message


@pytest.mark.parametrize(
    ("interface", "env"),
    [
        ("", ""),
        (UNIX + 'options = { forwarded_allow_ips = "unix:" }\n', ""),
        (UNIX, "FORWARDED_ALLOW_IPS=unix:,10.0.0.0/8"),
        (UNIX + "options = { proxy_headers = false }\n", ""),
        (UNIX + 'server = "granian"\n', ""),
        (PUBLIC + 'options = { forwarded_allow_ips = "10.0.0.7" }\n', ""),
        ('server = "daphne"\noptions = { proxy_headers = true }\n', ""),
        ('processes = "${WEB_CONCURRENCY:-2}"\n', "WEB_CONCURRENCY=7"),
    ],
)
def test_what_is_fine(tmp_path, interface, env):
    assert warned(tmp_path, interface, env) == []


def test_a_variable_of_the_app_s_threads_under_daphne(tmp_path):
    assert warned(tmp_path, 'server = "daphne"\n', "ASGI_THREADS=3") == []
    ((key, message),) = warned(tmp_path, 'server = "daphne"\n', "ASGI_THREADS=3", rest=WEB)
    assert key == "interface.server"
    assert "app workers run the app" in message


def test_what_a_server_of_relay_mode_gets():
    environment = {"FORWARDED_ALLOW_IPS": "unix:", "SECRET_KEY": "x"}
    passed_on = server_variables.passed_on
    assert passed_on("uvicorn", environment) == {"FORWARDED_ALLOW_IPS": "unix:"}
    assert passed_on("granian", environment) == {}
