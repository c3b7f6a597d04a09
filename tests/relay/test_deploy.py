"""Deploys while requests are under way, WebSockets open or close, and routes change."""

import asyncio
import os
import random
import signal
from pathlib import Path

import httpx

from tests.relay.stage import stage
from tests.relay.talk import PATIENCE, ask, closed, dial


def test_requests_finish_where_they_are(tmp_path: Path) -> None:
    """Streamed down, streamed up, and not answered yet; what is new goes to the new worker."""
    with stage(tmp_path) as site:
        (old,) = site.pids()

        async def run() -> None:
            async with httpx.AsyncClient(base_url=site.url, timeout=PATIENCE) as client:
                half_sent = asyncio.Event()

                async def halves() -> "asyncio.AsyncIterator[bytes]":  # type: ignore[name-defined]
                    yield b"x" * 100_000
                    half_sent.set()
                    await asyncio.to_thread(site.wait_for, (site.place / "go").exists, "go")
                    yield b"y" * 100_000

                answering = asyncio.create_task(client.get("/take/get?until=go"))
                uploading = asyncio.create_task(client.post("/take/post", content=halves()))
                await asyncio.to_thread(site.wait_for_line, "get")
                await asyncio.to_thread(site.wait_for_line, "post")
                await half_sent.wait()
                async with client.stream("GET", "/begin/stream?until=go") as answer:
                    body = answer.aiter_raw()
                    assert await anext(body) == b"x" * 500
                    deploying = asyncio.create_task(asyncio.to_thread(site.deploy))
                    await asyncio.to_thread(site.wait_for_workers, 1, [old])
                    (new,) = site.pids()
                    for _ in range(5):
                        assert int((await client.get("/pid")).text.split()[1]) == new
                    assert not deploying.done()
                    site.tell("go")
                    assert [piece async for piece in body] == [b"x" * 500]
                assert int((await answering).text.split()[0]) == old
                pid, content = (await uploading).content.split()
                assert int(pid) == old and content == b"x" * 100_000 + b"y" * 100_000
                await deploying

        asyncio.run(run())
        assert len(site.lines("get")) == len(site.lines("post")) == len(site.lines("stream")) == 1
        found = site.metrics()
        assert site.sum(found, "failed_total") == site.sum(found, "retries_total") == 0


def test_requests_that_take_too_long(tmp_path: Path) -> None:
    """When stop_timeout is over: again elsewhere, 502, or broken off; never silence."""
    with stage(tmp_path, stop_timeout=3) as site:
        (old,) = site.pids()

        async def run() -> None:
            async with httpx.AsyncClient(base_url=site.url, timeout=PATIENCE) as client:
                get = asyncio.create_task(client.get("/take/get?until=go"))
                post = asyncio.create_task(client.post("/take/post?until=go", content=b"body"))
                await asyncio.to_thread(site.wait_for_line, "get")
                await asyncio.to_thread(site.wait_for_line, "post")
                async with client.stream("GET", "/begin/stream?until=go") as answer:
                    body = answer.aiter_raw()
                    assert await anext(body) == b"x" * 500
                    await asyncio.to_thread(site.deploy)
                    broken = False
                    try:
                        await anext(body)
                    except httpx.TransportError:
                        broken = True
                    assert broken
                assert (await post).status_code == 502
                await asyncio.to_thread(site.wait_for_line, "get", 2)
                site.tell("go")
                assert int((await get).text.split()[0]) in site.pids()

        asyncio.run(run())
        assert [line.split()[1] == str(old) for line in site.lines("get")] == [True, False]
        assert len(site.lines("post")) == 1


def test_a_websocket_that_is_not_accepted_yet(tmp_path: Path) -> None:
    with stage(tmp_path) as site:

        async def run() -> None:
            opening = asyncio.create_task(dial(site.address, "/echo/a?first=wait:go"))
            await asyncio.to_thread(site.wait_for_line, "waiting")
            (old,) = site.pids()
            deploying = asyncio.create_task(asyncio.to_thread(site.deploy))
            await asyncio.to_thread(site.wait_for_workers, 1, [old])
            site.tell("go")
            connection = await opening
            assert await ask(connection, "1 0 ") == "1 0 "
            await deploying
            assert await ask(connection, "2 0 ") == "2 0 "
            await connection.close()

        asyncio.run(run())
        counts = [line.split()[1:3] for line in site.lines("a.scopes")]
        assert counts == [["0", "None"], ["1", "deploy"]]


