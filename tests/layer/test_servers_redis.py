"""`chansup.layer.ChannelLayer` on real Redis servers, each kind of address that it takes."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from chansup.layer import ChannelFull, ChannelLayer, LocalChannelLayer
from chansup.layer.errors import LayerConfigError
from tests.layer.hubs import Hub
from tests.servers import redis

pytest.importorskip("channels_redis")
pytestmark = pytest.mark.slow  # the interpreter makes no difference to a server

PATIENCE = 30.0
KINDS = ["redis", "unix", "rediss", "sentinel", "sharded"]
Backend = str | list[str]


@contextmanager
def backend(kind: str, directory: Path) -> Iterator[Backend]:
    """Run what a kind of address needs; give the address."""
    with ExitStack() as stack:
        enter = stack.enter_context
        if kind == "redis":
            yield enter(redis.on_port(directory / "one"))[1]
        elif kind == "unix":
            yield enter(redis.on_socket())[1]
        elif kind == "rediss":
            yield enter(redis.with_tls(directory / "one"))[1]
        elif kind == "sentinel":
            server, _ = enter(redis.on_port(directory / "one"))
            yield enter(redis.sentinel(directory / "two", server.port))
        else:
            yield [enter(redis.on_port(directory / "one"))[1], enter(redis.on_socket())[1]]


def say(monkeypatch: pytest.MonkeyPatch, backend: Backend, **options: Any) -> None:
    """Say it as chansup says it to the processes that it starts."""
    place = {"backend": backend, "options": options}
    monkeypatch.setenv("CHANSUP_CHANNEL_LAYER", json.dumps(place))


async def soon(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, PATIENCE)


async def close(*layers: Any) -> None:
    for layer in layers:
        if hasattr(layer, "close_pools"):
            await layer.close_pools()
        else:
            await layer.flush()


async def exchange(one: Any, other: Any, *, ordinary: bool, direct: bool) -> None:
    """Send through one layer, receive from the other: as two processes would."""
    mine = await one.new_channel()
    more = await other.new_channel()
    if ordinary:
        for number in range(20):
            await one.send("jobs", {"type": "job", "number": number})
        for number in range(20):
            assert (await soon(other.receive("jobs")))["number"] == number
    waiting = asyncio.ensure_future(other.receive(more))
    await other.group_add("room", more)
    await one.group_add("room", mine)
    for sender in (one, other):
        await sender.group_send("room", {"type": "said", "text": "hällo", "raw": b"\x00"})
        for message in (await soon(one.receive(mine)), await soon(waiting)):
            assert message == {"type": "said", "text": "hällo", "raw": b"\x00"}
        waiting = asyncio.ensure_future(other.receive(more))
    await one.group_discard("room", mine)
    await one.group_send("room", {"type": "last"})
    assert (await soon(waiting))["type"] == "last"
    if direct:
        await other.send(mine, {"type": "direct"})
        assert (await soon(one.receive(mine)))["type"] == "direct"


@pytest.mark.parametrize("pubsub", [False, True], ids=["core", "pubsub"])
@pytest.mark.parametrize("kind", KINDS)
def test_messages_and_groups(
    kind: str, pubsub: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        layers = ChannelLayer(), ChannelLayer()
        assert type(layers[0]).__module__ == f"channels_redis.{'pubsub' if pubsub else 'core'}"
        # With pub/sub nothing waits for a receiver. Sharded, channels_redis 4.3.0 sends what is for
        # one consumer by the hash of its whole name, and receives by that of the process.
        await exchange(*layers, ordinary=not pubsub, direct=pubsub or kind != "sharded")
        await close(*layers)

    with backend(kind, tmp_path) as address:
        say(monkeypatch, address, **({"pubsub": True} if pubsub else {}))
        asyncio.run(main())


def test_what_is_sharded_is_on_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from redis.asyncio import Redis

    async def main(addresses: list[str]) -> None:
        layer = ChannelLayer()
        for _ in range(20):
            await layer.send("jobs", {"type": "job"})
        for address in addresses:
            async with Redis.from_url(address) as client:
                assert await client.zcard("asgijobs") == 10
        await close(layer)

    with redis.on_port(tmp_path / "one") as (_, one), redis.on_socket() as (_, two):
        say(monkeypatch, [one, two])
        asyncio.run(main([one, two]))


def test_options_reach_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography")
    from redis.asyncio import Redis

    async def main(address: str) -> None:
        layer = ChannelLayer()
        await layer.send("jobs", {"type": "job", "secret": "xyzzy"})
        await layer.send("jobs", {"type": "job"})
        with pytest.raises(ChannelFull):
            await layer.send("jobs", {"type": "job"})
        async with Redis.from_url(address) as client:
            (key,) = await client.keys("*jobs*")
            assert key == b"chatjobs"
            assert not any(b"xyzzy" in member for member in await client.zrange(key, 0, -1))
        assert (await soon(layer.receive("jobs")))["secret"] == "xyzzy"
        await close(layer)

    with redis.on_socket() as (_, address):
        say(monkeypatch, address, prefix="chat", capacity=2, symmetric_encryption_keys=["a secret"])
        asyncio.run(main(address))
        say(monkeypatch, address, prefixx="chat")
        with pytest.raises(LayerConfigError, match="no option 'prefixx': did you mean 'prefix'"):
            ChannelLayer()


@pytest.mark.parametrize("kind", ["redis", "unix", "sentinel"])
@pytest.mark.parametrize("pubsub", [False, True], ids=["core", "pubsub"])
@pytest.mark.thorough
def test_a_quiet_receive_lasts(
    kind: str, pubsub: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis' client allows 5 seconds for an answer, unless it is told otherwise."""

    async def main() -> None:
        layer = ChannelLayer()
        channel = await layer.new_channel()
        waiting = asyncio.ensure_future(layer.receive(channel))
        began = time.monotonic()
        done, _ = await asyncio.wait([waiting], timeout=7)
        assert not done, f"it ended after {time.monotonic() - began:.1f} s: {waiting.exception()!r}"
        await layer.send(channel, {"type": "late"})
        assert (await soon(waiting))["type"] == "late"
        await close(layer)

    with backend(kind, tmp_path) as address:
        say(monkeypatch, address, **({"pubsub": True} if pubsub else {}))
        asyncio.run(main())


