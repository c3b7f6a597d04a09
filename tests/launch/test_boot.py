"""What can be wrong before a launcher serves, and what it says then."""

import json
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chansup.protocol import scoreboard
from chansup.protocol.launch import VARIABLE
from tests.certificates import certify

from . import client, harness
from .harness import Supervisor, eventually
from .test_servers import SERVERS

UNKNOWN = {
    "uvicorn": ("ws_ping_intervall", "ws_ping_interval"),
    "granian": ("backpresure", "backpressure"),
    "hypercorn": ("keep_alive_timeut", "keep_alive_timeout"),
    "daphne": ("http_timeuot", "http_timeout"),
    "gunicorn": ("keepalve", "keepalive"),
}
RESERVED_OPTIONS = {
    "uvicorn": "workers",
    "granian": "workers",
    "hypercorn": "bind",
    "daphne": "port",
    "gunicorn": "workers",
}
WRONG_TYPE: dict[str, tuple[str, Any]] = {
    "uvicorn": ("timeout_keep_alive", "long"),
    "granian": ("http", "3"),
    "hypercorn": ("keep_alive_timeout", "long"),
    "daphne": ("ping_interval", "often"),
    "gunicorn": ("keepalive", "long"),
}
TLS: dict[str, tuple[str, str]] = {
    "uvicorn": ("ssl_certfile", "ssl_keyfile"),
    "granian": ("ssl_cert", "ssl_key"),
    "hypercorn": ("certfile", "keyfile"),
    "daphne": ("certKey", "privateKey"),
    "gunicorn": ("certfile", "keyfile"),
}


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    return str(request.param)


def test_an_app_that_does_not_import_shows_its_traceback(
    supervisor: Supervisor, server: str
) -> None:
    process = supervisor.start(server, application="broken_app:application")
    assert process.wait_exit() == 1
    output = process.output()
    assert "in fail" in output
    assert "RuntimeError: the settings are wrong" in output
    assert "importlib" not in output
    assert "chansup/launch" not in output


@pytest.mark.parametrize(
    ("application", "expected"),
    [
        ("no_such_module:application", 'no module named "no_such_module"'),
        ("site_app:nothing", 'module "site_app" has no "nothing"'),
        ("site_app:os.sep", "not an application"),
        ("site_app", 'expected "package.module:attribute"'),
    ],
)
def test_an_app_that_is_not_there(supervisor: Supervisor, application: str, expected: str) -> None:
    process = supervisor.start("uvicorn", application=application)
    assert process.wait_exit() == 1
    assert expected in process.output()
    assert "Traceback" not in process.output()


def test_wrong_options_are_refused_with_the_remedy(supervisor: Supervisor, server: str) -> None:
    unknown, nearest = UNKNOWN[server]
    wrong, value = WRONG_TYPE[server]
    options = {unknown: 1, RESERVED_OPTIONS[server]: 2, wrong: value}
    process = supervisor.start(server, options=options)
    assert process.wait_exit() == 78
    lines = process.output().splitlines()
    assert len(lines) == 3
    output = process.output()
    assert (
        f'interface.options.{unknown}: {server} has no such option; did you mean "{nearest}"?'
        in (output)
    )
    assert f"interface.options.{RESERVED_OPTIONS[server]}: chansup" in output
    assert f"interface.options.{wrong}: " in output


def test_a_failed_lifespan_is_a_failed_boot(supervisor: Supervisor, server: str) -> None:
    process = supervisor.start(server, environment={"FAIL_LIFESPAN": "1"})
    if server == "daphne":  # which has no lifespan
        process.wait_ready()
        return
    assert process.wait_exit() not in (0, -9)
    assert "the database is away" in process.output()


