"""Channels' own consumers move between processes; their clients get all messages once, in order."""

import asyncio
import sys
from typing import Any

import pytest

from chansup.layer import LocalChannelLayer
from tests.layer.hubs import Hub

pytest.importorskip("channels")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_consumers_of_channels_miss_nothing(shared_hub: Hub, kind: str) -> None:
    async def started() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.layer.consumers", shared_hub.path, kind, f"c-{kind}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )

    async def line(process: Any) -> str:
        return (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()

    async def tried() -> None:
        layer = LocalChannelLayer(shared_hub.path, capacity=100_000)
        await layer.flush()
        sent = 0
        ended = False
        got: list[int] = []

        async def send() -> None:
            nonlocal sent
            while not ended:
                sent += 1
                group = "lions" if sent % 3 else "geese"
                await layer.group_send(group, {"type": "news", "number": sent})
                await asyncio.sleep(0.0003)

        process = await started()
        assert await line(process) == "ready"
        sending = asyncio.create_task(send())
        for _ in range(2):
            for _ in range(50):
                got.append(int(await line(process)))
            assert process.stdin is not None
            process.stdin.write(b"leave\n")
            while (said := await line(process)) != "gone":
                got.append(int(said))
            await process.wait()
            process = await started()
            assert await line(process) == "ready"
        ended = True
        await sending
        while len(got) < sent:
            got.append(int(await line(process)))
        assert got == list(range(1, sent + 1))
        process.kill()
        await process.wait()
        await layer.flush()
        await layer.close()

    asyncio.run(asyncio.wait_for(tried(), 80))
