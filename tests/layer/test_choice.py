"""Which layer a site gets, and where its hub is."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from chansup.layer import ChannelLayer, LocalChannelLayer, NoHub, discovery
from chansup.layer.choice import make, problem
from chansup.layer.discovery import Place
from chansup.layer.errors import LayerConfigError
from chansup.protocol.channel_layer import VARIABLE
from tests.layer.hubs import Hub


@pytest.fixture(autouse=True)
def _no_site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (VARIABLE, discovery.CONFIG_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def say(monkeypatch: pytest.MonkeyPatch, **place: Any) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps(place))


def test_the_environment_says_which(monkeypatch: pytest.MonkeyPatch, shared_hub: Hub) -> None:
    say(monkeypatch, address=shared_hub.path, options={"capacity": 7, "expiry": 5})
    layer = ChannelLayer(expiry=9)
    assert isinstance(layer, LocalChannelLayer)
    assert (layer.capacity, layer.expiry) == (7, 9)
    asyncio.run(layer.send("alpha", {}))
    asyncio.run(layer.flush())


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"adress": "x"}', '{"backend": 3}', '{"options": []}']
)
def test_an_environment_that_makes_no_sense(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(LayerConfigError, match=VARIABLE):
        ChannelLayer()


def test_without_anything_it_says_what_to_do() -> None:
    for layer in (ChannelLayer(), LocalChannelLayer(), ChannelLayer(backend="local")):
        with pytest.raises(NoHub, match=r"no channel layer is known.*chansup\.toml"):
            asyncio.run(layer.send("alpha", {}))


def test_outside_of_chansup_the_hub_is_found_through_the_config(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared_hub: Hub
) -> None:
    config = tmp_path / "chansup.toml"
    config.write_text(
        '[supervisor]\nruntime_directory = "run"\n[channel_layer.options]\ncapacity = 4\n'
    )
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    layer = ChannelLayer()  # as an app does that makes it at import
    assert layer.capacity == 4
    monkeypatch.chdir("/")
    with pytest.raises(NoHub, match=r"chansup -c .*chansup\.toml run"):
        asyncio.run(layer.send("alpha", {}))
    with pytest.raises(NoHub):
        asyncio.run(layer.take("alpha"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "hub.sock").symlink_to(shared_hub.path)
    with pytest.raises(NoHub):  # a link is not a socket
        asyncio.run(layer.group_add("all", "alpha"))
    (tmp_path / "run" / "hub.sock").unlink()
    os.link(shared_hub.path, tmp_path / "run" / "hub.sock")
    asyncio.run(layer.send("alpha", {}))
    asyncio.run(layer.flush())
    monkeypatch.setenv(discovery.CONFIG_VARIABLE, str(config))
    assert LocalChannelLayer().capacity == 100


def test_a_site_that_was_started_anew_elsewhere_is_found_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hub: Hub
) -> None:
    async def tried() -> None:
        config = tmp_path / "chansup.toml"
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        config.write_text('[supervisor]\nruntime_directory = "one"\n')
        os.link(hub.path, tmp_path / "one" / "hub.sock")
        layer = ChannelLayer(timeout=20)
        receiving = asyncio.ensure_future(layer.receive("alpha"))
        await layer.group_add("all", "beta")
        hub.kill()
        (tmp_path / "one" / "hub.sock").unlink()
        os.unlink(hub.path)
        joining = asyncio.ensure_future(layer.group_add("all", "gamma"))
        await asyncio.sleep(0.05)
        hub.start()
        os.link(hub.path, tmp_path / "two" / "hub.sock")
        config.write_text('[supervisor]\nruntime_directory = "two"\n')
        await joining
        await layer.send("alpha", {"type": "x"})
        assert await asyncio.wait_for(receiving, 20) == {"type": "x"}
        await layer.close()

    asyncio.run(tried())


def test_options_from_variables_are_what_they_are_inside_of_chansup(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "chansup.toml"
    config.write_text(
        '[app]\nenv_file = "chat.env"\n[channel_layer.options]\n'
        'capacity = "${CAPACITY}"\nexpiry = "${EXPIRY:-7.5}"\nserializer_format = "${FORMAT:-json}"\n'
    )
    (tmp_path / "chat.env").write_text("CAPACITY=9\n")
    layer = ChannelLayer()
    assert (layer.capacity, layer.expiry) == (9, 7.5)
    monkeypatch.setenv("EXPIRY", "soon")
    with pytest.raises(LayerConfigError, match=r"chansup\.toml: channel_layer\.options\.expiry: "):
        ChannelLayer()
    monkeypatch.delenv("EXPIRY")
    (tmp_path / "chat.env").unlink()
    with pytest.raises(LayerConfigError, match=r"options\.capacity: .*CAPACITY is not set"):
        ChannelLayer()


def test_a_layer_of_another_kind_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "chansup.toml").write_text('[channel_layer]\nbackend = "redis://x"\n')
    with pytest.raises(LayerConfigError, match="not chansup's own"):
        LocalChannelLayer()


def test_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    core = pytest.importorskip("channels_redis.core")
    from channels_redis.pubsub import RedisPubSubChannelLayer

    say(monkeypatch, backend="redis://localhost:1", options={"capacity": 5, "prefix": "x"})
    layer = ChannelLayer()
    assert type(layer) is core.RedisChannelLayer
    assert layer.hosts == [{"address": "redis://localhost:1", "socket_timeout": None}]
    assert (layer.capacity, layer.prefix) == (5, "x")
    layer = ChannelLayer(backend=["redis://one", "rediss://two"], capacity=3)
    assert (layer.ring_size, layer.capacity) == (2, 3)
    assert isinstance(ChannelLayer(backend="redis://x", pubsub=True), RedisPubSubChannelLayer)
    layer = ChannelLayer(backend="redis+sentinel://:pa%40ss@one:1,two/mymaster/2")
    assert layer.hosts == [
        {
            "sentinels": [("one", 1), ("two", 26379)],
            "master_name": "mymaster",
            "db": 2,
            "password": "pa@ss",
            "socket_timeout": None,
        }
    ]
    (host,) = ChannelLayer(backend=[{"host": "x", "socket_timeout": 9}]).hosts
    assert host == {"host": "x", "socket_timeout": 9}


@pytest.mark.parametrize(
    ("backend", "option", "says"),
    [
        ("local", {"colour": "red"}, "no option 'colour'. It has expiry, group_expiry, capacity,"),
        ("local", {"capasity": 3}, "'capasity': did you mean 'capacity'"),
        ("local", {"capacity": 0}, "capacity: 0, expected a number from 1 on"),
        ("redis://x", {"capasity": 3}, "'capasity': did you mean 'capacity'"),
        ("redis://x", {"pubsub": True, "capasity": 3}, "'capasity': did you mean 'capacity'"),
        ("redis://x", {"pubsub": "yes"}, "pubsub: 'yes', expected true or false"),
        ("redis://x", {"symmetric_encryption_keys": "x"}, "must be a list"),
        ("amqp://x", {"prefix": "chat"}, "no option 'prefix'. It has local_capacity"),
    ],
)
def test_options_that_make_no_sense(backend: str, option: dict[str, Any], says: str) -> None:
    module = {"redis://x": "channels_redis", "amqp://x": "channels_rabbitmq"}.get(backend)
    if module is not None:
        pytest.importorskip(module)
    place = Place(backend, "/nowhere/hub.sock" if backend == "local" else None, option)
    with pytest.raises(LayerConfigError, match=says):
        make(place, {})
    found = problem(place)
    assert found is not None
    assert re.search(says, found)


@pytest.mark.parametrize(
    ("backend", "options"),
    [
        ("local", {"capacity": 3}),
        ("redis://x", {"prefix": "chat", "pubsub": True}),
        ("amqp://x", {"expiry": 5}),
    ],
)
def test_options_that_make_sense(backend: str, options: dict[str, Any]) -> None:
    module = {"redis://x": "channels_redis", "amqp://x": "channels_rabbitmq"}.get(backend)
    if module is not None:
        pytest.importorskip(module)
    assert problem(Place(backend, None, options)) is None


@pytest.mark.parametrize("backend", ["http://x", "redis+sentinel://one", [], ["local"], [3]])
def test_backends_that_make_no_sense(backend: Any) -> None:
    with pytest.raises(LayerConfigError, match=r"backend|hosts"):
        make(Place(backend), {})


@pytest.mark.parametrize(
    ("backend", "extra", "module"),
    [
        ("redis://x", "redis", "channels_redis.core"),
        ("amqp://x", "rabbitmq", "channels_rabbitmq.core"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, backend: str, extra: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LayerConfigError, match=rf"chansup\[{extra}\]"):
        make(Place(backend), {})


def test_nothing_needs_channels(tmp_path: Path, shared_hub: Hub) -> None:
    """chansup.layer works where Channels is not installed."""
    import subprocess

    script = f"""
import sys
for name in ("channels", "channels.layers", "channels.exceptions", "django"):
    sys.modules[name] = None
import asyncio, chansup.layer
from chansup.layer import ChannelFull, LocalChannelLayer
layer = LocalChannelLayer({shared_hub.path!r}, channel_capacity={{"one*": 1}})
async def main():
    await layer.send("one.1", {{"type": "x"}})
    try:
        await layer.send("one.1", {{"type": "x"}})
    except ChannelFull:
        print("full")
    await layer.flush()
    await layer.close()
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("full\n", "")
