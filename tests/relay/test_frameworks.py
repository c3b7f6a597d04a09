"""Clients of protocols with a session come back by themselves; `check --handover` tells which do not."""

import asyncio
import json
import os
import re
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import socketio
from websockets.asyncio.client import ClientConnection
from websockets.typing import Subprotocol

from tests.relay.stage import Stage, stage
from tests.relay.talk import PATIENCE, closed, dial

HERE = Path(__file__).parent
INIT = {"type": "connection_init"}
SUBSCRIBE = {"id": "1", "type": "subscribe", "payload": {"query": "subscription { count }"}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("frameworks")
    source = (HERE / "frameworks_app.py").read_text()
    (directory / "witness.py").write_text(source)
    with stage(directory, home=directory, workers=2, interfaces=2) as site:
        yield site


def deploy(site: Stage, pid: int) -> None:
    site.deploy()


def crash(site: Stage, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    site.wait_for_workers(2, [pid])


both = pytest.mark.parametrize("ending", [deploy, crash])


@both
def test_a_socket_io_client_comes_back(site: Stage, ending: Callable[[Stage, int], None]) -> None:
    async def run() -> None:
        client = socketio.AsyncClient(reconnection_delay=0.05, randomization_factor=0)
        events: asyncio.Queue[str] = asyncio.Queue()
        client.on("connect", lambda: events.put_nowait("connect"))
        client.on("disconnect", lambda *_: events.put_nowait("disconnect"))

        async def say(text: str) -> list[str]:
            answer: str = await client.call("say", text, timeout=PATIENCE)
            return answer.split()

        async def happened(name: str) -> None:
            assert await asyncio.wait_for(events.get(), PATIENCE) == name

        await client.connect(site.url, transports=["websocket"])
        try:
            await happened("connect")
            assert (await say("a"))[1:] == ["1", "a"]
            pid, *rest = await say("b")
            assert rest == ["2", "b"]
            await asyncio.to_thread(ending, site, int(pid))
            await happened("disconnect")
            await happened("connect")
            other, *rest = await say("c")
            assert rest == ["1", "c"] and other != pid
        finally:
            await client.disconnect()

    asyncio.run(run())


async def subscribe(site: Stage) -> tuple[ClientConnection, int]:
    """Return a connection with a subscription, and the process that serves it."""
    subprotocols = [Subprotocol("graphql-transport-ws")]
    connection = await dial(site.address, "/graphql", subprotocols=subprotocols)
    await connection.send(json.dumps(INIT))
    assert await heard(connection) == {"type": "connection_ack"}
    await connection.send(json.dumps(SUBSCRIBE))
    message = await heard(connection)
    assert message["type"] == "next", message
    return connection, message["payload"]["data"]["count"]


async def heard(connection: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(connection.recv(), PATIENCE))


@both
def test_a_graphql_client_is_told_to_subscribe_again(
    site: Stage, ending: Callable[[Stage, int], None]
) -> None:
    async def run() -> None:
        connection, pid = await subscribe(site)
        ended = asyncio.create_task(closed(connection))
        await asyncio.to_thread(ending, site, pid)
        assert (await ended)[0] == 1012
        connection, other = await subscribe(site)
        assert other != pid
        await connection.close()

    asyncio.run(run())


def tried(site: Stage, path: str, *options: str) -> tuple[int, str]:
    done = site.run.command(
        "check", "--handover", f"ws://{site.address}{path}", "--silence", "0.3", *options
    )
    return done.returncode, done.stdout + done.stderr


def test_an_app_without_a_session_survives(site: Stage) -> None:
    before = site.pids()
    code, said = tried(site, "/echo")
    assert code == 0, said
    assert "survives: after the move the app answers as on a connection that stayed" in said
    assert "word for word" in said
    assert site.pids() == before  # nothing but that WebSocket was touched
    assert site.metric("handovers_total", cause="deploy", result="moved") >= 1


@pytest.mark.thorough
def test_a_whole_pool_may_be_replaced_instead(site: Stage) -> None:
    before = site.pids()
    code, said = tried(site, "/echo", "--restart", "web")
    assert code == 0, said
    assert not set(before) & set(site.pids())


@pytest.mark.thorough
def test_an_app_that_greets_again_is_told_so(site: Stage) -> None:
    code, said = tried(site, "/greets")
    assert code == 0, said
    assert re.search(r"without having asked, the client got:\n  welcome\n", said), said


@pytest.mark.parametrize(
    ("path", "explanation"),
    [("/hello", "the app answers something else"), ("/mute", "nothing is answered")],
)
def test_a_session_that_hangs_on_the_first_message_is_left_for_dead(
    site: Stage, path: str, explanation: str
) -> None:
    code, said = tried(site, path, "--send", "hello ann", "--again", "what is new?")
    assert code == 7, said
    assert said.count("left for dead: ") == 1 and explanation in said
    assert "[handover] close" in said


@pytest.mark.thorough
def test_protocols_that_are_known_are_closed(site: Stage) -> None:
    code, said = tried(
        site, "/graphql", "--subprotocol", "graphql-transport-ws", "--send", json.dumps(INIT),
        "--again", '{"type": "ping"}',
    )  # fmt: skip
    assert code == 6, said
    assert "closed with 1012" in said
    code, said = tried(
        site, "/socket.io/?EIO=4&transport=websocket", "--send", "40", "--again", '420["say", "a"]'
    )
    assert code == 6, said


@pytest.mark.thorough
def test_what_cannot_be_told_is_no_verdict(site: Stage) -> None:
    code, said = tried(site, "/silent")
    assert code == 1 and "unknown: the app answers nothing" in said


def test_a_program_gets_json(site: Stage) -> None:
    done = site.run.command(
        "check", "--handover", f"ws://{site.address}/echo", "--silence", "0.3", "--json"
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["finding"] == "survives"


@pytest.mark.thorough
def test_another_site_s_socket_is_not_found(site: Stage, tmp_path: Path) -> None:
    async def serve(body: Callable[[str], Awaitable[None]]) -> None:
        from websockets.asyncio.server import serve as listen

        async def answer(connection: Any) -> None:
            async for message in connection:
                await connection.send(message)

        async with listen(answer, "127.0.0.1", 0) as server:
            (sock,) = server.sockets
            await body(f"ws://127.0.0.1:{sock.getsockname()[1]}/")

    async def run() -> None:
        async def body(url: str) -> None:
            done = await asyncio.to_thread(
                site.run.command, "check", "--handover", url, "--silence", "0.3"
            )
            assert done.returncode == 1
            assert "no interface process of this site holds that WebSocket" in done.stderr

        await serve(body)

    asyncio.run(run())


def test_one_worker_is_too_few(site: Stage) -> None:
    site.scale(1)
    try:
        code, said = tried(site, "/echo")
        assert code == 1 and "chansup scale" in said, said
    finally:
        site.scale(2)
        site.wait_for_workers(2)
