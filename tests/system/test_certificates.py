"""A certificate that was renewed on disk is served after a reload, and nobody in between is cut."""

import http.client
import ssl
from pathlib import Path

import pytest

from tests.certificates import certify
from tests.running import Running, running

SITE = """
[app]
asgi = "site_app:app"

[interface]
bind = "127.0.0.1:0"
server = "{server}"
processes = {processes}

[interface.options]
{options}

{workers}

[rollout]
settle = 0.05
drain_spread = 0.2
keep_alive = 0.3
stop_timeout = 10
"""
WORKERS = '[workers.web]\nserves = ["http", "websocket"]\n'
TLS = {
    "uvicorn": 'ssl_certfile = "cert.pem"\nssl_keyfile = "key.pem"',
    "hypercorn": 'certfile = "cert.pem"\nkeyfile = "key.pem"',
    "granian": 'ssl_cert = "cert.pem"\nssl_key = "key.pem"',
    "daphne": 'certKey = "cert.pem"\nprivateKey = "key.pem"',
}


def served(run: Running) -> str:
    host, _, port = run.address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)), timeout=30)


def config(server: str, workers: str = WORKERS, processes: int = 1) -> str:
    options = TLS[server]
    return SITE.format(server=server, options=options, workers=workers, processes=processes)


@pytest.mark.parametrize("server", TLS)
def test_a_renewed_certificate_is_served_after_a_reload(server: str, site: Path) -> None:
    pytest.importorskip(server)
    certify(site)
    with running(site, config(server)) as run:
        run.wait_until_ready()
        former = (site / "cert.pem").read_text()
        assert served(run) == former
        (interface,) = run.pids("interface")
        assert run.command("reload", timeout=60).returncode == 0
        assert run.pids("interface") == [interface]  # nothing changed: it stays
        certify(site)
        done = run.command("reload", timeout=60)
        assert done.returncode == 0, done.stderr
        assert served(run) == (site / "cert.pem").read_text() != former
        run.wait_for_output("cert.pem and ")
        assert run.pids("interface") != [interface]


@pytest.mark.parametrize("workers", ["", WORKERS], ids=["direct", "relay"])
def test_requests_under_way_are_finished_by_the_old_certificate(workers: str, site: Path) -> None:
    certify(site)
    with running(site, config("uvicorn", workers, processes=2)) as run:
        run.wait_until_ready()
        host, _, port = run.address.rpartition(":")
        context = ssl.create_default_context(cafile=site / "cert.pem")
        client = http.client.HTTPSConnection(host, int(port), context=context, timeout=30)
        client.request("GET", "/slow?3")
        run.wait_for(lambda: sum(slot["requests_in_progress"] for slot in run.slots().values()))
        certify(site)
        done = run.command("reload", timeout=60)
        assert done.returncode == 0, done.stderr
        answer = client.getresponse()
        assert answer.status == 200 and answer.read().startswith(b"1 ")
        assert served(run) == (site / "cert.pem").read_text()


def test_a_file_that_is_missing_fails_a_reload_before_anything_is_touched(site: Path) -> None:
    certify(site)
    with running(site, config("uvicorn")) as run:
        run.wait_until_ready()
        pids = run.pids("interface") + run.pids("web")
        former = (site / "cert.pem").read_text()
        (site / "key.pem").rename(site / "key.old")
        done = run.command("reload", timeout=60)
        assert done.returncode == 1
        assert f'interface.options.ssl_keyfile: "{site}/key.pem" does not exist' in done.stderr
        certify(site)
        (site / "key.pem").write_bytes((site / "key.old").read_bytes())  # of another certificate
        done = run.command("reload", timeout=60)
        assert done.returncode == 1, done.stdout
        assert served(run) == former
        assert {slot["generation"] for slot in run.slots().values()} == {1}
        assert run.pids("interface") + run.pids("web") == pids
