"""Which pool gets what: by type, path and host, with an app, an interpreter and a gateway each."""

import asyncio
import sys
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests import fetch
from tests.relay.stage import HERE, Stage, stage
from tests.relay.talk import dial

SMALL = "processes = 1\nstop_timeout = 5"
POOLS = f"""
[workers.api]
serves = ["http:/api/*", "http:/exact/pid"]
{SMALL}

[workers.hosts]
serves = ["http:example.org/*", "websocket:*.example.org/*"]
{SMALL}

[workers.pages]
serves = ["http:/pages/*"]
wsgi = "witness_wsgi:app"
threads = 3
{SMALL}

[workers.other]
serves = ["http:/other/*"]
asgi = "other:app"
python = "{{python}}"
{SMALL}
"""
OTHER = """
import os, sys

async def app(scope, receive, send):
    if scope["type"] == "http":
        body = f"other {sys.prefix}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
"""


@contextmanager
def several_pools(directory: Path) -> Iterator[Stage]:
    release = directory / "release"
    release.mkdir()
    for name in ("witness.py", "witness_wsgi.py"):
        (release / name).symlink_to(HERE / name)
    (release / "other.py").write_text(OTHER)
    environment = directory / "environment"
    venv.create(environment, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    paths = [path for path in sys.path if path.endswith("site-packages")]
    here = Path(__file__).parents[2]  # chansup itself
    (packages / "parents.pth").write_text("\n".join([str(here), *paths]))
    pools = POOLS.format(python=environment / "bin/python")
    with stage(directory, home=release, more=pools) as running:
        yield running


def pool_of(site: Stage, path: str, host: str | None = None) -> str:
    headers = {"host": host} if host else {}
    return fetch.get(site.url + path, headers=headers).text.split()[0].split(".")[0]


def test_each_pool_gets_what_it_serves(tmp_path: Path) -> None:
    with several_pools(tmp_path) as site:
        the_most_specific_route_counts(site)
        websockets_go_by_host(site)
        a_pool_has_its_own_app_and_interpreter(site)
        a_wsgi_app_runs_in_threads(site)


def the_most_specific_route_counts(site: Stage) -> None:
    assert pool_of(site, "/pid") == "web"
    assert pool_of(site, "/api/x/y") == "api"
    assert pool_of(site, "/api/") == "api"
    assert pool_of(site, "/api") == "web"
    assert pool_of(site, "/exact/pid") == "api"
    assert pool_of(site, "/exact/pid/") == "web"
    assert pool_of(site, "/pid", "example.org") == "hosts"
    assert pool_of(site, "/pid", "example.org:8000") == "hosts"
    assert pool_of(site, "/pid", "EXAMPLE.org") == "hosts"
    assert pool_of(site, "/pid", "www.example.org") == "web"  # of its WebSockets only
    assert pool_of(site, "/api/x", "example.org") == "hosts"  # the host comes first


def websockets_go_by_host(site: Stage) -> None:
    async def run() -> None:
        for host, pool in (("www.example.org", "hosts"), ("example.org", "web")):
            connection = await dial(site.address, f"/echo/{pool}", named=host)
            (line,) = await asyncio.to_thread(site.wait_for_line, f"{pool}.scopes")
            assert [int(line.split()[0])] == site.pids(pool)
            await connection.close()

    asyncio.run(run())


def a_pool_has_its_own_app_and_interpreter(site: Stage) -> None:
    name, prefix = fetch.get(site.url + "/other/x").text.split()
    assert name == "other"
    assert prefix.endswith("/environment") and prefix != sys.prefix


def a_wsgi_app_runs_in_threads(site: Stage) -> None:
    with httpx.Client(base_url=site.url, timeout=30) as client, ThreadPoolExecutor(12) as crowd:
        answers = list(
            crowd.map(lambda n: client.post(f"/pages/{n}", content=f"body-{n}"), range(12))
        )
    assert {one.status_code for one in answers} == {200}
    words = [one.text.split() for one in answers]
    assert {int(pid) for pid, *_ in words} == set(site.pids("pages"))
    assert max(int(most) for _, most, *_ in words) == 3  # its threads, all of them, and no more
    assert [one[2:] for one in words] == [[f"/pages/{n}", f"body-{n}"] for n in range(12)]


def test_what_is_not_served_is_not_found(tmp_path: Path) -> None:
    with stage(tmp_path, serves='["http:/pid", "websocket:/echo/*"]') as site:
        assert pool_of(site, "/pid") == "web"
        for path in ("/", "/pid/", "/pids", "/echo/a"):
            answer = fetch.get(site.url + path)
            assert answer.status_code == 404, path
            assert "nothing is served here" in answer.text
        assert fetch.post(site.url + "/nowhere", content=b"x" * 100_000).status_code == 404

        async def run() -> None:
            await (await dial(site.address, "/echo/a")).close()
            with pytest.raises(InvalidStatus) as denied:
                await dial(site.address, "/push/a")
            assert denied.value.response.status_code == 404

        asyncio.run(run())
        assert site.metric("rejected_total", pool="", reason="no_route") == 6