def test_a_url_may_set_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    from redis.exceptions import TimeoutError as TimedOut

    async def main() -> None:
        layer = ChannelLayer()
        with pytest.raises(TimedOut):
            await soon(layer.receive("jobs"))
        await close(layer)

    with redis.on_socket() as (_, address):
        say(monkeypatch, f"{address}?socket_timeout=0.2")
        asyncio.run(main())


def test_a_server_that_is_down_is_an_error_at_once_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from redis.exceptions import ConnectionError as NotConnected

    async def main(server: redis.Redis) -> None:
        layer = ChannelLayer()
        await layer.send("jobs", {"type": "job"})
        server.kill()
        with pytest.raises(NotConnected):
            await soon(layer.send("jobs", {"type": "job"}))
        server.start()
        await layer.send("jobs", {"type": "after"})
        assert (await soon(layer.receive("jobs")))["type"] == "after"
        await close(layer)

    with redis.on_port(tmp_path / "one") as (server, address):
        say(monkeypatch, address)
        asyncio.run(main(server))


@pytest.mark.parametrize("pubsub", [False, True], ids=["core", "pubsub"])
def test_groups_after_a_restart_of_the_server(
    pubsub: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/redis.md says which layer knows them still."""
    from redis.exceptions import RedisError

    async def arrives(layer: Any, channel: str) -> bool:
        """Send to the group until something comes, or for long enough to know that nothing will."""
        receiving = asyncio.ensure_future(layer.receive(channel))
        for _ in range(int(PATIENCE / 0.1) if pubsub else 20):
            with suppress(RedisError):
                await layer.group_send("room", {"type": "said"})
            await asyncio.wait([receiving], timeout=0.1)
            if receiving.done() and receiving.exception() is None:
                return True
            if receiving.done():  # the connection that it waited on is gone
                receiving = asyncio.ensure_future(layer.receive(channel))
        receiving.cancel()
        return False

    async def main(server: redis.Redis) -> None:
        layer = ChannelLayer()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        assert await arrives(layer, channel)
        server.kill()
        server.start()
        assert await arrives(layer, channel) == pubsub
        await layer.group_add("room", channel)
        assert await arrives(layer, channel)
        await close(layer)

    with redis.on_port(tmp_path / "one") as (server, address):
        say(monkeypatch, address, **({"pubsub": True} if pubsub else {}))
        asyncio.run(main(server))


def test_a_layer_beside_that_of_the_site(shared_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"backend": "local", "address": shared_hub.path, "options": {"capacity": 7}}
    monkeypatch.setenv("CHANSUP_CHANNEL_LAYER", json.dumps(place))

    async def main(address: str) -> None:
        here, everywhere = ChannelLayer(), ChannelLayer(backend=address, prefix="mysite")
        assert isinstance(here, LocalChannelLayer)
        assert (here.capacity, everywhere.capacity) == (7, 100)
        for layer, text in ((here, "here"), (everywhere, "everywhere")):
            await layer.send("jobs", {"type": text})
        for layer, text in ((here, "here"), (everywhere, "everywhere")):
            assert (await soon(layer.receive("jobs")))["type"] == text
        await close(here, everywhere)
        await here.close()

    with redis.on_socket() as (_, address):
        asyncio.run(main(address))
