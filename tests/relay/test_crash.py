"""Workers that are killed under open WebSockets and under requests, and what is lost with them."""

import asyncio
import os
import random
import signal
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.relay.stage import Stage, mean_pause, stage
from tests.relay.talk import PATIENCE, Talk, ask, closed, converse, dial

SERVERS = ["uvicorn", "granian", "hypercorn", "daphne"]


# WebSockets


async def kills(stage: Stage, rounds: int, dice: random.Random) -> int:
    """Kill every worker `rounds` times, one after the other, at random moments."""
    number = 0
    for turn in range(rounds):
        if turn:
            await asyncio.to_thread(stage.deploy)  # which also forgives their slots the crashes
        pids = await asyncio.to_thread(stage.pids)
        for pid in pids:
            await asyncio.sleep(dice.random() * 0.2)
            os.kill(pid, signal.SIGKILL)
            number += 1
            await asyncio.to_thread(stage.wait_for_workers, len(pids), [pid])
    return number


def crashes(directory: Path, seed: str, rounds: int, sockets: int, redeliver: bool) -> int:
    web = f"redeliver = {str(redeliver).lower()}"
    with stage(directory, workers=3, interfaces=2, web=web) as site:
        killed = 0

        async def run() -> list[Talk]:
            nonlocal killed
            talks = [Talk(site.address, f"talk-{place}", seed) for place in range(sockets)]

            async def meanwhile() -> None:
                nonlocal killed
                killed = await kills(site, rounds, random.Random(seed))

            await converse(talks, meanwhile, lossy=True)
            return talks

        talks = asyncio.run(run())
        missing = repeated = crashes = 0
        for talk in talks:
            scopes = [line.split() for line in site.lines(f"{talk.name}.scopes")]
            own = sum(reason == "crash" for _, _, reason, _ in scopes)
            crashes += own
            once, twice = losses(site, talk, redeliver)
            assert once + twice <= own, talk.name
            missing += once
            repeated += twice
        assert crashes
        found = site.metrics()
        assert site.sum(found, "handovers_total", cause="crash", result="moved") == crashes
        assert site.sum(found, "handovers_total", cause="crash") == crashes
        lost, again = (site.sum(found, f"messages_{one}_total") for one in ("lost", "redelivered"))
        if redeliver:
            assert missing == lost == 0
            assert repeated <= again
        else:
            assert repeated == again == 0
            assert missing <= lost
        print(
            f"{killed} kills, {crashes} sockets moved, {sum(len(one.sent) for one in talks)} "
            f"messages, {missing} echoes missing, {repeated} seen twice, "
            f"counted {lost:.0f} lost, {again:.0f} redelivered, mean pause "
            f"{mean_pause(found) * 1000:.1f} ms, "
            f"longest echo {max(talk.longest for talk in talks) * 1000:.0f} ms"
        )
        return killed


def losses(site: Stage, talk: Talk, redeliver: bool) -> tuple[int, int]:
    """Return how many messages were lost and how many came twice, to one of both sides."""
    expected = list(enumerate(talk.sent, 1))
    written = [line.split() for line in site.lines(talk.name)]
    app = [(int(number), digest) for number, digest, *_ in written]
    again = [(int(number), digest) for number, digest, flag, _ in written if flag == "1"]
    for seen in (app, talk.back):
        assert set(seen) <= set(expected)
        assert seen == sorted(seen)  # in order
        assert max(map(seen.count, seen)) <= 2
    if not redeliver:
        assert len(set(app)) == len(app) and not again
        assert len(set(talk.back)) == len(talk.back)
        return len(set(expected) - set(talk.back)), 0
    assert set(app) == set(talk.back) == set(expected)
    twice = {one for one in app if app.count(one) == 2}
    assert twice <= set(again)  # whoever sees it again, knows
    return 0, len(twice | {one for one in talk.back if talk.back.count(one) == 2})


@pytest.mark.parametrize("redeliver", [False, True])
def test_a_kill_costs_at_most_the_message_in_hand(tmp_path: Path, redeliver: bool) -> None:
    crashes(tmp_path, f"k{redeliver}", rounds=1, sockets=12, redeliver=redeliver)


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.timeout(400)
@pytest.mark.parametrize("redeliver", [False, True])
def test_a_hundred_kills_cost_at_most_the_messages_in_hand(tmp_path: Path, redeliver: bool) -> None:
    killed = crashes(tmp_path, f"K{redeliver}", rounds=18, sockets=12, redeliver=redeliver)
    assert killed == 54


