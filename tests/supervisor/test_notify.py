"""The notify socket, with real senders."""

import array
import asyncio
import os
import socket
import subprocess
import sys

import pytest

from chansup.protocol import notify as protocol
from chansup.supervisor.notify import DATAGRAMS_AT_ONCE, NotifySocket


class Heard:
    """What the callback was told; `until` waits for it."""

    def __init__(self):
        self.messages = []
        self.news = asyncio.Event()

    def __call__(self, pid, fields):
        self.messages.append((pid, fields))
        self.news.set()

    async def until(self, count):
        async with asyncio.timeout(10):
            while len(self.messages) < count:
                self.news.clear()
                await self.news.wait()
        return self.messages


def listening(test):
    """Run `test(notify, heard)` on a loop with a started socket."""

    async def main():
        notify, heard = NotifySocket(), Heard()
        notify.start(asyncio.get_running_loop(), heard)
        try:
            await test(notify, heard)
        finally:
            notify.close()

    asyncio.run(main())


def sender(address):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.connect("\0" + address[1:])
    return sock


async def settle():
    """Give the loop the turns to read what was sent."""
    for _ in range(5):
        await asyncio.sleep(0)


async def from_child(address, message, prelude=""):
    program = (
        "import os, socket, sys\n"
        f"{prelude}\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "s.sendto(sys.argv[2].encode(), '\\0' + sys.argv[1][1:])\n"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, address, message)
    assert await child.wait() == 0
    return child.pid


def test_the_kernel_says_who_speaks():
    async def test(notify, heard):
        pid = await from_child(notify.address, f"READY=1\nSTATUS=serving\nMAINPID={os.getpid()}")
        (said,) = await heard.until(1)
        assert said[0] == pid
        assert said[1]["STATUS"] == "serving"

    listening(test)


def test_what_launchers_send_is_understood():
    async def test(notify, heard):
        assert protocol.send({"READY": "1", "STATUS": "=odd=\N{SNOWMAN}"}, notify.address)
        assert await heard.until(1) == [(os.getpid(), {"READY": "1", "STATUS": "=odd=\N{SNOWMAN}"})]

    listening(test)


def test_names_cannot_be_guessed():
    first, second = NotifySocket(), NotifySocket()
    assert first.address.startswith("@")
    assert first.address != second.address
    assert len(first.address) >= 32
    first.close()
    second.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to speak as somebody else")
def test_strangers_are_not_heard_until_they_are_allowed():
    async def test(notify, heard):
        become = "os.setuid(65534)"
        await from_child(notify.address, "READY=1", become)
        await settle()
        assert (heard.messages, notify.dropped) == ([], 1)
        notify.allow(65534)
        pid = await from_child(notify.address, "READY=1", become)
        assert await heard.until(1) == [(pid, {"READY": "1"})]

    listening(test)


@pytest.mark.parametrize("rubbish", [b"", b"\n\n", b"nonsense", b"=1", b"\xff\xfe\x00"])
def test_rubbish_is_dropped(rubbish):
    async def test(notify, heard):
        with sender(notify.address) as sock:
            sock.send(rubbish)
            sock.send(b"WATCHDOG=1\nrubbish\n\xff=\xfe")
        (said,) = await heard.until(1)
        assert said[1]["WATCHDOG"] == "1"
        assert notify.dropped == 1

    listening(test)


def test_a_message_that_does_not_fit_is_dropped_whole():
    async def test(notify, heard):
        with sender(notify.address) as sock:
            sock.send(b"READY=1\nSTATUS=" + b"x" * protocol.MAX_DATAGRAM)
            sock.send(b"READY=1")
        assert await heard.until(1) == [(os.getpid(), {"READY": "1"})]
        assert notify.dropped == 1

    listening(test)


@pytest.mark.parametrize("count", [1, 253])
def test_descriptors_that_come_along_are_closed(count):
    async def test(notify, heard):
        reader, writer = os.pipe()
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writer] * count))
        before = os.listdir("/proc/self/fd")
        for _ in range(3):
            with sender(notify.address) as sock:
                sock.sendmsg([b"BARRIER=1"], [rights])
            await settle()
        assert os.listdir("/proc/self/fd") == before
        assert len(await heard.until(3)) == 3
        os.close(writer)
        assert os.read(reader, 1) == b""  # sd_notify_barrier(3) waits for this
        os.close(reader)

    listening(test)


def test_a_chatterbox_cannot_hold_the_loop():
    async def test(notify, heard):
        program = (
            "import socket, sys\n"
            "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
            "s.connect('\\0' + sys.argv[1][1:])\n"
            "while True: s.send(b'WATCHDOG=1')\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, notify.address], stderr=subprocess.DEVNULL
        ) as child:
            await heard.until(1)
            most = 0
            async with asyncio.timeout(30):
                while len(heard.messages) < 1000:
                    before = len(heard.messages)
                    await asyncio.sleep(0)
                    most = max(most, len(heard.messages) - before)
            child.kill()
        assert 0 < most <= DATAGRAMS_AT_ONCE

    listening(test)


def test_no_more_than_a_handful_at_once_and_none_is_lost():
    async def main():
        notify, heard = NotifySocket(), Heard()
        queued = 0
        with sender(notify.address) as sock:
            sock.setblocking(False)
            try:
                while True:
                    sock.send(b"WATCHDOG=%d" % queued)
                    queued += 1
            except BlockingIOError:  # net.unix.max_dgram_qlen
                pass
        notify.start(asyncio.get_running_loop(), heard)
        messages = await heard.until(queued)
        assert [int(fields["WATCHDOG"]) for _, fields in messages] == list(range(queued))
        notify.close()

    asyncio.run(main())


def test_closed_is_closed():
    async def test(notify, heard):
        notify.close()
        assert not protocol.send({"READY": "1"}, notify.address)

    listening(test)
