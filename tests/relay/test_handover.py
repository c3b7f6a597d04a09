"""Deploys under open WebSockets: whatever is said arrives, once and in order."""

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection

from tests.relay.stage import Stage, mean_pause, stage
from tests.relay.talk import Talk, ask, converse, dial


async def deploys(stage: Stage, number: int, dice: random.Random) -> None:
    """Replace the workers again and again, now this way, now that, at random moments."""
    for _ in range(number):
        await asyncio.sleep(dice.random() * 0.2)
        if dice.random() < 0.7:
            await asyncio.to_thread(stage.deploy)
        else:  # one is asked to leave by somebody else: another takes its place
            pids = await asyncio.to_thread(stage.pids)
            leaving = dice.choice(pids)
            os.kill(leaving, signal.SIGTERM)
            await asyncio.to_thread(stage.wait_for_workers, len(pids), [leaving])


def all_attached(stage: Stage, sockets: int) -> bool:
    """Whether every WebSocket is with a worker, and none is about to leave one."""
    found = stage.metrics()
    return (
        stage.sum(found, "websockets_attached") == sockets
        and stage.sum(found, "websockets_paused") == 0
        and not any(slot.draining for slot in stage.slots())
    )


def assert_complete(stage: Stage, talk: Talk) -> None:
    """Everything went both ways exactly once, in order."""
    expected = list(enumerate(talk.sent, 1))
    assert talk.back == expected
    written = [line.split() for line in stage.lines(talk.name)]
    assert [(int(number), digest) for number, digest, *_ in written] == expected
    assert {again for _, _, again, _ in written} == {"0"}


def conversation(
    directory: Path, seed: str, number: int, sockets: int, workers: int, server: str = "uvicorn"
) -> None:
    with stage(directory, workers=workers, interfaces=2, server=server) as site:

        async def meanwhile() -> None:
            await deploys(site, number, random.Random(seed))
            # Who left while it still moves would have moved once less than the app was called.
            await asyncio.to_thread(
                site.wait_for, lambda: all_attached(site, sockets), "the last handover"
            )

        async def run() -> list[Talk]:
            talks = [Talk(site.address, f"talk-{place}", seed) for place in range(sockets)]
            await converse(talks, meanwhile)
            return talks

        talks = asyncio.run(run())
        for talk in talks:
            assert_complete(site, talk)
            scopes = [line.split() for line in site.lines(f"{talk.name}.scopes")]
            assert [int(count) for _, count, *_ in scopes] == list(range(len(scopes)))
            assert [reason for _, _, reason, _ in scopes][1:] == ["deploy"] * (len(scopes) - 1)
            ends = site.wait_for_line(f"{talk.name}.ends", len(scopes))
            assert ends[:-1] == ["1012 handover"] * (len(scopes) - 1)
        moved = sum(len(site.lines(f"{talk.name}.scopes")) - 1 for talk in talks)
        assert moved >= sockets  # each one at least once
        found = site.metrics()
        assert site.sum(found, "handovers_total", cause="deploy", result="moved") == moved
        assert site.sum(found, "handovers_total") == moved
        assert site.sum(found, "messages_held") == site.sum(found, "websockets_paused") == 0
        print(
            f"{sum(len(talk.sent) for talk in talks)} messages, {moved} handovers, mean pause "
            f"{mean_pause(found) * 1000:.1f} ms, "
            f"longest echo {max(talk.longest for talk in talks) * 1000:.0f} ms"
        )


@pytest.mark.parametrize(("seed", "workers"), [("a", 1), ("b", 2)])
def test_numbers_arrive_once_and_in_order(tmp_path: Path, seed: str, workers: int) -> None:
    conversation(tmp_path, seed, number=3, sockets=8, workers=workers)


