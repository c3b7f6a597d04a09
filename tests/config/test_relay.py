"""What follows from a config for relay mode."""

import sys

import pytest

from chansup.config import relay
from chansup.config.relay import Application, Served, is_relay
from chansup.config.schema import App, Config, Interface, Route, Workers

SERVES = Workers(serves=["http"])


@pytest.mark.parametrize(
    ("expected", "interface", "workers"),
    [
        (False, Interface(), {}),
        (False, Interface(), {"x": Workers(command="x")}),
        (True, Interface(), {"x": Workers(command="x"), "web": SERVES}),
        (True, Interface(mode="relay"), {"web": SERVES}),
        (False, Interface(mode="direct"), {"web": SERVES}),
        (False, Interface(command="x"), {"web": SERVES}),
        (False, None, {"web": SERVES}),
    ],
)
def test_is_relay(expected, interface, workers):
    assert is_relay(Config(interface=interface, workers=workers)) is expected


def test_app_workers():
    config = Config(
        workers={"x": Workers(command="x"), "web": SERVES, "y": Workers(channels=["y"])}
    )
    assert relay.app_workers(config) == {"web": SERVES}


def test_a_pool_runs_its_own_app_or_that_of_all():
    config = Config(
        app=App(asgi="a:b"),
        workers={"web": SERVES, "old": Workers(serves=["http"], wsgi="c:d")},
    )
    assert relay.application(config, "web") == Application("asgi", "a:b", ("app", "asgi"))
    assert relay.application(config, "old") == Application(
        "wsgi", "c:d", ("workers", "old", "wsgi")
    )
    assert relay.application(Config(workers={"web": SERVES}), "web") is None


def test_an_entry_says_what_differs_from_the_pool():
    workers = Workers(
        serves=["http", Route(route="websocket", handover="transparent", redeliver=False)],
        handover="close",
        redeliver=True,
    )
    assert relay.served(workers) == [
        Served("http", "close", True),
        Served("websocket", "transparent", False),
    ]
    assert relay.served(Workers(serves=[Route(route="http")])) == [
        Served("http", "transparent", False)
    ]


@pytest.mark.parametrize(
    ("table", "threads", "concurrency"),
    [
        (Workers(wsgi="a:b"), 4, 4),
        (Workers(wsgi="a:b", threads=8), 8, 8),
        (Workers(wsgi="a:b", concurrency=2), 2, 2),
        (Workers(wsgi="a:b", concurrency=9), 4, 9),
        (Workers(wsgi="a:b", threads=2, concurrency=9), 2, 9),
        (Workers(asgi="a:b"), 4, 1000),
        (Workers(asgi="a:b", concurrency=1), 1, 1),
    ],
)
def test_threads_and_concurrency(table, threads, concurrency):
    assert relay.threads(table) == threads
    assert relay.concurrency(Config(workers={"web": table}), "web") == concurrency


def test_a_pool_may_have_an_interpreter_of_its_own(config, tmp_path):
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/python").symlink_to("/bin/sh")
    loaded = config(
        '[app]\nasgi = "a:b"\n[interface]\n[workers.web]\nserves = ["http"]\n'
        '[workers.old]\nserves = ["http:/old/*"]\npython = "venv/bin/python"\n'
    )
    assert loaded.python is None
    assert loaded.python_of("web") == sys.executable
    assert loaded.python_of("old") == f"{tmp_path}/venv/bin/python"
    environment = loaded.child_environment({"PATH": "/usr/bin"}, {}, loaded.python_of("old"))
    assert environment == {"PATH": f"{tmp_path}/venv/bin:/usr/bin"}
