"""Messages to groups while WebSockets move: each reaches each client exactly once, in order."""

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

pytest.importorskip("channels")

from asgiref.sync import async_to_sync

from chansup.layer import LocalChannelLayer
from tests.layer.hubs import Hub, running
from tests.relay.stage import Stage, stage
from tests.relay.talk import dial

HOME = Path(__file__).parent / "groups"
PATIENCE = 60.0  # seconds for what a busy machine is late with
AHEAD = 1000  # messages that the publisher may be before the slowest client
BOTH = ("numbers", "letters")
GROUPS = {  # that each consumer joins
    "one": ("numbers",),
    "several": BOTH,
    "late": BOTH,
    "untidy": BOTH,
    "leaver": BOTH,
    "sync": ("letters",),
    "stuck": ("numbers",),
}
KINDS = ("one", "several", "late", "untidy", "leaver", "sync")


def group_of(number: int) -> str:
    return "numbers" if number % 3 else "letters"


def expected_by(kind: str, last: int) -> list[int]:
    """Return what a client gets of the numbers up to `last`."""
    return [number for number in range(1, last + 1) if group_of(number) in GROUPS[kind]]


class Listener:
    """A client, and what it was sent."""

    def __init__(self, address: str, kind: str) -> None:
        self.kind = kind
        self.name = kind
        self.got: list[int] = []
        self.close_code: int | None = None
        self._address = address

    async def open(self) -> None:
        self.connection = await dial(self._address, f"/{self.kind}/{self.name}")
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        try:
            async for message in self.connection:
                self.got.append(int(message))
        except ConnectionClosed:
            pass
        self.close_code = self.connection.close_code

    async def until_got(self, number: int) -> None:
        await self.until(lambda: bool(self.got) and self.got[-1] >= number)

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not happened():
                assert self.close_code is None, f"{self.kind} was closed: {self.close_code}"
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        await self.connection.close()
        await self._listening


class Publisher:
    """Sends 1, 2, 3, … to the groups, about each millisecond, from a thread of its own."""

    def __init__(self, hub: Hub, listeners: list[Listener], synchronous: bool = False) -> None:
        self.sent = 0
        self._listeners = listeners
        self._layer = LocalChannelLayer(hub.path, capacity=100_000)
        self._stop = threading.Event()
        work = self._send_synchronously if synchronous else lambda: asyncio.run(self._send())
        self._thread = threading.Thread(target=work)

    def start(self) -> None:
        self._thread.start()

    async def _send(self) -> None:
        began = time.monotonic()
        while not self._stop.is_set():
            await asyncio.sleep(0.001)
            due = int((time.monotonic() - began) * 1000)
            while self.sent < due and self._may_send():
                await self._send_one()
        await self._layer.close()

    def _send_synchronously(self) -> None:
        while not self._stop.wait(0.001):
            if self._may_send():
                async_to_sync(self._send_one)()

    def _may_send(self) -> bool:
        """Whether the clients keep up, however busy the machine is."""
        return self.sent < AHEAD + min(one.got[-1] if one.got else 0 for one in self._listeners)

    async def _send_one(self) -> None:
        number = self.sent + 1
        await self._layer.group_send(group_of(number), {"type": "note", "number": number})
        self.sent = number

    def stop(self) -> int:
        """Stop, and return the last number."""
        self._stop.set()
        self._thread.join()
        return self.sent


@contextmanager
def site_with_hub(directory: Path, **settings: Any) -> Iterator[tuple[Stage, Hub]]:
    (directory / "witness").mkdir()
    with running() as hub:
        (directory / "witness" / "hub").write_text(hub.path)
        with stage(directory, home=HOME, **settings) as site:
            yield site, hub


async def published(
    site: Stage,
    hub: Hub,
    kinds: tuple[str, ...],
    meanwhile: Callable[[list[Listener]], Awaitable[None]],
    synchronous: bool = False,
) -> list[Listener]:
    """Publish while something happens; return the clients when they have the last numbers."""
    listeners = [Listener(site.address, kind) for kind in kinds]
    publisher = Publisher(hub, listeners, synchronous)
    for one in listeners:
        await one.open()
    joined = sum(len(GROUPS[kind]) for kind in kinds)
    async with asyncio.timeout(PATIENCE):
        while (await statistics(hub))["memberships"] < joined:
            await asyncio.sleep(0.02)
    publisher.start()
    try:
        await meanwhile(listeners)
    finally:
        last = await asyncio.to_thread(publisher.stop)
    for one in listeners:
        await one.until_got(expected_by("one" if one.kind == "leaver" else one.kind, last)[-1])
    found = await statistics(hub)
    assert set(found["dropped"]) <= {"moved"}, found
    for one in listeners:
        await one.close()
    async with asyncio.timeout(PATIENCE):  # and nothing stays behind
        while (found := await statistics(hub))["memberships"] or found["parked"]:
            await asyncio.sleep(0.05)
    return listeners


