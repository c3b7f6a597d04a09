"""What each option and variable of each installed server does here is known before anybody asks."""

import ast
import importlib.util
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from chansup.config import server_variables
from chansup.launch import differences, options
from chansup.launch.differences import Relayed

from .test_boot import probe

pytestmark = pytest.mark.slow  # the interpreter makes no difference

# What no server reads for itself under chansup: what its arbiter and parent do.
NOT_FOR_US = {"SERVER_SOFTWARE", "GUNICORN_PID", "GUNICORN_FD", "GUNICORN_DIRTY_SOCKET"}
NOT_FOR_US |= {"LISTEN_PID", "LISTEN_FDS", "NOTIFY_SOCKET", "XDG_RUNTIME_DIR", "PWD"}


def known(server: str) -> set[str]:
    if server == "uvicorn":
        from uvicorn.config import Config

        from chansup.launch import uvicorn

        return set(options.parameters(Config.__init__, without=uvicorn.RESERVED_OPTIONS))
    if server == "granian":
        from chansup.launch import granian

        return set(granian._known_options())
    if server == "hypercorn":
        from chansup.launch import hypercorn

        return set(hypercorn.known_options())
    if server == "daphne":
        from chansup.launch import daphne

        return set(daphne.KNOWN)
    from gunicorn.config import KNOWN_SETTINGS

    from chansup.launch import gunicorn

    names = {setting.name for setting in KNOWN_SETTINGS}
    return names - set(gunicorn.RESERVED_OPTIONS)


@pytest.mark.parametrize("server", differences.SAME)
def test_every_option_was_looked_at(server: str) -> None:
    pytest.importorskip(server)
    same, different = differences.SAME[server], set(differences.DIFFERENT[server])
    assert known(server) - same - different == set()
    assert same & different == set()


def variables(server: str) -> Iterator[str]:
    """Yield the names by which the sources of a server ask os.environ."""
    found = importlib.util.find_spec(server)
    assert found is not None and found.origin is not None
    for file in Path(found.origin).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Subscript):
                asked, name = node.value, node.slice
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                is_getenv = node.func.attr == "getenv"
                asked, name = node.func if is_getenv else node.func.value, node.args[0]
            elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In):
                asked, name = node.comparators[0], node.left
            else:
                continue
            is_ours = ast.unparse(asked) in ("os.environ", "os.getenv")
            if is_ours and isinstance(name, ast.Constant):
                yield str(name.value)


@pytest.mark.parametrize("server", server_variables.READ)
def test_every_variable_was_looked_at(server: str) -> None:
    pytest.importorskip(server)
    globs = [*server_variables.READ[server], *server_variables.UNREAD[server], *NOT_FOR_US]
    unknown = {
        name for name in variables(server) if not any(fnmatchcase(name, glob) for glob in globs)
    }
    assert unknown == set()


PATHS = Relayed(has_paths=True, has_websockets=True)
PLAIN = Relayed(has_paths=False, has_websockets=False)


@pytest.mark.parametrize(
    ("server", "given", "relayed", "names"),
    [
        ("uvicorn", {"lifespan": "on", "limit_concurrency": 9}, None, []),
        (
            "uvicorn",
            {"lifespan": "on", "limit_concurrency": 9, "limit_max_requests": 5, "ws_max_size": 1},
            PLAIN,
            ["lifespan", "limit_concurrency", "limit_max_requests"],
        ),
        ("uvicorn", {"root_path": "/a"}, PLAIN, []),
        ("uvicorn", {"root_path": "/a"}, PATHS, ["root_path"]),
        ("granian", {"websockets": False}, PLAIN, []),
        ("granian", {"websockets": False}, PATHS, ["websockets"]),
        ("granian", {"static_path_mount": "/srv/static"}, PATHS, []),
        ("granian", {"static_path_mount": ["static"]}, PATHS, ["static_path_mount"]),
        ("granian", {"static_path_mount": "static"}, None, []),
        ("hypercorn", {"startup_timeout": 9.0, "read_timeout": 3}, PLAIN, ["startup_timeout"]),
        ("hypercorn", {"wsgi_max_body_size": 9}, None, ["wsgi_max_body_size"]),
        ("daphne", {"application_close_timeout": 9, "http_timeout": 3}, PLAIN,
         ["application_close_timeout"]),
        ("gunicorn", {"when_ready": "a.b", "post_worker_init": "a.b"}, None, ["when_ready"]),
    ],
)  # fmt: skip
def test_what_is_told(
    server: str, given: dict[str, Any], relayed: Relayed | None, names: list[str]
) -> None:
    assert [found.name for found in differences.of(server, given, relayed)] == names


def test_the_probe_tells_it() -> None:
    asked: dict[str, Any] = {"application": "", "options": {"lifespan": "on", "root_path": "/a"}}
    assert probe(**asked)["warnings"] == []
    told = probe(relayed=["http:/x/*"], **asked)
    assert told["problems"] == []
    assert [found["key"] for found in told["warnings"]] == [
        "interface.options.lifespan",
        "interface.options.root_path",
    ]
