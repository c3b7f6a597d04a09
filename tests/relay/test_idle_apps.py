"""An app that works on a message of the channel layer finishes it before its WebSocket moves."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

pytest.importorskip("channels")

from chansup.layer import LocalChannelLayer
from tests.layer.hubs import Hub, running
from tests.relay.stage import Stage, mean_pause, stage
from tests.relay.talk import dial

HOME = Path(__file__).parent / "parts"
PATIENCE = 60.0  # seconds for what a busy machine is late with
KINDS = (
    "plain", "database", "asking", "selfish", "documents", "synchronous", "tasks", "races", "deaf",
)  # fmt: skip
TELLS = tuple(kind for kind in KINDS if kind != "deaf")  # when it is told to leave


class Listener:
    """A client, and what it was sent."""

    def __init__(self, connection: ClientConnection, kind: str) -> None:
        self.kind = kind
        self.got: list[str] = []
        self._connection = connection
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        try:
            async for message in self._connection:
                self.got.append(str(message).strip('"'))
        except ConnectionClosed:
            pass

    async def until(self, text: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while text not in self.got:
                assert not self._listening.done(), f"{self.kind} was closed"
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        await self._connection.close()
        await self._listening


@contextmanager
def site_with_hub(directory: Path, **settings: Any) -> Iterator[tuple[Stage, Hub]]:
    (directory / "witness").mkdir()
    with running() as hub:
        layer = {"address": hub.path, "capacity": 100_000}
        (directory / "witness" / "layer").write_text(json.dumps(layer))
        with stage(directory, home=HOME, **settings) as site:
            yield site, hub


async def listening(site: Stage, kinds: tuple[str, ...]) -> list[Listener]:
    found = [Listener(await dial(site.address, f"/{kind}"), kind) for kind in kinds]
    for kind in kinds:
        await asyncio.to_thread(site.wait_for_line, f"{kind}.came")
    return found


def parts(first: int, last: int) -> list[str]:
    return [f"{part} {number}" for number in range(first, last + 1) for part in "ab"]


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.thorough
def test_each_message_comes_once_and_whole_and_each_app_hears_the_goodbye(tmp_path: Path) -> None:
    deploys = 2
    with site_with_hub(tmp_path, workers=2) as (site, hub):

        async def scenario() -> None:
            listeners = await listening(site, KINDS)
            layer = LocalChannelLayer(hub.path, capacity=100_000)
            sent = 0
            deploying = asyncio.create_task(asyncio.to_thread(deploy))
            while not deploying.done():
                sent += 1
                await layer.group_send("numbers", {"type": "note", "number": sent})
                await asyncio.sleep(0.1)
            await deploying
            for one in listeners:
                await one.until(f"b {sent}")
            await layer.close()
            for one in listeners:
                # What a consumer sends to itself comes after what was there before.
                ours = sorted(one.got) if one.kind == "selfish" else one.got
                wanted = parts(1, sent)
                assert ours == (sorted(wanted) if one.kind == "selfish" else wanted), one.kind
            for kind in TELLS:
                assert len(site.lines(f"{kind}.came")) == deploys + 1, kind
                assert Counter(site.lines(f"{kind}.went")) == {"1012": deploys}, kind
            for one in listeners:
                await one.close()

        def deploy() -> None:
            for _ in range(deploys):
                site.deploy()

        asyncio.run(scenario())
        assert mean_pause(site.metrics()) < 1.5  # nobody was waited for in vain


@pytest.mark.timeout(100)
@pytest.mark.thorough
def test_a_handler_that_never_ends_is_waited_for_within_the_stop_timeout(tmp_path: Path) -> None:
    with site_with_hub(tmp_path, workers=1, stop_timeout=4) as (site, hub):

        async def scenario() -> None:
            (one,) = await listening(site, ("stuck",))
            layer = LocalChannelLayer(hub.path)
            await layer.group_send("numbers", {"type": "note", "number": 1})
            await one.until("a 1")
            deploying = asyncio.create_task(asyncio.to_thread(site.deploy))
            await asyncio.to_thread(site.wait_for_line, "stuck.came", 2)
            await deploying
            await layer.group_send("numbers", {"type": "note", "number": 2})
            await one.until("a 2")
            assert one.got == ["a 1", "a 2"]
            await layer.close()
            await one.close()

        asyncio.run(scenario())
        assert "killing it" not in site.run.output()


@pytest.mark.timeout(100)
@pytest.mark.thorough
def test_an_app_that_is_told_to_leave_may_finish_its_connect(tmp_path: Path) -> None:
    with site_with_hub(tmp_path, workers=1) as (site, _):

        async def scenario() -> None:
            (one,) = await listening(site, ("slow",))
            await asyncio.to_thread(site.deploy)
            await asyncio.to_thread(site.wait_for_line, "slow.came", 2)
            assert site.lines("slow.went") == ["1012"]
            assert one.got[:2] == ["a 0", "b 0"]
            await one.close()

        asyncio.run(scenario())