@pytest.mark.parametrize("server", ["granian", "hypercorn", "daphne"])
def test_numbers_arrive_whatever_carries_the_relay(tmp_path: Path, server: str) -> None:
    conversation(tmp_path, server, number=2, sockets=6, workers=2, server=server)


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", ["c", "d", "e", "f"])
def test_over_a_hundred_deploys_numbers_arrive_once_and_in_order(tmp_path: Path, seed: str) -> None:
    conversation(tmp_path, seed, number=25, sockets=15, workers=2)


def test_a_deploy_in_the_middle_of_a_message(tmp_path: Path) -> None:
    with stage(tmp_path) as site:

        async def run() -> None:
            first = await dial(site.address, "/echo/a")
            second = await dial(site.address, "/echo/b?linger=go")
            await first.send("1 0 wait go ")
            await second.send("1 0 wait go ")
            for number in range(2, 12):
                await first.send(f"{number} 0 ")  # these wait in the interface, or its server
            await asyncio.to_thread(site.wait_for_line, "a")
            await asyncio.to_thread(site.wait_for_line, "b")
            deploying = asyncio.create_task(asyncio.to_thread(site.deploy))
            await asyncio.to_thread(
                site.wait_for, lambda: site.metric("websockets_paused") == 2, "pause"
            )
            site.tell("go")
            for number in range(1, 12):
                assert str(await first.recv()).split()[0] == str(number)
            assert await second.recv() == "1 0 wait go "
            assert await ask(second, "2 0 ") == "2 0 "
            await deploying
            await first.close()
            await second.close()

        asyncio.run(run())
        pids = [line.split()[3] for line in site.lines("a")]
        assert len(pids) == 11 and pids[0] != pids[1] and len(set(pids)) == 2


def test_a_large_message_in_the_middle_of_a_deploy(tmp_path: Path) -> None:
    """Its first half has come to the interface, the other half comes when the worker is new."""
    with stage(tmp_path) as site:

        async def run() -> None:
            connection = await dial(site.address, "/echo/a")
            size = 300_000

            async def halves() -> "asyncio.AsyncIterator[str]":  # type: ignore[name-defined]
                yield "1 0 " + "ä" * size
                await asyncio.to_thread(site.deploy)
                yield "ö" * size

            await connection.send(halves())
            assert await connection.recv() == "1 0 " + "ä" * size + "ö" * size
            await connection.close()

        asyncio.run(run())
        assert [line.split()[0] for line in site.lines("a")] == ["1"]


# What the app sends by itself


@pytest.mark.thorough
def test_a_counter_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    with stage(tmp_path, workers=2, interfaces=2) as site:
        seen: list[list[int]] = [[] for _ in range(6)]

        async def listen(connection: ClientConnection, numbers: list[int]) -> None:
            async for message in connection:
                numbers.append(int(message))

        async def run() -> None:
            paths = [f"/push/{kind}?as={kind}" for kind in ("bytes", "str") for _ in range(3)]
            connections = [await dial(site.address, path) for path in paths]
            listening = [
                asyncio.create_task(listen(*pair)) for pair in zip(connections, seen, strict=True)
            ]
            await deploys(site, 3, random.Random("push"))
            before = [len(numbers) for numbers in seen]
            async with asyncio.timeout(10):
                while any(len(now) < 10 + was for now, was in zip(seen, before, strict=True)):
                    await asyncio.sleep(0.02)
            for connection in connections:
                await connection.close()
            await asyncio.gather(*listening)

        asyncio.run(run())
        for numbers in seen:
            assert numbers == list(range(1, len(numbers) + 1))
        for kind in ("bytes", "str"):
            scopes = [line.split() for line in site.lines(f"{kind}.scopes")]
            assert scopes.count(["0", "None", "NoneType"]) == 3
            assert {tuple(one[1:]) for one in scopes if one[0] != "0"} == {("deploy", kind)}