def test_the_message_in_hand_is_lost_or_given_again(tmp_path: Path) -> None:
    routes = 'serves = ["http", "websocket", { route = "websocket:/echo/again", redeliver = true }]'
    with stage(tmp_path, workers=2) as site:
        config = site.run.config.read_text()
        site.run.config.write_text(config.replace('serves = ["http", "websocket"]', routes))
        site.reload()

        async def run() -> None:
            once = await dial(site.address, "/echo/once")
            again = await dial(site.address, "/echo/again")
            for name, connection in (("once", once), ("again", again)):
                await connection.send("1 0 wait go ")
                await connection.send("2 0 ")
                (line,) = await asyncio.to_thread(site.wait_for_line, name)
                os.kill(int(line.split()[3]), signal.SIGKILL)
                if connection is once:  # before the worker where it is now may be killed
                    assert await asyncio.wait_for(once.recv(), PATIENCE) == "2 0 "
            await asyncio.to_thread(site.wait_for_line, "again", 2)
            site.tell("go")
            assert await asyncio.wait_for(again.recv(), PATIENCE) == "1 0 wait go "
            assert await asyncio.wait_for(again.recv(), PATIENCE) == "2 0 "
            await once.close()
            await again.close()

        asyncio.run(run())
        assert [line.split()[0] for line in site.lines("once")] == ["1", "2"]
        flags = [line.split()[::2] for line in site.lines("again")]
        assert flags == [["1", "0"], ["1", "1"], ["2", "0"]]
        found = site.metrics()
        assert site.sum(found, "messages_lost_total") == 1
        assert site.sum(found, "messages_redelivered_total") == 1


def test_what_kills_three_workers_is_not_tried_again(tmp_path: Path) -> None:
    with stage(tmp_path, workers=4, web="redeliver = true") as site:

        async def run() -> None:
            bystanders = [await dial(site.address, f"/echo/bystander-{n}") for n in range(4)]
            for connection in bystanders:
                assert await ask(connection, "1 0 ") == "1 0 "
            # A message:
            killer = await dial(site.address, "/echo/message")
            await killer.send("1 0 die ")
            assert (await closed(killer))[0] == 1011
            assert len(site.lines("message")) == 3
            await asyncio.to_thread(site.wait_for_workers, 4)
            # A handshake:
            with pytest.raises(InvalidStatus) as denied:
                await dial(site.address, "/echo/opening?first=die")
            assert denied.value.response.status_code == 502
            assert len(site.lines("opening.scopes")) == 3
            await asyncio.to_thread(site.wait_for_workers, 4)
            # A request:
            async with httpx.AsyncClient(base_url=site.url, timeout=PATIENCE) as client:
                assert (await client.get("/take/request?die=1")).status_code == 502
            assert len(site.lines("request")) == 3
            assert site.metric("poison_total") == 3
            for connection in bystanders:
                assert await ask(connection, "2 0 ") == "2 0 "
                await connection.close()

        asyncio.run(run())
        for number in range(4):
            assert [line.split()[0] for line in site.lines(f"bystander-{number}")] == ["1", "2"]
        output = site.run.output()
        assert output.count("poison") == 3
        assert "GET /take/request" in output and "/echo/message" in output


@pytest.mark.parametrize("killer", ["message", "request"])
@pytest.mark.thorough
def test_innocents_are_not_taken_for_poison(tmp_path: Path, killer: str) -> None:
    """Who had something in hand where the killer struck is tried again, and comes through."""
    with stage(tmp_path, workers=3, web="redeliver = true") as site:

        async def kill(client: httpx.AsyncClient) -> None:
            if killer == "request":
                assert (await client.get("/take/request?die=1")).status_code == 502
            else:
                connection = await dial(site.address, "/echo/killer")
                await connection.send("1 0.1 die ")
                assert (await closed(connection))[0] == 1011

        async def run() -> None:
            async with httpx.AsyncClient(base_url=site.url, timeout=2 * PATIENCE) as client:
                innocents = [await dial(site.address, f"/echo/innocent-{n}") for n in range(3)]
                for connection in innocents:
                    await connection.send("1 0.3 ")
                asking = [asyncio.create_task(client.get("/crowd/x?work=0.3")) for _ in range(3)]
                await kill(client)
                for connection in innocents:
                    assert await asyncio.wait_for(connection.recv(), PATIENCE) == "1 0.3 "
                    assert await ask(connection, "2 0 ") == "2 0 "
                    await connection.close()
                for answer in await asyncio.gather(*asking):
                    assert answer.status_code == 200

        asyncio.run(run())
        assert site.metric("poison_total") == 1


def test_what_is_not_redelivered(tmp_path: Path) -> None:
    """A message that kills is gone with its worker, and the WebSocket continues."""
    with stage(tmp_path, workers=2) as site:

        async def run() -> None:
            connection = await dial(site.address, "/echo/a")
            for number in (1, 3, 5, 7):
                await connection.send(f"{number} 0 die ")
                assert await ask(connection, f"{number + 1} 0 ") == f"{number + 1} 0 "
            await connection.close()

        asyncio.run(run())
        assert [int(line.split()[0]) for line in site.lines("a")] == list(range(1, 9))
        found = site.metrics()
        assert site.sum(found, "messages_lost_total") == 4
        assert site.sum(found, "poison_total") == 0


