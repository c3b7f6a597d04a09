"""`chansup.layer.ChannelLayer` on a real RabbitMQ, by channels_rabbitmq."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from chansup.layer import ChannelFull, ChannelLayer
from chansup.layer.errors import LayerConfigError
from tests.servers import rabbitmq, redis

pytest.importorskip("channels_rabbitmq")
pytestmark = pytest.mark.timeout(240)  # Erlang starts slowly on busy cores

PATIENCE = 30.0


def say(monkeypatch: pytest.MonkeyPatch, backend: str, **options: Any) -> None:
    place = {"backend": backend, "options": options}
    monkeypatch.setenv("CHANSUP_CHANNEL_LAYER", json.dumps(place))


async def soon(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, PATIENCE)


def test_messages_and_groups(rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, rabbitmq_url)

    async def main() -> None:
        one, other = ChannelLayer(), ChannelLayer()
        mine, more = await one.new_channel(), await other.new_channel()
        await soon(one.group_add("room", mine))
        await soon(other.group_add("room", more))
        await soon(one.group_send("room", {"type": "said", "text": "hällo", "raw": b"\x00"}))
        for layer, channel in ((one, mine), (other, more)):
            message = await soon(layer.receive(channel))
            assert message == {"type": "said", "text": "hällo", "raw": b"\x00"}
        await soon(one.group_discard("room", mine))
        await soon(other.group_send("room", {"type": "last"}))
        assert (await soon(other.receive(more)))["type"] == "last"
        await soon(other.send(mine, {"type": "direct"}))
        assert (await soon(one.receive(mine)))["type"] == "direct"
        await one.close()
        await other.close()

    asyncio.run(main())


def test_options_reach_the_layer(rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, rabbitmq_url, remote_capacity=2, local_capacity=1)

    async def main() -> None:
        layer = ChannelLayer()
        assert (layer.remote_capacity, layer.local_capacity) == (2, 1)
        channel = await layer.new_channel()

        async def fill() -> None:
            for _ in range(10):
                await layer.send(channel, {"type": "job"})

        with pytest.raises(ChannelFull):
            await soon(fill())
        await layer.close()

    asyncio.run(main())
    say(monkeypatch, rabbitmq_url, capacity=3)
    with pytest.raises(LayerConfigError, match="no option 'capacity': did you mean 'local_capac"):
        ChannelLayer()


def test_it_takes_no_ordinary_channels(rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is why `chansup check` refuses channel workers on it."""
    say(monkeypatch, rabbitmq_url)

    async def main() -> None:
        layer = ChannelLayer()
        with pytest.raises(RuntimeError, match="does not support Normal Channels"):
            await layer.send("thumbnails", {"type": "make"})
        with pytest.raises(RuntimeError, match="does not support Normal Channels"):
            await layer.receive("thumbnails")
        await layer.close()

    asyncio.run(main())


def test_it_is_made_in_an_event_loop_only(
    rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, rabbitmq_url)
    with pytest.raises(RuntimeError, match="without a running event loop"):
        ChannelLayer()


def test_while_the_server_is_down_it_waits_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    say(monkeypatch, f"amqp://guest:guest@127.0.0.1:{redis.free_port()}/")

    async def main() -> None:
        layer = ChannelLayer()
        channel = await layer.new_channel()
        sending = asyncio.ensure_future(layer.send(channel, {"type": "job"}))
        while "Failure connecting to RabbitMQ" not in caplog.text:
            assert not sending.done()
            await asyncio.sleep(0.01)
        sending.cancel()

    with caplog.at_level(logging.ERROR):
        asyncio.run(soon(main()))


@pytest.mark.thorough
def test_the_node_is_of_this_machine_alone_and_gone_with_its_last_user(tmp_path: Path) -> None:
    import psutil

    with rabbitmq.node(tmp_path / "own") as first, rabbitmq.node(tmp_path / "own") as second:
        assert first == second
        (guard,) = [
            process
            for process in psutil.Process().children()
            if str(tmp_path / "own") in process.cmdline()
        ]
        family = guard.children(recursive=True)
        assert {"beam.smp", "epmd"} <= {process.name() for process in family}
        for process in family:
            for connection in process.net_connections("inet"):
                assert connection.laddr.ip in ("127.0.0.1", "::1")
    _, left = psutil.wait_procs([guard, *family], timeout=PATIENCE)
    assert not left
