"""Each private part of another package that chansup uses is declared, known and asked for first."""

import ast
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from chansup import private_parts
from chansup.launch.__main__ import import_server
from chansup.launch.application import ServerError
from chansup.private_parts import ALL, OF_SERVERS, PrivateParts, lacking
from chansup.protocol.probe import VARIABLE, Question

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "dependencies.md"
# What these packages document for others, and what is imported from them by that alone.
PUBLIC = {
    "channels_redis.core.RedisChannelLayer",
    "daphne.access.AccessLogGenerator",
    "daphne.http_protocol",
    "daphne.server",
    "daphne.server.Server",
    "daphne.ws_protocol",
    "granian._signals",
    "granian.constants.Interfaces",
    "granian.errors.ConfigurationError",
    "granian.server.common",
    "granian.server.mp",
    "granian.server.mp.MPServer",
    "gunicorn.asgi.protocol.ASGIProtocol",
    "gunicorn.config.Config",
    "gunicorn.errors.ConfigError",
    "gunicorn.sock",
    "gunicorn.workers.gasgi.ASGIWorker",
    "gunicorn.workers.gthread.ThreadWorker",
    "gunicorn.workers.sync.SyncWorker",
    "hypercorn.config.Config",
    "twisted.internet.defer",
    "twisted.internet.endpoints",
    "twisted.internet.tcp",
    "twisted.internet.unix",
    "twisted.protocols.tls.TLSMemoryBIOFactory",
    "uvicorn",
    "uvicorn.config.Config",
    "uvicorn.middleware.proxy_headers.ProxyHeadersMiddleware",
}
CASES = [pytest.param(one, part, id=part.replace(":", ".")) for one in ALL for part in one.parts]


def owner_of(part: str) -> tuple[object, str]:
    """Return the module or class that has a part, and the part's own name."""
    module, _, path = part.partition(":")
    outer, _, name = path.rpartition(".")
    owner: object = importlib.import_module(module)
    return (getattr(owner, outer) if outer else owner), name


def take_away(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """Pretend that a version is installed without a part."""
    owner, name = owner_of(part)
    for one in getattr(owner, "__mro__", (owner,)):
        for attribute, found in list(vars(one).items()):
            if attribute == name:
                monkeypatch.delattr(one, name)
            elif (
                isinstance(one, type)
                and isinstance(found, types.FunctionType)
                and name in found.__code__.co_names
            ):
                monkeypatch.setattr(one, attribute, lambda self: None)


@pytest.mark.parametrize("one", ALL, ids=[one.purpose for one in ALL])
def test_the_installed_version_is_the_known_one_and_has_every_part(one: PrivateParts) -> None:
    assert lacking(one) == ""
    pinned = re.search(
        rf"(?mi)^{re.escape(one.package)}==(.+)$",
        (ROOT / "requirements" / "constraints.txt").read_text(),
    )
    assert pinned is not None
    assert pinned[1] == one.known


@pytest.mark.parametrize(("one", "part"), CASES)
def test_a_part_that_is_missing_is_said_in_one_line_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, one: PrivateParts, part: str
) -> None:
    assert lacking(one) == ""
    take_away(monkeypatch, part)
    said = lacking(one)
    version = importlib.metadata.version(one.package)
    assert said.startswith(f"{one.package} {version} has no ")
    assert part.replace(":", ".") in said
    assert said.endswith(f'install "{one.package}=={one.known}", the version that it knows')
    assert "\n" not in said


