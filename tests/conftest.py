import os
import signal
from collections.abc import Iterator

import pytest

from tests.servers import rabbitmq

# On the extra interpreters one server on asyncio and one of its own make stand for all five.
SAME_ON_EACH_PYTHON = {"hypercorn", "daphne", "gunicorn"}

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
        callspec = getattr(item, "callspec", None)
        words = set(callspec.id.split("-")) if callspec is not None else set()
        of_relay = "relay" in item.path.parts and item.path.name not in RELAY_ON_EACH_PYTHON
        if words & SAME_ON_EACH_PYTHON or of_relay or item.path.name == "test_relay.py":
            item.add_marker(pytest.mark.slow)
