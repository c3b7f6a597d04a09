"""Whose address the app sees behind a proxy: never the one that a client made up."""

import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.running import running, wait_for

pytestmark = [
    pytest.mark.slow,  # the interpreter makes no difference
    pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx"),
]

SITE = Path(__file__).parents[2] / "contrib/nginx/site.conf"
APP = """
async def app(scope, receive, send):
    body = f"{scope['client'] and scope['client'][0]} {scope['scheme']}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""
CONFIG = """
[app]
asgi = "site_app:app"
env_file = "-env"

[interface]
bind = "unix:run/web.sock"
"""
WEB = '[workers.web]\nserves = ["http"]\n'
IN_FILE = '[interface.options]\nforwarded_allow_ips = "unix:"\n'
FORGED = {"X-Forwarded-For": "203.0.113.66, 127.0.0.1", "X-Forwarded-Proto": "gopher"}


@pytest.fixture
def site() -> Iterator[Path]:
    # Not tmp_path: nginx and sun_path want it short.
    with tempfile.TemporaryDirectory(prefix="chansup-", dir="/tmp") as directory:
        path = Path(directory)
        (path / "run").mkdir()
        (path / "site_app.py").write_text(APP)
        yield path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def nginx(site: Path, change: dict[str, str]) -> Iterator[str]:
    """Run nginx with the documented site, without TLS, in front of the site's socket."""
    port = free_port()
    head, _redirects, site_itself = SITE.read_text().split("\nserver {")
    text = re.sub(r"(?m)^ *(listen \[::\]|ssl_).*\n", "", f"{head}\nserver {{{site_itself}")
    text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
    text = text.replace("/srv/mysite", str(site))
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    paths = "".join(
        f"{name}_temp_path {site}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = site / "nginx.conf"
    config.write_text(
        f"user root;\ndaemon off;\npid {site}/nginx.pid;\nerror_log {site}/nginx.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}{text}}}\n"
    )
    process = subprocess.Popen(["nginx", "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: (site / "nginx.pid").exists() and (site / "nginx.pid").read_text())
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("pools", ["", WEB], ids=["direct", "relay"])
@pytest.mark.parametrize("env", [None, "FORWARDED_ALLOW_IPS=unix:\n"], ids=["option", "env_file"])
def test_the_documented_nginx_tells_the_truth(site: Path, pools: str, env: str | None) -> None:
    (site / "env").write_text(env or "")
    with running(site, CONFIG + ("" if env else IN_FILE) + pools) as run:
        run.wait_until_ready()
        assert "proxy" not in run.command("check").stdout
        with nginx(site, {}) as url:
            assert httpx.get(url, headers=FORGED).text == "127.0.0.1 http"
            # Even a proxy that only adds makes nobody else of the client.
        change = {"X-Forwarded-For $remote_addr": "X-Forwarded-For $proxy_add_x_forwarded_for"}
        with nginx(site, change) as url:
            assert httpx.get(url, headers=FORGED).text == "127.0.0.1 http"


def test_a_change_of_the_variable_reaches_the_interface(site: Path) -> None:
    with running(site, CONFIG + WEB) as run:
        run.wait_until_ready()
        transport = httpx.HTTPTransport(uds=str(site / "run/web.sock"))
        with httpx.Client(transport=transport) as client:
            headers = {"X-Forwarded-Proto": "https", "Connection": "close"}
            assert client.get("http://x/", headers=headers).text == "None http"
            (site / "env").write_text("FORWARDED_ALLOW_IPS=unix:\n")
            assert run.command("reload").returncode == 0
            assert client.get("http://x/", headers=headers).text == "None https"
