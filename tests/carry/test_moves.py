"""What happens to one WebSocket when its process ends: real uvicorn processes."""

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from chansup.protocol import carry
from chansup.protocol.launch import Drain
from chansup.protocol.roster import Route
from tests.carry import apps
from tests.carry.frames import BINARY, TEXT, frame
from tests.carry.holder import Holder, holding

TALKING = """
import asyncio, os

async def app(scope, receive, send):
    if scope["type"] != "websocket":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    handover = scope["extensions"]["chansup.handover"]
    moved = handover["count"] > 0
    await receive()
    path = scope["path"]
    if moved and path == "/refuse":
        await send({"type": "websocket.close", "code": int(scope["query_string"] or 1000)})
        return
    if moved and path == "/raise":
        raise RuntimeError("not again")
    subprotocol = (scope["subprotocols"] or [None])[0]
    if moved and path == "/other":
        subprotocol = "other"
    headers = [(b"chansup-handover", b"close")] if path == "/header" else []
    await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers})
    said = handover["checkpoint"] or ""
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            if path == "/goodbye":
                said = f"{event['code']} {event['reason']}"
                await send({"type": "chansup.handover.checkpoint", "checkpoint": said})
            return
        text = event["text"]
        if text == "die":
            os._exit(9)
        if text == "policy":
            await send({"type": "chansup.handover.policy", "handover": "close"})
            text = "ok"
        if text == "work":
            await asyncio.sleep(0.7)
        if text == "die the first time":
            if not event.get("chansup.redelivered"):
                os._exit(9)
            text = "again"
        if path == "/remember":
            said += text
            await send({"type": "chansup.handover.checkpoint", "checkpoint": said})
            text = said
        if text == "what":
            text = f"{handover['count']} {handover['reason']} {said} {scope['client'][1]}"
        await send({"type": "websocket.send", "text": text})
"""


def on_site(
    directory: Path, body: Any, text: str = TALKING, count: int = 2, **settings: Any
) -> Holder:
    """Run a coroutine function with a site of several processes."""

    async def run() -> Holder:
        async with holding(directory, apps.write(directory, text), count, **settings) as holder:
            try:
                await asyncio.wait_for(body(holder), 60)
            except BaseException:
                print(holder.describe())
                raise
            return holder

    return asyncio.run(run())


def connect(holder: Holder, path: str = "/", **options: Any) -> Any:
    return websockets.connect(f"ws://127.0.0.1:{holder.port}{path}", **options)


async def ask(client: ClientConnection, text: str) -> str:
    await client.send(text)
    answer = await asyncio.wait_for(client.recv(), 10)
    assert isinstance(answer, str)
    return answer


async def idle(holder: Holder) -> None:
    """Wait until apps that have answered wait again: nothing tells that."""
    await asyncio.sleep(0.2)


async def becomes(condition: Callable[[], bool]) -> None:
    """Wait for what nobody tells."""
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("waited in vain")


async def code(client: ClientConnection) -> int | None:
    with pytest.raises(websockets.ConnectionClosed):
        await asyncio.wait_for(client.recv(), 10)
    return client.close_code


def test_the_app_is_told_of_each_handover(tmp_path: Path) -> None:
    async def body(holder: Holder) -> None:
        async with connect(holder, "/goodbye") as client:
            port = client.local_address[1]
            assert await ask(client, "what") == f"0 None  {port}"
            await idle(holder)
            await holder.kill()
            assert await ask(client, "what") == f"1 crash  {port}"
            await holder.deploy()
            assert await ask(client, "what") == f"2 deploy 1012 handover {port}"

    holder = on_site(tmp_path, body)
    assert holder.counts["lost"] == 0