async def statistics(hub: Hub) -> dict[str, Any]:
    layer = LocalChannelLayer(hub.path)
    try:
        return await layer.statistics()
    finally:
        await layer.close()


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("server", "synchronous"),
    [
        ("uvicorn", False),
        pytest.param("uvicorn", True, marks=pytest.mark.thorough),
        pytest.param("hypercorn", False, marks=pytest.mark.thorough),
    ],
)
def test_no_message_is_missed_or_doubled_by_deploys(
    tmp_path: Path, server: str, synchronous: bool
) -> None:
    with site_with_hub(tmp_path, workers=2, interfaces=2, server=server) as (site, hub):

        async def deploys(listeners: list[Listener]) -> None:
            (leaver,) = (one for one in listeners if one.kind == "leaver")
            await asyncio.to_thread(site.deploy)
            deploying = asyncio.create_task(asyncio.to_thread(site.deploy))
            await leaver.connection.send("leave the letters")
            await deploying
            await leaver.until(lambda: not any(group_of(n) == "letters" for n in leaver.got[-20:]))
            await asyncio.to_thread(site.deploy)
            await leaver.until_got(leaver.got[-1] + 100)

        listeners = asyncio.run(published(site, hub, KINDS, deploys, synchronous))
        for one in listeners:
            last = one.got[-1]
            expected = expected_by(one.kind, last)
            if one.kind == "leaver":
                letters = [number for number in one.got if group_of(number) == "letters"]
                stayed = letters[-1]
                assert letters == [n for n in expected if group_of(n) == "letters" and n <= stayed]
                assert stayed < last - 100
                expected = [n for n in expected if n <= stayed or group_of(n) == "numbers"]
            assert one.got == expected, one.kind
            reasons = [line.split()[0] for line in site.lines(f"{one.name}.scopes")]
            assert reasons == ["None"] + ["deploy"] * (len(reasons) - 1) and len(reasons) > 3
        print({one.kind: len(one.got) for one in listeners})


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.thorough
def test_a_kill_costs_at_most_the_message_in_hand(tmp_path: Path) -> None:
    dice = random.Random("groups")
    with site_with_hub(tmp_path, workers=2) as (site, hub):

        async def kills(listeners: list[Listener]) -> None:
            for _ in range(2):
                for pid in await asyncio.to_thread(site.pids):
                    await asyncio.sleep(dice.random() * 0.2)
                    os.kill(pid, signal.SIGKILL)
                    await asyncio.to_thread(site.wait_for_workers, 2, [pid])

        kinds = ("one", "several", "late", "untidy", "sync")
        listeners = asyncio.run(published(site, hub, kinds, kills))
        missing = {}
        for one in listeners:
            assert one.got == sorted(set(one.got)), one.kind  # in order, and nothing twice
            expected = expected_by(one.kind, one.got[-1])
            lost = set(expected) - set(one.got)
            reasons = [line.split()[0] for line in site.lines(f"{one.name}.scopes")]
            missing[one.kind] = len(lost), reasons.count("crash")
            assert len(lost) <= reasons.count("crash"), (one.kind, sorted(lost))
            assert set(one.got) <= set(expected)
        assert any(crashes for _, crashes in missing.values())
        print("lost, crashes:", missing)


@pytest.mark.slow
@pytest.mark.thorough
def test_a_message_that_a_consumer_is_cancelled_over_does_not_come_again(tmp_path: Path) -> None:
    with site_with_hub(tmp_path, stop_timeout=3) as (site, hub):

        async def deploy(listeners: list[Listener]) -> None:
            (stuck,) = listeners
            await stuck.until_got(1)
            await asyncio.to_thread(site.deploy)
            await stuck.until_got(2)  # by the next one
            assert stuck.got == [1, 2]
            site.tell("go")

        (stuck,) = asyncio.run(published(site, hub, ("stuck",), deploy))
        assert stuck.got == expected_by("stuck", stuck.got[-1])
        reasons = [line.split()[0] for line in site.lines("stuck.scopes")]
        assert reasons == ["None", "deploy"]


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.thorough
def test_no_message_is_missed_while_the_hub_is_replaced_too(tmp_path: Path) -> None:
    with site_with_hub(tmp_path, workers=2) as (site, hub):

        async def replacements(listeners: list[Listener]) -> None:
            deploying = asyncio.create_task(asyncio.to_thread(site.deploy))
            while not deploying.done():
                former = hub.process
                assert former is not None
                await asyncio.to_thread(hub.start, "--takeover")
                assert await asyncio.to_thread(former.wait, PATIENCE) == 0
                await asyncio.sleep(0.2)
            await deploying

        kinds = ("one", "several", "late", "untidy", "sync")
        listeners = asyncio.run(published(site, hub, kinds, replacements))
        for one in listeners:
            assert one.got == expected_by(one.kind, one.got[-1]), one.kind
