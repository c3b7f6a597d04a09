"""One site on each kind of channel layer: what one worker sends reaches those who are at another."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.running import PATIENCE, Running, running
from tests.servers import redis
from tests.system.test_relay import reload

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

# A room: what anybody says, everybody gets, with the process that passed it on.
APP = """
import asyncio, json, os

from chansup.layer import ChannelLayer

layers = []


async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    if not layers:
        layers.append(ChannelLayer())
    layer, = layers
    channel = await layer.new_channel()
    await receive()
    await layer.group_add("room", channel)
    await send({"type": "websocket.accept"})

    async def pass_on():
        while True:
            message = await layer.receive(channel)
            text = json.dumps({"said": message["text"], "by": os.getpid()})
            await send({"type": "websocket.send", "text": text})

    passing = asyncio.create_task(pass_on())
    try:
        while (event := await receive())["type"] != "websocket.disconnect":
            await layer.group_send("room", {"type": "said", "text": event["text"]})
    finally:
        passing.cancel()
        await layer.group_discard("room", channel)
"""
CONFIG = """
[app]
asgi = "site_app:app"

[interface]
bind = "127.0.0.1:0"

[workers.web]
serves = ["websocket"]
processes = 2

[rollout]
stop_timeout = 10

[channel_layer]
"""


@contextmanager
def layer(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Start what a layer needs; give what stands in its table."""
    with ExitStack() as stack:
        if kind == "local":
            yield 'backend = "local"'
        elif kind == "rabbitmq":
            pytest.importorskip("channels_rabbitmq")
            yield f'backend = "{request.getfixturevalue("rabbitmq_url")}"'
        else:
            pytest.importorskip("channels_redis")
            _, url = stack.enter_context(redis.on_socket())
            options = "pubsub = true" if kind == "pubsub" else 'prefix = "site"'
            yield f'backend = "{url}"\noptions = {{ {options} }}'


async def hears(client: ClientConnection, text: str) -> int:
    """Wait until a client has got a text; return the process that passed it on."""
    while True:
        message = json.loads(await asyncio.wait_for(client.recv(), PATIENCE))
        if message["said"] == text:
            by: int = message["by"]
            return by


async def everybody_hears(clients: list[ClientConnection], text: str) -> set[int]:
    """Say something until all have heard it: who has just moved may miss it, but with the hub."""
    for number in range(int(PATIENCE)):
        said = f"{text} {number}"
        await clients[number % len(clients)].send(said)
        try:
            async with asyncio.timeout(1):
                return {await hears(client, said) for client in clients}
        except TimeoutError:
            continue
    raise AssertionError(f"nobody heard {text}")


@pytest.mark.parametrize("kind", ["local", "redis", "pubsub", "rabbitmq"])
@pytest.mark.thorough
def test_a_room_over_two_workers_and_a_deploy(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "site_app.py").write_text(APP)

    async def talk(run: Running) -> None:
        url = f"ws://{run.address}/"
        async with AsyncExitStack() as stack:
            clients: list[ClientConnection] = []
            before: set[int] = set()
            while before != set(run.pids("web")):  # which worker gets one is not said
                clients.append(await stack.enter_async_context(connect(url)))
                before = await everybody_hears(clients, f"hello {len(clients)}")
                assert len(clients) < 30
            await asyncio.to_thread(reload, run)
            after = await everybody_hears(clients, "still here")
            assert after <= set(run.pids("web"))
            assert not after & before

    with layer(kind, tmp_path, request) as table, running(tmp_path, CONFIG + table) as run:
        run.wait_until_ready()
        assert ("hub.0" in run.slots()) == (kind == "local")
        asyncio.run(asyncio.wait_for(talk(run), 150))
        # Of RabbitMQ's client there is one whenever an event loop ends.
        assert ("Traceback" in run.output()) == (kind == "rabbitmq")