def test_a_checkpoint_survives_a_kill(tmp_path: Path) -> None:
    async def body(holder: Holder) -> None:
        async with connect(holder, "/remember") as client:
            assert await ask(client, "a") == "a"
            await idle(holder)
            await holder.kill()
            assert await ask(client, "b") == "ab"
            await holder.deploy()
            assert await ask(client, "c") == "abc"

    on_site(tmp_path, body)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/refuse", 1008),
        ("/refuse?4001", 4001),
        ("/refuse?1000", 1012),  # a ticket that is good for once
        ("/raise", 1011),
        ("/other", 1012),
    ],
)
@pytest.mark.parametrize("ws", ["websockets-sansio", "websockets"])
def test_a_handshake_with_another_answer_closes(
    tmp_path: Path, path: str, expected: int, ws: str
) -> None:
    async def body(holder: Holder) -> None:
        offered = ["one"] if path == "/other" else None
        async with connect(holder, path, subprotocols=offered) as client:
            assert await ask(client, "x") == "x"
            await idle(holder)
            await holder.kill()
            assert await code(client) == expected
            await holder.until(lambda: not holder.held)

    holder = on_site(tmp_path, body, options={"ws": ws})
    assert [one.closed for one in holder.failures] == [True]
    assert holder.failures[0].reason == ("subprotocol" if path == "/other" else "denied")


def test_the_app_may_want_to_be_closed(tmp_path: Path) -> None:
    async def body(holder: Holder) -> None:
        async with connect(holder, "/header") as one, connect(holder) as other:
            assert one.response is not None
            assert "chansup-handover" not in one.response.headers
            assert await ask(one, "x") == "x"
            assert await ask(other, "policy") == "ok"
            await idle(holder)
            deploying = asyncio.ensure_future(holder.deploy())
            assert await code(one) == 1012
            assert await code(other) == 1012
            await deploying

    holder = on_site(tmp_path, body)
    assert holder.counts["Parked"] == 0


def test_what_may_not_move_is_closed_after_a_crash(tmp_path: Path) -> None:
    async def body(holder: Holder) -> None:
        async with (
            connect(holder, subprotocols=["graphql-ws"]) as one,
            connect(holder, "/game/1") as other,
            connect(holder, "/chat") as third,
        ):
            for client in (one, other, third):
                assert await ask(client, "x") == "x"
            await idle(holder)
            for process in holder.ready:
                await holder.kill(process)
            assert await code(one) == 1012
            assert await code(other) == 1012
            assert await ask(third, "x") == "x"

    routes = [Route("websocket:/game/*", "close")]
    holder = on_site(tmp_path, body, carry={"routes": routes})
    assert sorted(one.reason for one in holder.failures) == ["closed", "session"]


def test_a_site_that_stops_closes_its_websockets(tmp_path: Path) -> None:
    async def body(holder: Holder) -> None:
        async with connect(holder) as client:
            assert await ask(client, "x") == "x"
            for process in holder.ready:
                carry.send(process.channel, carry.Leave(False))
                process.popen.terminate()
            assert await code(client) == 1012
            await holder.until(lambda: not holder.processes)

    holder = on_site(tmp_path, body)
    assert not holder.held


def test_a_message_in_hand_is_lost_or_given_again(tmp_path: Path) -> None:
    async def body(holder: Holder) -> None:
        async with connect(holder, "/once") as one, connect(holder, "/again") as other:
            await one.send("die")
            await holder.until(lambda: len(holder.processes) == 1)
            await other.send("die the first time")
            await holder.until(lambda: not holder.processes)
            await holder.start(1)
            await holder.settled()
            assert await ask(one, "x") == "x"
            assert await asyncio.wait_for(other.recv(), 10) == "again"
            assert await ask(other, "y") == "y"

    routes = [Route("websocket:/again", "transparent", redeliver=True)]
    holder = on_site(tmp_path, body, carry={"routes": routes})
    assert (holder.counts["lost"], holder.counts["again"]) == (1, 1)
    assert holder.counts["Settled"] == holder.counts["Resumed"]


def test_a_deploy_waits_for_the_message_in_hand(tmp_path: Path) -> None:
    async def body(holder: Holder) -> None:
        async with connect(holder) as client:
            await client.send("work")
            await client.send("after")
            await idle(holder)
            deploying = asyncio.ensure_future(holder.deploy())
            assert await asyncio.wait_for(client.recv(), 10) == "work"
            assert await asyncio.wait_for(client.recv(), 10) == "after"
            await deploying

    holder = on_site(tmp_path, body)
    assert holder.counts["lost"] == 0


def test_an_app_that_is_cut_off_loses_its_message_and_keeps_its_client(tmp_path: Path) -> None:
    text = TALKING.replace("asyncio.sleep(0.7)", "asyncio.sleep(70)")

    async def body(holder: Holder) -> None:
        async with connect(holder) as client:
            await client.send("work")
            await idle(holder)
            await holder.deploy()
            assert await ask(client, "x") == "x"

    holder = on_site(tmp_path, body, text, drain=Drain(0.0, 0.1, 0.1, 3.0))
    assert holder.counts["lost"] == 1


