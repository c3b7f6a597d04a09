"""Fixtures: each server once without and once with the relay, started when first needed."""

from collections.abc import Iterator

import pytest

from . import sites

SERVERS = ["uvicorn", "granian", "hypercorn", "daphne"]


@pytest.fixture(scope="session")
def started() -> Iterator[sites.Sites]:
    with sites.sites() as started:
        yield started


@pytest.fixture(params=SERVERS, scope="session")
def server(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    return str(request.param)


@pytest.fixture
def pair(server: str, started: sites.Sites) -> sites.Pair:
    return started.get(server)
