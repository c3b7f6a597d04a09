import os
import signal
import zlib
from collections.abc import Iterator

import pytest

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


@pytest.fixture(scope="session")
def rabbitmq_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a RabbitMQ: one for all workers of xdist, since it is slow to start."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    with rabbitmq.node(base / "rabbitmq") as url:
        yield url


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _is_the_same_on_each_python(item):
            item.add_marker(pytest.mark.slow)
        if not _is_tried_by_make_test(item):
            item.add_marker(pytest.mark.thorough)


# Where each case starts processes of its own. The conformance tests share what they start.
COSTLY = {"launch", "relay", "system", "worker"}
SERVERS = ("granian", "hypercorn", "daphne", "gunicorn")  # beside uvicorn
LAYERS = ("redis", "rabbitmq")  # beside the hub


def _is_tried_by_make_test(item: pytest.Item) -> bool:
    """Of one test over all servers, `make test` tries uvicorn and one other, by turns.

    The same holds for layers: the hub always, Redis in every second test.
    """
    callspec = getattr(item, "callspec", None)
    if callspec is None or not COSTLY & set(item.path.parts) or "conformance" in item.path.parts:
        return True
    turn = zlib.crc32(item.nodeid.partition("[")[0].encode())
    values = set(callspec.id.split("-"))
    others = values & set(SERVERS)
    if others and others != {SERVERS[turn % len(SERVERS)]}:
        return False
    return not values & set(LAYERS) or turn % 2 == 0


def _is_the_same_on_each_python(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    if callspec is not None and SAME_ON_EACH_PYTHON & set(callspec.id.split("-")):
        return True
    return ("relay" in item.path.parts and item.path.name not in RELAY_ON_EACH_PYTHON) or (
        "system" in item.path.parts and item.path.name not in SYSTEM_ON_EACH_PYTHON
    )