def test_one_handshake_is_one_line_in_the_log(tmp_path: Path) -> None:
    logs: list[str] = []

    async def body(holder: Holder) -> None:
        async with connect(holder, "/seen") as client:
            await holder.kill()
            await holder.deploy()
            assert await ask(client, "x") == "x"
            logs.extend(one.read_text() for one in tmp_path.glob("log.*"))

    on_site(tmp_path, body, options={"access_log": True})
    assert "".join(logs).count('"WebSocket /seen"') == 1


def test_a_client_that_leaves_meanwhile_is_let_go(tmp_path: Path) -> None:
    async def body(holder: Holder) -> None:
        one, other = await connect(holder), await connect(holder)
        for client in (one, other):
            assert await ask(client, "x") == "x"
        await idle(holder)
        for process in list(holder.processes):
            process.popen.kill()
        await holder.until(lambda: not holder.processes)
        one.transport.abort()  # reset
        other.transport.write_eof()
        other.transport.abort()
        await holder.start(1)
        await holder.until(lambda: not holder.held)

    holder = on_site(tmp_path, body)
    assert not holder.tickets


class Bare:
    """A client of bare bytes."""

    def __init__(self, holder: Holder) -> None:
        self.loop = asyncio.get_running_loop()
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.sock.connect(("127.0.0.1", holder.port))
        self.sock.setblocking(False)

    async def open(self) -> None:
        await self.loop.sock_sendall(
            self.sock,
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await self.read(1)
        assert b" 101 " in head

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = await asyncio.wait_for(self.loop.sock_recv(self.sock, count - len(data)), 20)
            if not part:
                raise EOFError(data)
            data += part
        return data

    async def message(self) -> bytes:
        """Read one message of the server, and pass over pings."""
        while True:
            first, size = await self.read(2)
            if size == 126:
                (size,) = struct.unpack("!H", await self.read(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.read(8))
            data = await self.read(size)
            if first & 15 in (TEXT, BINARY):
                return data
            assert first & 15 == 9, hex(first)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("event", ["kill", "deploy"])
def test_a_client_that_does_not_read_gets_whole_frames(
    tmp_path: Path, loop: str, event: str
) -> None:
    async def body(holder: Holder) -> None:
        client = Bare(holder)
        await client.open()
        size, count = 250_000, 60
        bodies = [struct.pack("!I", number) + os.urandom(size) for number in range(count)]

        async def say() -> None:
            for one in bodies:
                await client.send(frame(BINARY, one, mask=b"\0\0\0\0"))

        saying = asyncio.ensure_future(say())
        await asyncio.sleep(1.0)  # all buffers are full
        happens: Coroutine[Any, Any, None] = getattr(holder, event)()
        await happens
        got: list[int] = []
        while not got or got[-1] != count - 1:
            data = await client.message()
            number = struct.unpack("!I", data[:4])[0]
            assert data == bodies[number]
            got.append(number)
        assert got == sorted(set(got))
        assert count - len(got) == holder.counts["lost"]
        await saying

    holder = on_site(tmp_path, body, apps.ECHO, options={"loop": loop, "ws_ping_interval": None})
    assert not holder.failures
    if event == "deploy":
        assert holder.counts["lost"] == 0


def test_a_half_closed_client_is_continued_with_and_let_go(tmp_path: Path) -> None:
    async def body(holder: Holder) -> None:
        client = Bare(holder)
        await client.open()
        for process in list(holder.processes):
            process.popen.kill()
        await holder.until(lambda: not holder.processes)
        await client.send(frame(TEXT, b"last words"))
        client.sock.shutdown(socket.SHUT_WR)
        await holder.start(1)
        await holder.until(lambda: not holder.held)

    holder = on_site(tmp_path, body)
    assert not holder.failures  # a FIN is no byte that is missing
    assert holder.counts["Adopted"] == 1


def test_urgent_data_does_not_shift_the_count(tmp_path: Path) -> None:
    async def body(holder: Holder) -> None:
        client = Bare(holder)
        await client.open()
        whole = frame(TEXT, b"urgent", mask=b"\0\0\0\0")
        await client.send(whole[:-1])
        client.sock.send(whole[-1:], socket.MSG_OOB)
        assert await client.message() == b"urgent"
        await idle(holder)
        await holder.kill()
        await client.send(frame(TEXT, b"more"))
        assert await client.message() == b"more"

    holder = on_site(tmp_path, body)
    assert not holder.failures


def test_a_message_larger_than_the_journal_makes_it_plain(tmp_path: Path) -> None:
    async def body(holder: Holder) -> None:
        async with connect(holder, max_size=None) as client:
            assert await ask(client, "x") == "x"
            await client.send("x" * 900)
            assert await client.recv() == "x" * 900
            await client.send("large")
            assert len(await client.recv()) == 3_000_000
            await holder.until(lambda: holder.counts["Plain"] == 1)
            assert await ask(client, "y") == "y"
            deploying = asyncio.ensure_future(holder.deploy())
            assert await code(client) == 1012
            await deploying

    text = TALKING.replace(
        '        if text == "what":',
        """        if text == "large":
            text = os.urandom(1_500_000).hex()
        if text == "what":""",
    )
    on_site(tmp_path, body, text, options={"ws_max_size": 100_000})


@pytest.mark.thorough
def test_garbage_from_the_supervisor_leaves_all_plain(tmp_path: Path) -> None:
    async def body(holder: Holder) -> None:
        async with connect(holder) as client:
            assert await ask(client, "x") == "x"
            [process] = holder.processes
            holder.loop.remove_reader(process.channel)
            process.channel.send(b"nonsense")
            await asyncio.sleep(0.2)
            assert await ask(client, "y") == "y"
            async with connect(holder) as another:
                assert await ask(another, "z") == "z"
            assert "the channel to the supervisor" in process.log.read_text()

    on_site(tmp_path, body, count=1)


def test_a_supervisor_that_does_not_read_makes_nobody_wait(tmp_path: Path) -> None:
    async def body(holder: Holder) -> None:
        [process] = holder.processes
        holder.loop.remove_reader(process.channel)
        process.channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        clients = [await connect(holder) for _ in range(600)]
        for client in clients[::50]:
            assert await ask(client, "x") == "x"
        holder.loop.add_reader(process.channel, holder._read, process)
        await holder.until(lambda: len(holder.held) == 600)
        holder.spawn()
        await holder.until(lambda: len(holder.ready) == 2)
        await holder.kill(process)
        for client in clients:
            assert await ask(client, "y") == "y"
            client.transport.abort()
        await holder.until(lambda: not holder.held)

    holder = on_site(tmp_path, body, count=1)
    assert holder.counts["Adopted"] == 600


def test_over_a_unix_socket_a_deploy_moves_and_a_kill_closes(tmp_path: Path) -> None:
    async def body(holder: Holder) -> None:
        path = str(tmp_path / "web.sock")
        async with websockets.unix_connect(path, "ws://x/") as client:
            assert await ask(client, "x") == "x"
            await idle(holder)
            await holder.deploy()
            assert await ask(client, "y") == "y"
            await holder.kill()
            assert await code(client) == 1006
        assert not holder.held

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "web.sock"))
    listener.listen(100)
    text = TALKING.replace("scope['client'][1]", "0")
    holder = on_site(tmp_path, body, text, listener=listener)
    assert not holder.failures


def test_an_idle_websocket_takes_little_memory_and_gives_it_back(tmp_path: Path) -> None:
    async def body(holder: Holder) -> None:
        [process] = holder.processes

        def shared() -> int:
            return sum(os.fstat(one).st_blocks * 512 for one in process.memory.values())

        cookies = [("Cookie", "c" * 400)]
        clients = [await connect(holder, additional_headers=cookies) for _ in range(100)]
        for client in clients:
            assert await ask(client, "x") == "x"
        assert shared() <= 100 * 6 * 1024
        await asyncio.gather(*(ask(client, os.urandom(20_000).hex()) for client in clients))
        assert shared() > 100 * 20_000
        await becomes(lambda: shared() <= 100 * 6 * 1024)
        for client in clients:
            client.transport.abort()
        await holder.until(lambda: not holder.held)
        await becomes(lambda: shared() <= 16 * 1024)

    on_site(tmp_path, body, count=1)
