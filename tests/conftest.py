import signal

import pytest

# On the extra interpreters one server on asyncio and one of its own make stand for all five.
SAME_ON_EACH_PYTHON = {"hypercorn", "daphne", "gunicorn"}

# Whoever starts the tests in the background has SIGINT ignored, and what they start would inherit
# that: https://pubs.opengroup.org/onlinepubs/9699919799/utilities/V3_chap02.html, 2.11.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        callspec = getattr(item, "callspec", None)
        words = set(callspec.id.split("-")) if callspec is not None else set()
        if words & SAME_ON_EACH_PYTHON:
            item.add_marker(pytest.mark.slow)