@pytest.mark.parametrize("server", OF_SERVERS)
def test_a_server_without_a_part_is_not_imported(
    monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    part = OF_SERVERS[server][-1].parts[-1]
    take_away(monkeypatch, part)
    with pytest.raises(ServerError, match=re.escape(part.replace(":", "."))):
        import_server(server)


def test_a_process_with_such_a_server_gives_up_with_that_line(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import granian.server.mp\ndel granian.server.mp.WorkerProcess\n"
    )
    question = Question("granian", "asgi", "", {}, str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "chansup.launch.examine"],
        env=os.environ
        | {"PYTHONPATH": str(tmp_path), VARIABLE: msgspec.json.encode(question).decode()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 78
    [line] = done.stderr.splitlines()
    assert "has no granian.server.mp.WorkerProcess" in line


@pytest.mark.parametrize("one", ALL, ids=[one.purpose for one in ALL])
def test_a_version_that_is_too_old_is_refused(
    monkeypatch: pytest.MonkeyPatch, one: PrivateParts
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.9")
    assert lacking(one) == (
        f'{one.package} 0.0.9 is too old for {one.purpose}: install "{one.package}>={one.since}"'
    )


def test_the_extras_ask_for_no_older_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    asked = [*project["dependencies"], *(one for extra in extras for one in extra)]
    since: dict[str, list[str]] = {}
    for one in ALL:
        since.setdefault(one.package, []).append(one.since)
    del since["twisted"]  # daphne asks for it
    for package, versions in since.items():
        assert f"{package}>={min(versions)}" in asked


def test_what_is_not_installed_lacks_nothing() -> None:
    assert lacking(PrivateParts("no-such-package", "1", "1", "nothing", ("no_such:part",))) == ""


def test_a_layer_without_a_part_is_used_by_its_public_methods_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from channels_redis.core import RedisChannelLayer

    from chansup.worker.redis import is_usable

    layer = RedisChannelLayer()
    assert is_usable(layer)
    take_away(monkeypatch, "channels_redis.core:RedisChannelLayer.ring_size")
    assert not is_usable(layer)
    [record] = caplog.records
    assert "has no channels_redis.core.RedisChannelLayer.ring_size" in record.getMessage()


def used() -> Iterator[tuple[str, str]]:
    """Yield what chansup imports from these packages: the file, and the dotted name."""
    tops = {one.package for one in ALL}
    for file in sorted((ROOT / "chansup").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                if name.partition(".")[0] in tops:
                    yield file.name, name


def test_whatever_is_imported_from_these_packages_is_public_or_declared() -> None:
    declared = {part.replace(":", ".") for one in ALL for part in one.parts}
    found = set(used())
    assert {name for _, name in found} - declared - PUBLIC == set()
    assert {name for _, name in found} >= PUBLIC  # nothing that is not used any more


def test_the_page_has_them_all() -> None:
    rows = [
        f"| {one.package} | {one.since} | {one.known} | {one.purpose} | "
        + ", ".join(f"`{part.replace(':', '.')}`" for part in one.parts)
        + f" | {one.instead or 'the process does not start'} |"
        for one in ALL
    ]
    page = PAGE.read_text()
    table = page.partition("<!-- the table of private parts -->\n")[2].partition("\n\n")[0]
    assert table.splitlines()[2:] == rows


def test_the_module_names_its_sets_once() -> None:
    sets = [one for one in vars(private_parts).values() if isinstance(one, PrivateParts)]
    assert sorted(map(repr, sets)) == sorted(map(repr, ALL))


def test_a_part_that_only_the_drain_wants_leaves_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from chansup.launch import gunicorn

    take_away(monkeypatch, "gunicorn.asgi.protocol:ASGIProtocol._will_close")
    gunicorn._close_when_draining(cast(Any, None))
    [line] = capsys.readouterr().err.splitlines()
    assert "has no gunicorn.asgi.protocol.ASGIProtocol._will_close" in line
    assert line.endswith("until then a drain waits for idle connections")


def test_a_serializer_of_another_registry_needs_its_private_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import channels_redis.serializers  # noqa: F401

    from chansup.layer.errors import LayerConfigError
    from chansup.layer.serializers import find

    take_away(monkeypatch, "channels_redis.serializers:SerializersRegistry._registry")
    with pytest.raises(LayerConfigError, match=r"serializer_format: channels_redis .* has no "):
        find(None, "of-the-app", None, 60)
