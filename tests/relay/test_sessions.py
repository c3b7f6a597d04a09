"""WebSockets whose session a new process does not know are closed with 1012, and others are moved."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.typing import Subprotocol

from tests.relay.stage import Stage, stage
from tests.relay.talk import ask, closed, dial

APP = """
import os

def headers(path):
    if path.startswith("/header/"):
        return [(b"x-kept", b"1"), (b"Chansup-Handover", path.rpartition("/")[2].encode())]
    return []

async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    offered = scope["subprotocols"]
    chosen = offered[0] if offered and scope["path"] != "/silent" else None
    await send({"type": "websocket.accept", "subprotocol": chosen, "headers": headers(scope["path"])})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        if message["text"] in ("close", "transparent"):
            event = {"type": "chansup.handover.policy", "handover": message["text"]}
            await send(event)
        await send({"type": "websocket.send", "text": str(os.getpid())})
"""
RULES = """
[handover]
close = ["acme.*", { path = "/game/*" }, { query = "ticket" }]
move = ["ocpp1.6", { path = "/game/lobby" }]
"""
# path, subprotocol that is offered, what the client says first, whether it moves
CASES: dict[str, tuple[str, str | None, str, bool]] = {
    "plain": ("/", None, "hello", True),
    "other subprotocol": ("/", "chat", "hello", True),
    "known": ("/", "graphql-transport-ws", "hello", False),
    "known, in other letters": ("/", "MQTT", "hello", False),
    "offered, and not named": ("/silent", "v12.stomp", "hello", False),
    "query": ("/socket.io/?EIO=4&transport=websocket", None, "hello", False),
    "rule on subprotocols": ("/", "acme.rpc", "hello", False),
    "rule on paths": ("/game/1", None, "hello", False),
    "rule on queries": ("/ws?ticket=1", None, "hello", False),
    "exception from a rule": ("/game/lobby", None, "hello", True),
    "exception from what is known": ("/", "ocpp1.6", "hello", True),
    "header close": ("/header/close", None, "hello", False),
    "header transparent": ("/header/transparent", "mqtt", "hello", True),
    "event close": ("/", None, "close", False),
    "event transparent": ("/", "mqtt", "transparent", True),
}
CLOSED_BY_CONFIG = 3  # of the cases above
STAYS = sum(not moves for *_, moves in CASES.values())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("sessions")
    (directory / "witness.py").write_text(APP)
    with stage(directory, home=directory, workers=2, more=RULES) as site:
        yield site


async def dial_all(site: Stage) -> dict[str, ClientConnection]:
    opened = {}
    for name, (path, subprotocol, says, _) in CASES.items():
        offered = [Subprotocol(subprotocol)] if subprotocol else None
        opened[name] = await dial(site.address, path, subprotocols=offered)
        assert int(await ask(opened[name], says)) in site.pids()
    return opened


async def look(site: Stage, opened: dict[str, ClientConnection], gone: set[int]) -> None:
    """See each connection moved or closed, as its case says."""
    for name, (*_, moves) in CASES.items():
        if moves:
            assert int(await ask(opened[name], "hello")) not in gone, name
            await opened[name].close()
        else:
            assert (await closed(opened[name]))[0] == 1012, name


def counted(site: Stage, cause: str) -> tuple[float, float, float]:
    metrics = site.metrics()
    moved, by_config, session = (
        site.sum(metrics, "handovers_total", cause=cause, result=result)
        for result in ("moved", "closed", "session")
    )
    return moved, by_config, session


def test_at_a_deploy(site: Stage) -> None:
    async def run() -> None:
        opened = await dial_all(site)
        old = set(site.pids())
        await asyncio.to_thread(site.deploy)
        await look(site, opened, old)

    asyncio.run(run())
    moved, by_config, session = counted(site, "deploy")
    assert moved >= len(CASES) - STAYS
    assert (by_config, session) == (CLOSED_BY_CONFIG, STAYS - CLOSED_BY_CONFIG)


def test_at_a_crash(site: Stage) -> None:
    async def run() -> int:
        opened = await dial_all(site)
        dead = site.pids()[0]
        homes = {name: int(await ask(one, "hello")) for name, one in opened.items()}
        os.kill(dead, signal.SIGKILL)
        # What is said before the death is noticed may be the message in hand, which is lost.
        await asyncio.to_thread(site.wait_for_workers, 2, [dead])
        for name, (*_, moves) in CASES.items():
            if moves or homes[name] != dead:
                assert int(await ask(opened[name], "hello")) != dead, name
                await opened[name].close()
            else:
                assert (await closed(opened[name]))[0] == 1012, name
        return sum(home == dead and not CASES[name][3] for name, home in homes.items())

    expected = asyncio.run(run())
    _, by_config, session = counted(site, "crash")
    assert by_config + session == expected
    assert session


def test_one_line_for_each_reason_and_none_for_each_socket(site: Stage) -> None:
    async def move() -> None:
        await dial_all(site)
        await asyncio.to_thread(site.deploy)

    asyncio.run(move())  # whatever ran here before
    said = [line for line in site.run.output().splitlines() if "are closed with 1012" in line]
    reasons = {line.partition("their session: ")[2] for line in said}
    assert len(said) == len(reasons) == 5  # GraphQL, MQTT, STOMP, Engine.IO, and the app itself
    assert any(
        'GraphQL subscriptions (subprotocol "graphql-transport-ws")' in line for line in said
    )


def test_the_client_sees_no_header_of_chansup(site: Stage) -> None:
    async def run() -> None:
        connection = await dial(site.address, "/header/close")
        assert connection.response is not None
        assert connection.response.headers["x-kept"] == "1"
        assert "chansup-handover" not in connection.response.headers
        await connection.close()

    asyncio.run(run())


def test_a_word_that_means_nothing_is_an_error_of_the_app(site: Stage) -> None:
    async def run() -> None:
        with pytest.raises(Exception, match="HTTP 500"):
            await dial(site.address, "/header/perhaps")

    asyncio.run(run())
    site.run.wait_for_output('expected "transparent" or "close", not \'perhaps\'')
