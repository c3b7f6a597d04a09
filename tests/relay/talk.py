"""Clients of the acceptance tests: conversations over WebSockets, each with its own dice."""

import asyncio
import hashlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.load import _NO_PROXY

PATIENCE = 20.0  # seconds for one answer
SIZES = (0, 10, 200, 5_000, 70_000, 200_000)  # bytes of messages
WEIGHTS = (30, 30, 30, 8, 1, 1)


async def dial(
    address: str, path: str, named: str | None = None, **options: Any
) -> ClientConnection:
    """Open a WebSocket. `named`: the host that the handshake names."""
    host, _, port = address.rpartition(":")
    return await connect(
        f"ws://{named or address}{path}",
        host=host,
        port=int(port),
        compression=None,
        ping_interval=None,
        max_size=None,
        open_timeout=PATIENCE,
        close_timeout=2.0,
        **{**_NO_PROXY, **options},
    )


async def ask(connection: ClientConnection, text: str) -> str:
    """Send one message and return the next one that comes."""
    await connection.send(text)
    return str(await asyncio.wait_for(connection.recv(), PATIENCE))


async def closed(connection: ClientConnection) -> tuple[int | None, str | None]:
    """Wait until it is closed by the other side; return code and reason."""
    async with asyncio.timeout(PATIENCE):
        try:
            while True:
                await connection.recv()
        except ConnectionClosed:
            pass
    return connection.close_code, connection.close_reason


def digest(message: str | bytes) -> str:
    data = message.encode() if isinstance(message, str) else message
    return hashlib.md5(data).hexdigest()


class Talk:
    """Sends 1, 2, 3, …, of all kinds and sizes, with up to `window` of them unanswered."""

    def __init__(self, address: str, name: str, seed: str, query: str = "") -> None:
        self.name = name
        self.sent: list[str] = []  # digests
        self.back: list[tuple[int, str]] = []  # numbers and digests
        self.last_progress = time.monotonic()
        self.longest = 0.0  # seconds between sending a message and its echo
        self.close_code: int | None = None
        self._address = address
        self._path = f"/echo/{name}{query}"
        self._dice = random.Random(f"{seed}:{name}")
        self._window = self._dice.choice((1, 1, 2, 5, 20))
        self._work = self._dice.choice((0, 0, 0.002, 0.02))  # seconds in the app, per message
        self._at: dict[int, float] = {}
        self._stopping = False
        self._moved = asyncio.Event()
        self.opened = asyncio.Event()

    def stop(self) -> None:
        """Send nothing more, and wait for what is due."""
        self._stopping = True
        self._moved.set()

    async def run(self, lossy: bool = False) -> None:
        """Talk until `stop`. `lossy`: some messages may never come back."""
        connection = await dial(self._address, self._path)
        receiving = asyncio.create_task(self._receive(connection))
        try:
            await self._send(connection, lossy)
            if not lossy:
                await self._until(lambda: len(self.back) >= len(self.sent))
            else:  # the last one comes back for sure: nobody dies any more
                final = len(self.sent)
                await self._until(lambda: bool(self.back) and self.back[-1][0] == final)
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
            await connection.close()

    async def _until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not happened():
                if self.close_code is not None:
                    raise AssertionError(f"{self.name}: closed with {self.close_code}")
                self._moved.clear()
                await self._moved.wait()

    async def _send(self, connection: ClientConnection, lossy: bool) -> None:
        while not self._stopping:
            number = len(self.sent) + 1
            message = self._message(number)
            self.sent.append(digest(message))
            self._at[number] = time.monotonic()
            await connection.send(message)
            if lossy:
                await self._room()
            else:
                await self._until(self._has_room)
            await asyncio.sleep(self._dice.choice((0, 0.005, 0.02, 0.05)))
        if lossy:
            number = len(self.sent) + 1
            message = f"{number} 0 last"
            self.sent.append(digest(message))
            await connection.send(message)

    def _has_room(self) -> bool:
        return self._stopping or len(self.sent) - len(self.back) < self._window

    async def _room(self) -> None:
        """Wait for an echo, but not for one that may never come."""
        if self.close_code is not None:
            raise AssertionError(f"{self.name}: closed with {self.close_code}")
        if self.back and len(self.sent) - self.back[-1][0] < self._window:
            return
        self._moved.clear()
        try:
            await asyncio.wait_for(self._moved.wait(), 0.3)
        except TimeoutError:
            pass

    def _message(self, number: int) -> str | bytes:
        dice = self._dice
        size = dice.choices(SIZES, WEIGHTS)[0]
        work = self._work * dice.random()
        if dice.random() < 0.5:
            return f"{number} {work:.4f} " + chr(dice.randrange(97, 1000)) * size
        return f"{number} {work:.4f} ".encode() + dice.randbytes(size)

    async def _receive(self, connection: ClientConnection) -> None:
        try:
            while True:
                message = await connection.recv()
                data = message.encode() if isinstance(message, str) else message
                number = int(data[:20].split(b" ", 1)[0])
                self.back.append((number, digest(message)))
                self.longest = max(self.longest, time.monotonic() - self._at.pop(number, 1e9))
                self._moved.set()
                self.opened.set()
        except ConnectionClosed as error:
            self.close_code = error.rcvd.code if error.rcvd else 1006
            self._moved.set()
            self.opened.set()


async def converse(
    talks: list[Talk], meanwhile: Callable[[], Awaitable[None]], lossy: bool = False
) -> None:
    """Have all talk, do something meanwhile, and let them finish."""
    running = [asyncio.create_task(talk.run(lossy)) for talk in talks]
    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(talk.opened.wait() for talk in talks))
        await meanwhile()
    finally:
        for talk in talks:
            talk.stop()
        results = await asyncio.gather(*running, return_exceptions=True)
    failures = [f"{talk.name}: {one!r}" for talk, one in zip(talks, results, strict=True) if one]
    assert not failures, failures
