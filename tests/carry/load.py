"""Clients that send numbered messages of all kinds, and know what they must get back.

Fragments, pings between them, writes that are cut in pieces, permessage-deflate, large messages.
"""

import asyncio
import base64
import os
import random
import struct
import time
import zlib
from collections import deque
from dataclasses import dataclass, field

from tests.carry.frames import BINARY, CONTINUATION, PING, PONG, TEXT, frame

MOST_OUTSTANDING = 6


@dataclass
class Totals:
    sent: int = 0
    echoed: int = 0
    missing: int = 0
    pings: int = 0
    fragmented: int = 0
    cut: int = 0
    large: int = 0
    gaps: list[int] = field(default_factory=list)  # messages in a row that were not answered
    problems: list[str] = field(default_factory=list)


class Client:
    """One WebSocket."""

    def __init__(self, number: int, seed: int, deflate: bool, largest: int, totals: Totals) -> None:
        self.number = number
        self.random = random.Random(seed * 1000 + number)
        self.deflate = deflate
        self.largest = largest
        self.totals = totals
        self.outstanding: deque[tuple[bool, bytes]] = deque()
        self.stopping = False
        self.inflate = zlib.decompressobj(-15)
        self.has_context = True
        self.compressor = zlib.compressobj(6, zlib.DEFLATED, -12)
        self.last = time.monotonic()
        self.pause = 0.0
        self.turn = asyncio.Lock()
        self.pongs: set[asyncio.Future[None]] = set()

    async def open(self, port: int) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        extension = (
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12\r\n"
            if self.deflate
            else ""
        )
        key = base64.b64encode(os.urandom(16)).decode()
        self.writer.write(
            f"GET /x?k={self.number} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n{extension}\r\n".encode()
        )
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert " 101 " in head, head
        assert ("permessage-deflate" in head) == self.deflate, head
        assert ("client_no_context_takeover" in head) == self.deflate, head
        bits = 15
        if "server_max_window_bits=" in head:
            bits = int(head.split("server_max_window_bits=")[1].split(";")[0].split("\r")[0])
        self.inflate = zlib.decompressobj(-bits)

    def message(self, number: int) -> tuple[bool, bytes]:
        rnd = self.random
        size = rnd.choice([0, 5, 60, 60, 200, 900, 1300, 5000, 30, 50])
        if rnd.random() < 0.04:
            size = rnd.choice([70_000, self.largest])
            self.totals.large += 1
        body = f"{self.number}:{number}:".encode()
        if rnd.random() < 0.7:
            body += base64.b64encode(rnd.randbytes(size * 3 // 4))
        else:
            body += b"abcdefgh" * (size // 8)
        return rnd.random() < 0.5, body

    async def send(self) -> None:
        rnd = self.random
        number = 0
        while not self.stopping:
            while len(self.outstanding) >= MOST_OUTSTANDING and not self.stopping:
                await asyncio.sleep(0.001)
            number += 1
            is_text, body = self.message(number)
            data, compressed = body, False
            if self.deflate and rnd.random() < 0.8:
                compressor = zlib.compressobj(6, zlib.DEFLATED, -12)
                data = (compressor.compress(body) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
                compressed = True
            self.outstanding.append((is_text, body))
            self.totals.sent += 1
            opcode = TEXT if is_text else BINARY
            parts = [data]
            if rnd.random() < 0.3 and len(data) > 4:
                self.totals.fragmented += 1
                cuts = sorted(rnd.randrange(len(data)) for _ in range(rnd.randint(1, 3)))
                parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
            for place, part in enumerate(parts):
                raw = frame(opcode if not place else CONTINUATION, part, place == len(parts) - 1)
                if compressed and not place:
                    raw = bytes([raw[0] | 0x40]) + raw[1:]
                await self.put(raw)
                if len(parts) > 1 and rnd.random() < 0.3:
                    await self.ping()
            if rnd.random() < 0.1:
                await self.ping()
            if rnd.random() < 0.5:
                await asyncio.sleep(rnd.random() * 0.02)

    async def put(self, raw: bytes) -> None:
        """Send one frame, in pieces perhaps, and no other one between them."""
        async with self.turn:
            await self.put_pieces(raw)

    async def put_pieces(self, raw: bytes) -> None:
        rnd = self.random
        if rnd.random() < 0.3 and len(raw) > 3:
            self.totals.cut += 1
            for _ in range(rnd.randint(1, 3)):
                at = rnd.randrange(1, max(2, len(raw)))
                self.writer.write(raw[:at])
                raw = raw[at:]
                await asyncio.sleep(rnd.choice([0, 0.001, 0.01]))
        if raw:
            self.writer.write(raw)
        await self.writer.drain()

    async def ping(self) -> None:
        self.totals.pings += 1
        await self.put(frame(PING, os.urandom(4)))

    async def receive(self) -> None:
        parts: list[bytes] = []
        kind = compressed = 0
        while True:
            first, second = await self.reader.readexactly(2)
            assert not second & 0x80, "a masked frame: the stream is out of step"
            size = second
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            data = await self.reader.readexactly(size) if size else b""
            now = time.monotonic()
            self.pause, self.last = max(self.pause, now - self.last), now
            opcode = first & 15
            if opcode == PING:
                self.pongs.add(asyncio.ensure_future(self.put(frame(PONG, data))))
                continue
            if opcode == PONG:
                continue
            assert opcode in (CONTINUATION, TEXT, BINARY), f"opcode {opcode} {data!r}"
            if opcode != CONTINUATION:
                kind, compressed, parts = opcode, first & 0x40, []
            parts.append(data)
            if first & 0x80:
                body = b"".join(parts)
                if compressed:
                    body = self.inflate.decompress(body + b"\0\0\xff\xff")
                self.take(kind == TEXT, body)

    def take(self, is_text: bool, body: bytes) -> None:
        self.totals.echoed += 1
        for place, expected in enumerate(self.outstanding):
            if expected == (is_text, body):
                if place:
                    self.totals.missing += place
                    self.totals.gaps.append(place)
                for _ in range(place + 1):
                    self.outstanding.popleft()
                return
        raise AssertionError(f"repeated, reordered or corrupted: {body[:40]!r} of {len(body)}")

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                receiving = group.create_task(self.receive())
                await self.send()
                end = time.monotonic() + 10
                while self.outstanding and time.monotonic() < end:
                    await asyncio.sleep(0.02)
                    if len(self.outstanding) == 1 and time.monotonic() > end - 8:
                        break  # perhaps the one in hand
                self.totals.missing += len(self.outstanding)
                if self.outstanding:
                    self.totals.gaps.append(len(self.outstanding))
                receiving.cancel()
        except* Exception as errors:
            said = "; ".join(repr(one) for one in errors.exceptions)
            self.totals.problems.append(f"{self.number}: {said}")
        finally:
            self.writer.transport.abort()


class Load:
    """Several clients."""

    def __init__(self, count: int, deflate: bool, seed: int = 1, largest: int = 300_000) -> None:
        self.totals = Totals()
        self.clients = [Client(k, seed, deflate, largest, self.totals) for k in range(count)]
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self, port: int) -> None:
        for client in self.clients:
            await client.open(port)
        self.tasks = [asyncio.ensure_future(client.run()) for client in self.clients]

    async def stop(self) -> Totals:
        for client in self.clients:
            client.stopping = True
        await asyncio.gather(*self.tasks)
        return self.totals

    async def flow(self) -> None:
        """Wait until each client has had some answers more, or has ended."""
        target = self.totals.echoed + 10 * len(self.clients)
        end = time.monotonic() + 10
        while self.totals.echoed < target and time.monotonic() < end and not self.totals.problems:
            await asyncio.sleep(0.01)
