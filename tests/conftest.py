import compileall
import os
import re
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import chansup
from tests.servers import rabbitmq

# On the extra interpreters one server on asyncio and one of its own make stand for all five, and
# chansup's own layer for all layers.
SAME_ON_EACH_PYTHON = {"hypercorn", "daphne", "gunicorn", "redis"}

# Of the relay's tests those that need no whole site, and one course of handovers and crashes.
RELAY_ON_EACH_PYTHON = {
    "test_any_course.py",
    "test_broken_peers.py",
    "test_credits.py",
    "test_frames.py",
    "test_handover.py",
    "test_link.py",
    "test_permits.py",
    "test_scopes.py",
    "test_streams.py",
    "test_worker_sends.py",
}

# Of whole sites these: a start, a stop, a deploy under load, the hub.
SYSTEM_ON_EACH_PYTHON = {"test_hub.py", "test_load.py", "test_run.py"}

# Whoever starts the tests in the background has SIGINT ignored, and what they start would inherit
# that: https://pubs.opengroup.org/onlinepubs/9699919799/utilities/V3_chap02.html, 2.11.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure() -> None:
    """Compile chansup once: what the tests start caches nothing (`tests/running.py`)."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        compileall.compile_dir(Path(chansup.__file__).parent, quiet=1)


@pytest.fixture(scope="session")
def rabbitmq_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a RabbitMQ: one for all workers of xdist, since it is slow to start."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    with rabbitmq.node(base / "rabbitmq") as url:
        yield url


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        if _is_the_same_on_each_python(item):
            item.add_marker(pytest.mark.slow)
        tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for name, cases in tests.items():
        if len(cases) > 1 and _each_starts_processes(cases[0]):
            for case in _left_to_ci(name, cases):
                case.add_marker(pytest.mark.thorough)


# Where tests start whole sites. The conformance tests share what they start.
COSTLY = {"docs", "example", "launch", "relay", "system", "worker"}
SITES = {"site", "supervisor", "scene", "either", "place", "redis_site", "tmp_path"}  # fixtures
SHARE = 6  # of so many cases `make test` tries one
# Tried first where they are among the cases: what most sites run, and the first page of the docs.
FIRST = ("uvicorn", "hub", "README.md")


def _each_starts_processes(item: pytest.Item) -> bool:
    fixtures = set(getattr(item, "fixturenames", ()))
    is_costly = COSTLY & set(item.path.parts) and "conformance" not in item.path.parts
    return bool(is_costly and SITES & fixtures)


def _left_to_ci(name: str, cases: list[pytest.Item]) -> list[pytest.Item]:
    """Return the cases that only `make ci` tries: by turns, so that each kind is tried somewhere."""
    turn = zlib.crc32(name.encode()) % min(SHARE, len(cases))
    known = [case for case in cases if set(FIRST) & set(re.split(r"[\[\]-]", case.name))]
    first = known[0] if known else cases[turn]
    others = [case for case in cases if case is not first]
    wanted = len(cases) // SHARE - 1 if len(cases) > SHARE else 0
    tried = {first, *others[turn::SHARE][:wanted]}
    return [case for case in cases if case not in tried]


def _is_the_same_on_each_python(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    if callspec is not None and SAME_ON_EACH_PYTHON & set(callspec.id.split("-")):
        return True
    return ("relay" in item.path.parts and item.path.name not in RELAY_ON_EACH_PYTHON) or (
        "system" in item.path.parts and item.path.name not in SYSTEM_ON_EACH_PYTHON
    )
