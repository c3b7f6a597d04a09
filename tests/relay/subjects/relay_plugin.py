"""A pytest plugin for the tests of others: what they run in an ASGI server goes through the relay.

RELAY_SUBJECT is "direct" or "relayed"; what came of each test is written to the file OUTCOMES.
"""

import functools
import importlib.util
import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest

RELAYED = os.environ["RELAY_SUBJECT"] == "relayed"
_outcomes: dict[str, str] = {}


def _load_both_sides() -> Any:
    """Load the module from its file: the subjects have packages named "tests" of their own."""
    path = Path(__file__).parent.parent / "both_sides.py"
    specification = importlib.util.spec_from_file_location("both_sides", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


both_sides = _load_both_sides()


class Through:
    """An app behind the relay. It has the attributes of the app, and raises what the app raised."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        raised: list[BaseException] = []

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            try:
                await self._app(scope, receive, send)
            except Exception as error:
                raised.append(error)
                raise

        outer = dict(scope)
        state = outer.pop("state", None)
        try:
            async with both_sides.relayed(watched, state=state) as both:
                await both(outer, receive, send)
                await both_sides.both_idle(both)
        except BaseException:  # what the relay says of an app that raised, too
            if not raised:
                raise
        if raised:
            raise raised[0]


def wrap_argument(owner: Any, name: str, argument: str) -> None:
    """Have a method get its app behind the relay, wherever that stands among its arguments."""
    original = getattr(owner, name)
    signature = inspect.signature(original)

    @functools.wraps(original)
    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        bound = signature.bind(*arguments, **keywords)
        bound.arguments[argument] = Through(bound.arguments[argument])
        return original(*bound.args, **bound.kwargs)

    setattr(owner, name, wrapped)


def patch_starlette() -> None:
    from starlette import testclient

    original = testclient.TestClient.__init__

    @functools.wraps(original)
    def initialise(self: Any, app: Any, *arguments: Any, **keywords: Any) -> None:
        asgi3 = app if testclient._is_asgi3(app) else testclient._WrapASGI2(app)
        original(self, Through(asgi3), *arguments, **keywords)

    testclient.TestClient.__init__ = initialise  # type: ignore[method-assign,unused-ignore]


def patch_uvicorn() -> None:
    from uvicorn.config import Config

    original = Config.load

    def load(self: Any) -> None:
        original(self)
        self.loaded_app = Through(self.loaded_app)

    Config.load = load  # type: ignore[method-assign]


def patch_httpx() -> None:
    for name in ("httpx", "httpx2"):
        try:
            module = __import__(name)
        except ModuleNotFoundError:
            continue
        wrap_argument(module.ASGITransport, "__init__", "app")


def patch_channels() -> None:
    from asgiref.testing import ApplicationCommunicator

    wrap_argument(ApplicationCommunicator, "__init__", "application")


PATCHES = {
    "starlette": [patch_starlette, patch_httpx],
    "uvicorn": [patch_uvicorn, patch_httpx],
    "channels": [patch_channels],
}


def pytest_configure(config: pytest.Config) -> None:
    if RELAYED:
        for patch in PATCHES[os.environ["SUBJECT"]]:
            patch()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if _outcomes.get(report.nodeid, "passed") == "passed":
        _outcomes[report.nodeid] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:  # the one who started the workers hears all
        Path(os.environ["OUTCOMES"]).write_text(json.dumps(_outcomes))