def test_a_post_in_hand_is_tried_again_where_it_may(tmp_path: Path) -> None:
    with stage(tmp_path, workers=2, web="redeliver = true") as site:

        async def run() -> None:
            async with httpx.AsyncClient(base_url=site.url, timeout=PATIENCE) as client:
                content = b"x" * 50_000
                post = asyncio.create_task(client.post("/take/post?until=go", content=content))
                (line,) = await asyncio.to_thread(site.wait_for_line, "post")
                os.kill(int(line.split()[1]), signal.SIGKILL)
                await asyncio.to_thread(site.wait_for_line, "post", 2)
                site.tell("go")
                assert (await post).content.endswith(b" " + content)

        asyncio.run(run())
        assert site.metric("retries_total") == 1


def test_a_handover_that_kills_three_workers_is_not_tried_again(tmp_path: Path) -> None:
    with stage(tmp_path, workers=4) as site:

        async def run() -> None:
            connection = await dial(site.address, "/echo/a?anew=die")
            assert await ask(connection, "1 0 ") == "1 0 "
            pid = int(site.lines("a")[0].split()[3])
            os.kill(pid, signal.SIGKILL)
            assert (await closed(connection))[0] == 1011
            assert len(site.lines("a.scopes")) == 4
            assert site.metric("handovers_total", cause="crash", result="poison") == 1

        asyncio.run(run())


# Requests


def test_requests_of_a_killed_worker(tmp_path: Path) -> None:
    """A GET is tried again, and so is a POST that no app has seen; another POST is not."""
    with stage(tmp_path, workers=2) as site:

        async def run() -> None:
            async with httpx.AsyncClient(base_url=site.url, timeout=PATIENCE) as client:

                async def begun(method: str, name: str) -> "asyncio.Task[httpx.Response]":
                    content = b"body" if method == "POST" else None
                    path = f"/take/{name}?until=go-{name}"
                    task = asyncio.create_task(client.request(method, path, content=content))
                    await asyncio.to_thread(site.wait_for_line, name)
                    return task

                get, post = await begun("GET", "get"), await begun("POST", "post")
                first, other = (int(site.lines(name)[0].split()[1]) for name in ("get", "post"))
                assert first != other  # the one with fewer requests
                os.kill(first, signal.SIGKILL)
                await asyncio.to_thread(site.wait_for_line, "get", 2)
                site.tell("go-get")
                answer = await get
                assert answer.status_code == 200
                assert int(answer.text.split()[0]) != first
                os.kill(other, signal.SIGKILL)
                assert (await post).status_code == 502
                assert len(site.lines("get")) == 2 and len(site.lines("post")) == 1

                # Frozen before it can read: nothing of it has reached an app.
                await asyncio.to_thread(site.wait_for_workers, 2, [first, other])
                site.scale(1)
                (frozen,) = site.pids()
                os.kill(frozen, signal.SIGSTOP)
                posting = asyncio.create_task(client.post("/take/unread", content=b"x" * 60_000))
                await asyncio.to_thread(
                    site.wait_for, lambda: site.metric("requests_in_flight") == 1, "request"
                )
                os.kill(frozen, signal.SIGKILL)
                answer = await posting
                assert answer.status_code == 200
                assert len(answer.content.split()[1]) == 60_000
                assert len(site.lines("unread")) == 1
                found = site.metrics()
                assert site.sum(found, "failed_total") == 1
                assert site.sum(found, "retries_total") == 2

        asyncio.run(run())


@pytest.mark.parametrize("server", SERVERS)
def test_a_response_that_has_begun_is_broken_off(tmp_path: Path, server: str) -> None:
    """Whatever carries the relay: the client must see that the body is not complete."""
    with stage(tmp_path, server=server, workers=2) as site:

        async def one(query: str, name: str) -> None:
            path = f"/begin/{name}?until=never&{query}"
            async with (
                httpx.AsyncClient(base_url=site.url, timeout=PATIENCE) as client,
                client.stream("GET", path) as answer,
            ):
                assert answer.status_code == 200
                body = answer.aiter_raw()
                assert len(await anext(body)) == 500
                pid = int(site.lines(name)[0].split()[1])
                os.kill(pid, signal.SIGKILL)
                with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                    await anext(body)

        async def run() -> None:
            await one("", "chunked")
            await one("length=1", "sized")

        asyncio.run(run())
        assert len(site.lines("chunked")) == len(site.lines("sized")) == 1
        assert site.metric("failed_total") == 2


# The interface