def test_it_does_not_start_by_hand() -> None:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    finished = subprocess.run(
        [sys.executable, "-m", "chansup.launch", "uvicorn"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    assert "chansup run" in finished.stderr


def test_tls(supervisor: Supervisor, server: str, certificate: tuple[Path, Path]) -> None:
    certificate_option, key_option = TLS[server]
    options = {certificate_option: str(certificate[0]), key_option: str(certificate[1])}
    process = supervisor.start(server, options=options).wait_ready()
    context = ssl.create_default_context(cafile=str(certificate[0]))
    connection = client.Connection(process.address, context)
    assert connection.get().status == 200
    with client.websocket(process.address, ssl=context) as websocket:
        websocket.send("over TLS")
        assert websocket.recv() == "over TLS"
    process.terminate()
    process.wait_stopping()
    assert connection.get("/-/health").status == 503
    assert process.wait_exit() == 0, process.output()


@pytest.mark.parametrize("broken", ["certificate", "key", "mismatch"])
def test_a_certificate_of_no_use_is_told_in_one_line(
    supervisor: Supervisor, server: str, broken: str, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    certificate_option, key_option = TLS[server]
    options = {certificate_option: str(certificate[0]), key_option: str(certificate[1])}
    other = tmp_path / "other.pem"
    other.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    if broken == "mismatch":
        certify(tmp_path)
        (tmp_path / "key.pem").rename(other)
    blamed = certificate_option if broken == "certificate" else key_option
    process = supervisor.start(server, options={**options, blamed: str(other)})
    assert process.wait_exit() == 1
    (line,) = process.output().splitlines()
    assert line.startswith(f'chansup: interface.options.{blamed}: "{other}" ')
    assert ("does not belong to the certificate" in line) == (broken == "mismatch")
    assert ": name the " in line


# An option that only the server itself finds to be wrong, and what it says
ONLY_THE_SERVER_KNOWS: dict[str, tuple[str, Any, str]] = {
    "uvicorn": ("log_config", "{}/broken.json", "json.decoder.JSONDecodeError: Expecting"),
    "granian": ("log_dictconfig", {"version": 7}, "ValueError: Unsupported version: 7"),
    "hypercorn": ("logconfig", "{}/broken.json", ""),
    "daphne": ("access_log", "{}/missing/log", "FileNotFoundError: "),
    "gunicorn": ("logconfig", "{}/broken.json", ""),
}


def test_what_only_the_server_finds_wrong_is_told_in_one_line(
    supervisor: Supervisor, server: str, tmp_path: Path
) -> None:
    option, value, said = ONLY_THE_SERVER_KNOWS[server]
    (tmp_path / "broken.json").write_text("no JSON\n")
    value = value.format(tmp_path) if isinstance(value, str) else value
    process = supervisor.start(server, options={option: value})
    assert process.wait_exit() == 1
    assert "Traceback" not in process.output()
    line = process.output().splitlines()[-1]
    assert line.startswith(f"chansup: {server} ")
    assert f"does not start: {said}" in line
    assert option in line


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    subject = ["-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *subject, *files], check=True, capture_output=True)
    return certificate, key


def test_several_listeners(supervisor: Supervisor, server: str) -> None:
    listeners = [supervisor.listen("tcp"), supervisor.listen("unix"), supervisor.listen("tcp")]
    process = supervisor.start(server, listeners=listeners).wait_ready()
    for _, address in listeners:
        assert client.get(address).status == 200
    process.terminate()
    assert process.wait_exit() == 0, process.output()
    assert process.requests("GET", 200) == 3


def test_root_path_leaves_the_health_path_where_it_is(supervisor: Supervisor) -> None:
    process = supervisor.start("uvicorn", options={"root_path": "/api"}).wait_ready()
    assert client.get(process.address, "/-/health").body == b"ok\n"


def test_proxy_headers_reach_the_app(supervisor: Supervisor) -> None:
    options = {"forwarded_allow_ips": "*"}
    process = supervisor.start(
        "uvicorn", application="scope_app:application", options=options
    ).wait_ready()
    plain = json.loads(client.get(process.address).body)
    assert plain["scheme"] == "http"
    headers = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    forwarded = json.loads(client.get(process.address, "/", **headers).body)
    assert forwarded["client"][0] == "203.0.113.9"
    assert forwarded["scheme"] == "https"


def test_peers_of_a_unix_socket_can_be_trusted(supervisor: Supervisor) -> None:
    def asked(trusted: str, forwarded: str) -> tuple[str | None, str]:
        process = supervisor.start(
            "uvicorn",
            "unix",
            application="scope_app:application",
            options={"forwarded_allow_ips": trusted},
        ).wait_ready()
        headers = {"X-Forwarded-Proto": "https"}
        if forwarded:
            headers["X-Forwarded-For"] = forwarded
        found = json.loads(client.get(process.address, "/", **headers).body)
        return found["client"] and found["client"][0], found["scheme"]

    # A stranger's header, to which one proxy and then another added.
    chain = "192.0.2.66, 203.0.113.9, 10.0.0.2"
    assert asked("unix:", "203.0.113.9") == ("203.0.113.9", "https")
    assert asked("unix:,10.0.0.0/8", chain) == ("203.0.113.9", "https")
    assert asked("unix:", "") == (None, "https")
    assert asked("unix:", "unix:") == (None, "https")
    assert asked("127.0.0.1", chain) == (None, "http")


def test_the_environment_of_the_app_holds_nothing_of_the_launch(supervisor: Supervisor) -> None:
    process = supervisor.start("uvicorn", application="scope_app:application").wait_ready()
    environment = json.loads(client.get(process.address).body)["environment"]
    assert VARIABLE not in environment
    assert "LISTEN_FDS" not in environment
    assert "LISTEN_FDNAMES" not in environment


def test_a_request_limit_ends_in_a_drain(supervisor: Supervisor) -> None:
    process = supervisor.start("uvicorn", options={"limit_max_requests": 2}).wait_ready()
    for _ in range(2):
        assert client.get(process.address).status == 200
    process.wait_stopping()
    assert process.wait_exit() == 0, process.output()
    eventually(lambda: process.board.cells[scoreboard.BEATS] > 0)


def probe(**question: Any) -> dict[str, Any]:
    asked = {
        "server": "uvicorn",
        "gateway": "asgi",
        "application": "site_app:application",
        "options": {},
        "directory": str(harness.APPS),
        **question,
    }
    finished = subprocess.run(
        [sys.executable, "-m", "chansup.launch.probe"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def test_the_probe_finds_nothing_wrong(server: str) -> None:
    found = probe(server=server)
    assert found["problems"] == []
    assert any(note.startswith(f"{server} ") for note in found["notes"])


def test_the_probe_looks_at_the_options_of_the_channel_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("channels_redis")
    place = {"backend": "redis://127.0.0.1:1/0", "options": {"capasity": 3}}
    monkeypatch.setenv("CHANSUP_CHANNEL_LAYER", json.dumps(place))
    (found,) = probe(server="uvicorn")["problems"]
    assert found["key"] == "channel_layer.options"
    assert "'capasity': did you mean 'capacity'" in found["message"]


def test_the_probe_finds_everything_wrong_at_once(server: str) -> None:
    unknown, _ = UNKNOWN[server]
    found = probe(server=server, options={unknown: 1}, application="broken_app:application")
    options, app = found["problems"]
    assert options["key"] == f"interface.options.{unknown}"
    assert app["key"] == "app.asgi"
    assert app["message"].endswith("RuntimeError: the settings are wrong")
    assert "in fail" in app["traceback"]
