from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.layer import hubs
from tests.servers import redis
from tests.worker import project
from tests.worker.project import Project


@pytest.fixture
def hub() -> Iterator[hubs.Hub]:
    with hubs.running() as hub:
        yield hub


@pytest.fixture
def site(tmp_path: Path, hub: hubs.Hub) -> Project:
    """The project, on the layer of a hub."""
    return project.on_hub(tmp_path, hub)


@pytest.fixture
def redis_server() -> Iterator[tuple[redis.Redis, str]]:
    with redis.on_socket() as (server, url):
        yield server, url


@pytest.fixture
def redis_site(tmp_path: Path, redis_server: tuple[redis.Redis, str]) -> Project:
    """The project, on the layer of channels_redis.core."""
    return project.on_redis(tmp_path, [redis_server[1]])


@pytest.fixture(params=["hub", "redis"])
def either(request: pytest.FixtureRequest) -> Project:
    """The project on the hub, and on Redis."""
    name = "site" if request.param == "hub" else "redis_site"
    found: Project = request.getfixturevalue(name)
    return found
