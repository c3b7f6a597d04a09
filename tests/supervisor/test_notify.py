"""The notify sockets, with real senders."""

import array
import asyncio
import os
import socket
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from chansup.config.accounts import Account
from chansup.protocol import notify as protocol
from chansup.supervisor.process.notify import DATAGRAMS_AT_ONCE, NotifySocket
from chansup.supervisor.process.notify_sockets import NotifySockets
from chansup.unix import Presence


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


@pytest.fixture
def listening(tmp_path):
    """Return what runs `test(notify, heard)` on a loop with a started socket."""
    return partial(_listening, tmp_path / "n1.sock")


def _listening(path, test, user=None):
    async def main():
        notify, heard = NotifySocket(path, user), Heard()
        notify.start(asyncio.get_running_loop(), heard)
        try:
            await test(notify, heard)
        finally:
            notify.close()

    asyncio.run(main())


def sender(address):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.connect(address)
    return sock


async def settle():
    """Give the loop the turns to read what was sent."""
    for _ in range(5):
        await asyncio.sleep(0)


SENDER = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
{prelude}
s.sendto(sys.argv[2].encode(), sys.argv[1])
"""


async def from_child(address, message, prelude="", fails=False):
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SENDER.format(prelude=prelude), address, message),
        stderr=subprocess.DEVNULL if fails else None,
    )
    assert (await child.wait() != 0) is fails
    return child.pid


def test_the_kernel_says_who_speaks(listening):
    async def test(notify, heard):
        pid = await from_child(notify.address, f"READY=1\nSTATUS=serving\nMAINPID={os.getpid()}")
        (said,) = await heard.until(1)
        assert said[0] == pid
        assert said[1]["STATUS"] == "serving"

    listening(test)


def test_what_launchers_send_is_understood(listening):
    async def test(notify, heard):
        assert protocol.send({"READY": "1", "STATUS": "=odd=\N{SNOWMAN}"}, notify.address)
        assert await heard.until(1) == [(os.getpid(), {"READY": "1", "STATUS": "=odd=\N{SNOWMAN}"})]

    listening(test)


def test_the_file_is_closed_to_strangers_and_goes_with_the_socket(tmp_path):
    former = os.umask(0)
    try:
        notify = NotifySocket(tmp_path / "n1.sock")
    finally:
        os.umask(former)
    status = notify.path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, os.geteuid())
    notify.close()
    assert not notify.path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to speak as somebody else")
def test_the_user_of_the_process_is_heard_and_no_other(open_directory):
    async def test(notify, heard):
        stranger = await from_child(notify.address, "READY=1", "os.setuid(65533)", fails=True)
        pid = await from_child(notify.address, "READY=1", "os.setuid(65534)")
        assert await heard.until(1) == [(pid, {"READY": "1"})]
        assert stranger != pid
        assert notify.dropped == 0  # not even that reached us

    _listening(open_directory / "n1.sock", test, user=65534)


@pytest.fixture
def open_directory():
    """Return a directory that every user can go into; those of pytest are private."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        os.chmod(path, 0o711)
        yield Path(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have a user who is shut out")
def test_who_may_not_enter_the_runtime_directory_gets_a_place_of_its_own(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    sockets = NotifySockets(closed, lambda: None, pytest.fail)
    notify = sockets.open(Account(65534, 65534, (65534,), None, None))
    place = notify.path.parent
    try:
        assert place != closed
        assert stat.S_IMODE(place.stat().st_mode) == 0o711
        subprocess.run(
            [
                sys.executable,
                "-c",
                SENDER.format(prelude="os.setuid(65534)"),
                notify.address,
                "A=1",
            ],
            check=True,
        )
        mine = sockets.open(None)
        assert mine.path.parent == closed
        mine.close()
    finally:
        notify.close()
        sockets.close()
    assert not place.exists()


def test_what_a_killed_supervisor_left_is_removed(tmp_path):
    left = NotifySocket(tmp_path / "n7.sock")
    (tmp_path / "n8.sock").write_text("not a socket")
    sockets = NotifySockets(tmp_path, pytest.fail, pytest.fail)
    sockets.clear()
    assert os.listdir(tmp_path) == ["n8.sock"]
    left.close()


def test_a_file_that_vanished_is_made_again_and_both_are_heard(listening):
    async def test(notify, heard):
        with sender(notify.address) as before:
            os.unlink(notify.path)
            assert not protocol.send({"A": "0"}, notify.address)
            assert notify.restore() is Presence.MISSING
            assert notify.restore() is Presence.OURS
            before.send(b"A=1")
            assert protocol.send({"A": "2"}, notify.address)
            messages = await heard.until(2)
        assert sorted(fields["A"] for _, fields in messages) == ["1", "2"]

    listening(test)


def test_what_somebody_else_put_in_its_place_stays(listening):
    async def test(notify, heard):
        os.unlink(notify.path)
        notify.path.write_text("another's")
        assert notify.restore() is Presence.FOREIGN
        notify.close()
        assert notify.path.read_text() == "another's"

    listening(test)


def test_a_full_queue_is_told(tmp_path):
    async def main():
        notify, heard = NotifySocket(tmp_path / "n1.sock"), Heard()
        crowds = []
        with sender(notify.address) as sock:
            sock.send(b"A=1")
            notify.start(asyncio.get_running_loop(), heard, lambda: crowds.append(1))
            await heard.until(1)
            assert not crowds
            sock.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    sock.send(b"STATUS=chatter")
            await heard.until(3)
        assert crowds
        notify.close()

    asyncio.run(main())


@pytest.mark.parametrize("rubbish", [b"", b"\n\n", b"nonsense", b"=1", b"\xff\xfe\x00"])
def test_rubbish_is_dropped(listening, rubbish):
    async def test(notify, heard):
        with sender(notify.address) as sock:
            sock.send(rubbish)
            sock.send(b"WATCHDOG=1\nrubbish\n\xff=\xfe")
        (said,) = await heard.until(1)
        assert said[1]["WATCHDOG"] == "1"
        assert notify.dropped == 1

    listening(test)


def test_a_message_that_does_not_fit_is_dropped_whole(listening):
    async def test(notify, heard):
        with sender(notify.address) as sock:
            sock.send(b"READY=1\nSTATUS=" + b"x" * protocol.MAX_DATAGRAM)
            sock.send(b"READY=1")
        assert await heard.until(1) == [(os.getpid(), {"READY": "1"})]
        assert notify.dropped == 1

    listening(test)


@pytest.mark.parametrize("count", [1, 253])
def test_descriptors_that_come_along_are_closed(listening, count):
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


def test_a_chatterbox_cannot_hold_the_loop(listening):
    async def test(notify, heard):
        program = (
            "import socket, sys\n"
            "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
            "s.connect(sys.argv[1])\n"
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


def test_no_more_than_a_handful_at_once_and_none_is_lost(tmp_path):
    async def main():
        notify, heard = NotifySocket(tmp_path / "n1.sock"), Heard()
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


def test_closed_is_closed(listening):
    async def test(notify, heard):
        notify.close()
        assert not protocol.send({"READY": "1"}, notify.address)

    listening(test)