def test_what_is_said_before_leaving_is_heard(tmp_path: Path) -> None:
    """Clients that speak and close at once, while workers are replaced and leave."""
    with stage(tmp_path, workers=2, interfaces=2) as site:
        dice = random.Random("farewell")
        expected: dict[str, list[str]] = {}

        async def say(name: str) -> None:
            # The app is slower than this: most of it waits in the interface, or before it.
            connection = await dial(site.address, f"/hear/{name}")
            expected[name] = []
            for number in range(1, 21):
                size = dice.choice((0, 100, 30_000))
                text = f"{number} {dice.choice((0, 0.005, 0.02))} " + "x" * size
                expected[name].append(f"{number} {len(text)}")
                await connection.send(text)
            await connection.close()

        async def run() -> None:
            deploying = asyncio.create_task(asyncio.to_thread(site.deploy))
            number = 0
            while not deploying.done() or number < 60:
                names = [f"visitor-{number + place}" for place in range(6)]
                await asyncio.gather(*map(say, names))
                number += 6
            await deploying
            for name in expected:
                await asyncio.to_thread(site.wait_for_line, name, 20)

        asyncio.run(run())
        for name, said in expected.items():
            assert site.lines(name) == said, name


def test_websockets_of_a_pool_that_is_no_more_follow_their_route(tmp_path: Path) -> None:
    with stage(tmp_path, workers=2) as site:

        async def run() -> None:
            opened = [await dial(site.address, f"/echo/{number}") for number in range(6)]
            other = await dial(site.address, "/hear/other")
            for connection in opened:
                assert await ask(connection, "1 0 ") == "1 0 "
            text = site.run.config.read_text()
            web = text[text.index("[workers.web]") : text.index("[rollout]")]
            live = '[workers.live]\nserves = ["websocket:/echo/*"]\nprocesses = 1\n\n'
            pages = '[workers.pages]\nserves = ["http"]\nprocesses = 1\n\n'
            site.run.config.write_text(text.replace(web, live + pages))
            await asyncio.to_thread(site.reload)
            assert (await closed(other))[0] == 1012  # nobody serves it any more
            for connection in opened:
                assert await ask(connection, "2 0 ") == "2 0 "
                await connection.close()
            home = site.pids("live")
            for number in range(6):
                assert int(site.lines(str(number))[-1].split()[3]) in home

        asyncio.run(run())
        for number in range(6):
            assert [line.split()[0] for line in site.lines(str(number))] == ["1", "2"]


def test_websockets_follow_their_route_to_a_new_pool(tmp_path: Path) -> None:
    with stage(tmp_path) as site:

        async def run() -> None:
            opened = [await dial(site.address, f"/echo/{number}") for number in range(4)]
            stays = await dial(site.address, "/note/stays")
            live = '[workers.live]\nserves = ["websocket:/echo/*"]\nprocesses = 1\n\n[rollout]'
            text = site.run.config.read_text()
            site.run.config.write_text(text.replace("[rollout]", live))
            await asyncio.to_thread(site.reload)  # routes change when all of it is done
            await asyncio.to_thread(site.deploy)
            home = site.pids("live")
            for number, connection in enumerate(opened):
                assert await ask(connection, "1 0 ") == "1 0 "
                assert int(site.lines(str(number))[-1].split()[3]) in home
                await connection.close()
            assert await ask(stays, "?") == "2 None"
            await stays.close()

        asyncio.run(run())


def test_a_frozen_interface_loses_nothing(tmp_path: Path) -> None:
    with stage(tmp_path) as site:

        async def run() -> None:
            connection = await dial(site.address, "/echo/a")
            pushed = await dial(site.address, "/push/b")
            (frozen,) = site.pids("interface")
            os.kill(frozen, signal.SIGSTOP)
            try:
                for number in range(1, 200):
                    await connection.send(f"{number} 0 " + "x" * 1000)
                deploying = asyncio.create_task(asyncio.to_thread(site.deploy))
                await asyncio.sleep(1)  # the deploy runs into it
            finally:
                os.kill(frozen, signal.SIGCONT)
            for number in range(1, 200):
                message = await asyncio.wait_for(connection.recv(), PATIENCE)
                assert int(str(message).split()[0]) == number
            await deploying
            for number in range(1, 300):
                assert await asyncio.wait_for(pushed.recv(), PATIENCE) == str(number)
            await connection.close()
            await pushed.close()

        asyncio.run(run())
        assert [int(line.split()[0]) for line in site.lines("a")] == list(range(1, 200))


def test_a_route_that_closes_does_so_after_a_crash_too(tmp_path: Path) -> None:
    with stage(tmp_path, workers=2, web='handover = "close"') as site:

        async def run() -> int:
            opened = [await dial(site.address, f"/echo/{number}") for number in range(4)]
            for connection in opened:
                assert await ask(connection, "1 0 ") == "1 0 "
            doomed = int(site.lines("0")[0].split()[3])
            home = [int(site.lines(str(number))[0].split()[3]) for number in range(4)]
            os.kill(doomed, signal.SIGKILL)
            for connection, pid in zip(opened, home, strict=True):
                if pid == doomed:
                    assert (await closed(connection))[0] == 1012
                else:
                    assert await ask(connection, "2 0 ") == "2 0 "
                    await connection.close()
            return home.count(doomed)

        assert asyncio.run(run()) == site.metric("handovers_total", cause="crash", result="closed")