def test_checkpoints_are_kept_and_too_large_ones_are_the_app_s_error(tmp_path: Path) -> None:
    with stage(tmp_path) as site:

        async def run() -> None:
            connection = await dial(site.address, "/note/a")
            assert await ask(connection, "?") == "0 None"
            assert await ask(connection, "x" * 16_000) == "stored"
            assert (await ask(connection, "x" * 17_000)).startswith("refused: ")
            for count in (1, 2):
                await asyncio.to_thread(site.deploy)
                assert await ask(connection, "?") == f"{count} {'x' * 16_000}"
            await connection.close()

        asyncio.run(run())


def test_a_checkpoint_may_be_the_answer_to_the_goodbye(tmp_path: Path) -> None:
    with stage(tmp_path) as site:

        async def run() -> None:
            connection = await dial(site.address, "/note/a?late=farewell")
            assert await ask(connection, "?") == "0 None"
            await asyncio.to_thread(site.deploy)
            assert await ask(connection, "?") == "1 farewell"
            await connection.close()

        asyncio.run(run())


# What others see


def test_after_deploys_exactly_the_connected_are_present(tmp_path: Path) -> None:
    with stage(tmp_path, workers=2) as site:

        def present() -> set[str]:
            return {path.name for path in (site.place / "present").iterdir()}

        async def run() -> None:
            names = {f"user-{place}" for place in range(20)}
            connections = {name: await dial(site.address, f"/present/{name}") for name in names}
            dice = random.Random("present")
            for _ in range(3):
                leaving = set(dice.sample(sorted(connections), 4))
                deploying = asyncio.create_task(deploys(site, 1, dice))
                await asyncio.sleep(dice.random() * 0.3)
                await asyncio.gather(*(connections.pop(name).close() for name in leaving))
                await deploying
                for connection in connections.values():
                    assert await ask(connection, "hello") == "hello"
                await asyncio.to_thread(
                    site.wait_for, lambda: present() == set(connections), "presence"
                )
            await asyncio.gather(*(one.close() for one in connections.values()))
            await asyncio.to_thread(site.wait_for, lambda: not present(), "nobody")

        asyncio.run(run())
        deeds: dict[str, list[str]] = {}
        for line in site.lines("presence"):
            name, deed, _ = line.split()
            deeds.setdefault(name, []).append(deed)
        for one in deeds.values():
            assert one == ["connect", "disconnect"] * (len(one) // 2)


@pytest.mark.thorough
def test_a_thousand_sockets_stay_open_over_a_reload(tmp_path: Path) -> None:
    count = 1000
    with stage(tmp_path, interfaces=1, web="handover_rate = 2000") as site:

        async def run() -> float:
            loop = asyncio.get_running_loop()
            limit = asyncio.Semaphore(50)

            async def one(place: int) -> ClientConnection:
                async with limit:
                    return await dial(site.address, f"/echo/{place}")

            connections = await asyncio.gather(*(one(place) for place in range(count)))
            config = site.run.config.read_text()
            site.run.config.write_text(config.replace("WITNESS =", 'COLOUR = "blue", WITNESS ='))
            deploying = asyncio.create_task(asyncio.to_thread(site.reload))
            longest, number = 0.0, 0
            while not deploying.done() or number < 2:
                number += 1
                began = loop.time()
                for connection in connections:
                    await connection.send(f"{number} 0 ")
                for connection in connections:
                    assert await asyncio.wait_for(connection.recv(), 10) == f"{number} 0 "
                longest = max(longest, loop.time() - began)
            await deploying
            for connection in connections:
                assert await ask(connection, f"{number + 1} 0 ") == f"{number + 1} 0 "
            for connection in connections:
                connection.transport.abort()
            return longest

        began = time.monotonic()
        longest = asyncio.run(run())
        found = site.metrics()
        assert site.sum(found, "handovers_total") == count
        assert site.sum(found, "handovers_total", result="moved") == count
        print(
            f"mean pause {mean_pause(found) * 1000:.1f} ms, longest round {longest:.2f} s, "
            f"all in {time.monotonic() - began:.1f} s"
        )
