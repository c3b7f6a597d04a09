"""Real uvicorn processes under load: nothing is closed, repeated, reordered or corrupted."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.carry import apps
from tests.carry.holder import Holder, holding
from tests.carry.load import Load, Totals

PROTOCOLS = ("websockets-sansio", "websockets", "wsproto")
LOOPS = ("uvloop", "asyncio")
Event = Callable[[Holder], Coroutine[Any, Any, None]]


async def run(
    directory: Path, ws: str, loop: str, deflate: bool, events: list[Event], clients: int = 6
) -> tuple[Totals, Holder]:
    options = {"ws": ws, "loop": loop, "ws_per_message_deflate": deflate, "ws_ping_interval": 0.5}
    async with holding(directory, apps.write(directory), options=options) as holder:
        load = Load(clients, deflate)
        await load.start(holder.port)
        await load.flow()
        for event in events:
            await event(holder)
            await load.flow()
            if load.totals.problems:
                break
        totals = await load.stop()
        assert not totals.problems, (totals.problems, holder.describe())
        return totals, holder


def check(totals: Totals, holder: Holder, kills: int) -> None:
    assert totals.echoed > 100
    assert not holder.failures
    assert holder.counts["Plain"] == 0
    assert all(gap == 1 for gap in totals.gaps), totals
    assert totals.missing <= holder.counts["lost"]
    if not kills:
        assert totals.missing == holder.counts["lost"] == 0


def kill(holder: Holder) -> Coroutine[Any, Any, None]:
    return holder.kill()


def deploy(holder: Holder) -> Coroutine[Any, Any, None]:
    return holder.deploy()


@pytest.mark.parametrize("ws", PROTOCOLS)
def test_three_kills(tmp_path: Path, ws: str) -> None:
    totals, holder = asyncio.run(run(tmp_path, ws, "uvloop", ws != "wsproto", [kill] * 3))
    check(totals, holder, 3)


@pytest.mark.parametrize("ws", PROTOCOLS)
def test_three_deploys(tmp_path: Path, ws: str) -> None:
    totals, holder = asyncio.run(run(tmp_path, ws, "asyncio", ws != "wsproto", [deploy] * 3))
    check(totals, holder, 0)


WAYS = [
    (ws, loop, deflate)
    for ws in PROTOCOLS
    for loop in LOOPS
    for deflate in (False, True)
    # Without chansup, too, uvicorn with wsproto garbles compressed messages of this load.
    if not (ws == "wsproto" and deflate)
]


@pytest.mark.thorough
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("ws", "loop", "deflate"), WAYS)
@pytest.mark.parametrize("event", [kill, deploy])
def test_twenty(tmp_path: Path, ws: str, loop: str, deflate: bool, event: Event) -> None:
    totals, holder = asyncio.run(run(tmp_path, ws, loop, deflate, [event] * 20))
    check(totals, holder, 20 * (event is kill))