def test_an_interface_that_is_killed_takes_only_its_own_clients_along(tmp_path: Path) -> None:
    with stage(tmp_path, interfaces=2, workers=2) as site:

        async def run() -> None:
            names = [f"user-{number}" for number in range(12)]
            opened = {name: await dial(site.address, f"/present/{name}") for name in names}
            ends = {name: asyncio.create_task(closed(one)) for name, one in opened.items()}
            doomed = site.pids("interface")[0]
            workers = site.pids()
            os.kill(doomed, signal.SIGKILL)
            await asyncio.wait(ends.values(), return_when=asyncio.FIRST_COMPLETED)

            def present() -> set[str]:
                return {path.name for path in (site.place / "present").iterdir()}

            def are_gone() -> bool:
                lost = {name for name, end in ends.items() if end.done()}
                return bool(lost) and present() == set(names) - lost

            loop = asyncio.get_running_loop()
            deadline = loop.time() + PATIENCE
            while not are_gone() and loop.time() < deadline:
                await asyncio.sleep(0.02)
            assert are_gone()
            left = present()
            assert left and left != set(names)
            for name, end in ends.items():
                if name in left:
                    end.cancel()
                    await asyncio.gather(end, return_exceptions=True)
                    assert await ask(opened[name], "hello") == "hello"
                else:
                    assert (await end)[0] == 1006
            assert site.pids() == workers
            # Its successor serves as it did.
            await asyncio.to_thread(site.wait_for_workers, 2, [doomed], "interface")
            for _ in range(8):
                connection = await dial(site.address, "/present/late")
                assert await ask(connection, "hello") == "hello"
                await connection.close()
            await asyncio.gather(*(opened[name].close() for name in left))

        asyncio.run(run())


@pytest.mark.parametrize("server", SERVERS)
def test_an_interface_that_is_replaced_says_so(tmp_path: Path, server: str) -> None:
    with stage(tmp_path, server=server) as site:

        async def run() -> None:
            opened = [await dial(site.address, f"/echo/{number}") for number in range(6)]
            ends = [asyncio.create_task(closed(one)) for one in opened]
            workers = site.pids()
            deploying = asyncio.create_task(asyncio.to_thread(site.deploy, "interface"))
            for end in ends:
                assert (await end)[0] == 1012
            await deploying
            assert site.pids() == workers
            for number in range(6):
                await asyncio.to_thread(site.wait_for_line, f"{number}.ends")
            connection = await dial(site.address, "/echo/new")
            assert await ask(connection, "1 0 ") == "1 0 "
            await connection.close()

        asyncio.run(run())


# Workers that hang


@pytest.mark.thorough
def test_a_frozen_worker_is_killed_and_its_sockets_move(tmp_path: Path) -> None:
    with stage(tmp_path, workers=2, web="liveness_timeout = 3") as site:

        async def run() -> None:
            opened = [await dial(site.address, f"/echo/{number}") for number in range(4)]
            for connection in opened:
                assert await ask(connection, "1 0 ") == "1 0 "
            frozen = site.pids()[0]
            os.kill(frozen, signal.SIGSTOP)
            for connection in opened:
                await connection.send("2 0 ")
                await connection.send("3 0 ")
            for connection in opened:
                assert await asyncio.wait_for(connection.recv(), PATIENCE) in ("2 0 ", "3 0 ")
                await connection.close()
            await asyncio.to_thread(site.wait_for_workers, 2, [frozen])

        asyncio.run(run())
        found = site.metrics()
        moved = sum(len(site.lines(f"{number}.scopes")) - 1 for number in range(4))
        assert moved > 0
        assert site.sum(found, "handovers_total", cause="crash", result="moved") == moved
        assert site.sum(found, "messages_lost_total") == moved
        restarts = {slot.name: slot.restarts for slot in site.slots()}
        assert {"hang": 1} in restarts.values(), restarts


def test_everybody_moves_after_a_kill(tmp_path: Path) -> None:
    with stage(tmp_path, workers=2, web="redeliver = true") as site:

        async def run() -> float:
            opened = [await dial(site.address, f"/echo/{number}") for number in range(100)]
            loop = asyncio.get_running_loop()
            os.kill(site.pids()[0], signal.SIGKILL)
            began = loop.time()
            for connection in opened:
                await connection.send("1 0 ")
            for connection in opened:
                assert await asyncio.wait_for(connection.recv(), PATIENCE) == "1 0 "
            needed = loop.time() - began
            for connection in opened:
                connection.transport.abort()
            return needed

        needed = asyncio.run(run())
        print(f"{needed * 1000:.0f} ms")
        assert needed < 10  # on a quiet machine, far less than one
        moved = sum(len(site.lines(f"{number}.scopes")) - 1 for number in range(100))
        assert site.metric("handovers_total", cause="crash", result="moved") == moved > 0
