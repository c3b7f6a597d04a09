"""What a reload refuses to bring: a Django app whose pages would all be errors."""

from pathlib import Path

import httpx
import pytest

from tests.launch import django_project
from tests.running import Running, running
from tests.system.conftest import DIRECT

pytestmark = pytest.mark.slow  # the interpreter makes no difference

CONFIG = """
[app]
asgi = "shop.asgi:application"
environment = { DJANGO_SETTINGS_MODULE = "shop.settings" }

[interface]
bind = "127.0.0.1:0"

[admin]
bind = "127.0.0.1:0"

[rollout]
settle = 0.05
drain_spread = 0.2
stop_timeout = 6
"""
APP_WORKERS = '[workers.web]\nserves = ["http"]\n'
HOST = {"Host": "shop.example"}


def reload(run: Running, code: int) -> str:
    done = run.command("reload", timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("pools", ["", APP_WORKERS], ids=["direct", "relay"])
def test_urls_that_do_not_import_never_take_over(tmp_path: Path, pools: str) -> None:
    site = django_project.write(tmp_path / "site")
    with running(site, CONFIG + pools) as run:
        run.wait_until_ready()
        assert httpx.get(run.url, headers=HOST).status_code == 200
        django_project.write(site, urls="from shop import viws\n")
        said = reload(run, 1)
        assert 'importing ROOT_URLCONF "shop.urls" failed in shop/urls.py, line 1' in said
        assert "cannot import name 'viws'" in said
        assert httpx.get(run.url, headers=HOST).status_code == 200
        django_project.write(site)
        reload(run, 0)


WARM = 'ready = "http:/"'
READY = {
    "direct": CONFIG.replace("[interface]", f"[interface]\n{WARM}"),
    "relay": f"{CONFIG}{APP_WORKERS}{WARM}\n",
}


@pytest.mark.parametrize("mode", READY)
def test_a_page_that_fails_never_takes_over(tmp_path: Path, mode: str) -> None:
    site = django_project.write(tmp_path / "site")
    with running(site, READY[mode]) as run:
        run.wait_until_ready()
        assert httpx.get(run.url, headers=HOST).status_code == 200
        # It compiles, and no check can see it.
        django_project.write(site, views=django_project.VIEWS.replace("get_host", "get_hots"))
        said = reload(run, 1)
        assert 'GET / (Host "shop.example") was answered 500' in said
        assert httpx.get(run.url, headers=HOST).status_code == 200
        assert run.command("status").returncode == 0


@pytest.mark.parametrize(
    "server", ['server = "daphne"', '[interface.options]\nlifespan = "off"'], ids=["daphne", "off"]
)
def test_workers_are_greeted_where_the_server_runs_no_lifespan(site: Path, server: str) -> None:
    direct = DIRECT.replace("processes = 2", server)
    with running(site, direct + APP_WORKERS) as run:
        run.wait_until_ready()
        done = run.command("reload", timeout=20)
        assert done.returncode == 0, done.stdout
