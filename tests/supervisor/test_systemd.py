"""What systemd passes and hears, with this process in the place of systemd."""

import asyncio
import os
import socket
import subprocess
import sys
import time

import pytest

from chansup.config.address import Systemd
from chansup.supervisor.errors import AddressError
from chansup.supervisor.sockets.opening import open_listeners
from chansup.supervisor.sockets.systemd import InheritedSockets, ServiceNotifier

# Moves the descriptors in argv to 3, 4, … as systemd does, says so, and becomes the program.
ACTIVATE = """
import os, sys
names, program, *descriptors = sys.argv[1:]
copies = [os.dup2(int(one), 100 + place) for place, one in enumerate(descriptors)]
for place, one in enumerate(copies):
    os.dup2(one, 3 + place)
    os.close(one)
os.environ |= {
    "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(copies)), "LISTEN_FDNAMES": names
}
os.execv(sys.executable, [sys.executable, "-c", program])
"""

SERVICE = """
import asyncio, os
from chansup.config.address import parse
from chansup.supervisor.errors import AddressError
from chansup.supervisor.sockets.opening import open_listeners
from chansup.supervisor.sockets.systemd import InheritedSockets

async def main():
    inherited = InheritedSockets.receive()
    print([name for name in os.environ if name.startswith("LISTEN_")])
    print([os.get_inheritable(descriptor) for descriptor in (3, 4)])
    for bind in ("systemd:web", "systemd", "systemd:other"):
        try:
            opened = await open_listeners(parse(bind), inherited=inherited)
        except AddressError as error:
            print(error)
            continue
        print(bind, [one.socket_of(5).getsockname()[1] for one in opened],
              {one.steered for one in opened}, {one.socket_of(0).getblocking() for one in opened})
        for one in opened:
            one.close()
    inherited.close()

try:
    asyncio.run(main())
except AddressError as error:
    print(error)
"""


def activate(names, *sockets):
    descriptors = [str(sock.fileno()) for sock in sockets]
    done = subprocess.run(
        [sys.executable, "-c", ACTIVATE, names, SERVICE, *descriptors],
        pass_fds=[sock.fileno() for sock in sockets],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_sockets_are_adopted_by_name():
    with (
        socket.create_server(("127.0.0.1", 0)) as web,
        socket.create_server(("127.0.0.1", 0)) as second,
    ):
        ports = [sock.getsockname()[1] for sock in (web, second)]
        said = activate("web:second", web, second)
        # The service has closed them: they are still systemd's.
        socket.create_connection(("127.0.0.1", ports[0])).close()
    assert said[:4] == [
        "[]",
        "[False, False]",
        f"systemd:web [{ports[0]}] {{False}} {{False}}",
        f"systemd {ports} {{False}} {{False}}",
    ]
    assert "no socket named other" in said[4]


def test_sockets_without_names():
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        said = activate("", one, two)
        ports = [sock.getsockname()[1] for sock in (one, two)]
    assert "no socket named web" in said[2]
    assert said[3].startswith(f"systemd {ports}")


def test_a_socket_that_does_not_listen():
    with socket.socket() as idle, socket.create_server(("127.0.0.1", 0)) as one:
        (said,) = activate("web:second", idle, one)
    assert "'web', which accepts no connections" in said
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        assert "ListenStream=" in activate("web", datagrams)[0]


def test_a_descriptor_that_is_no_socket(tmp_path):
    with open(tmp_path / "file", "w") as file:
        assert "not a socket" in activate("web", file)[0]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "many"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"},
        {"LISTEN_FDS": "1"},
    ],
)
def test_what_is_not_for_us_is_not_touched_but_goes(environ):
    environ = {**environ, "LISTEN_FDNAMES": "web", "PATH": "/bin"}
    inherited = InheritedSockets.receive(environ)
    assert inherited.take(None) == []
    assert environ == {"PATH": "/bin"}
    with pytest.raises(AddressError, match="systemd passed no socket"):
        asyncio.run(open_listeners(Systemd(), inherited=inherited))


class FakeSystemd:
    """A notify socket, read as systemd reads it."""

    def __init__(self, path):
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + path[1:] if path.startswith("@") else path)
        self._socket.settimeout(10)

    def hear(self):
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().splitlines())

    def hears_nothing(self):
        self._socket.setblocking(False)
        try:
            self._socket.recv(4096)
        except BlockingIOError:
            return True
        finally:
            self._socket.settimeout(10)
        return False

    def close(self):
        self._socket.close()


@pytest.fixture(params=["file", "abstract"])
def systemd(request, tmp_path):
    path = str(tmp_path / "notify") if request.param == "file" else f"@chansup-test-{os.getpid()}"
    fake = FakeSystemd(path)
    yield fake
    fake.close()


def test_a_life(systemd):
    service = ServiceNotifier.receive({"NOTIFY_SOCKET": systemd.path})
    service.status("starting 0/4")
    assert systemd.hear() == {"STATUS": "starting 0/4"}
    service.ready("4 processes\nready")  # one line for systemd
    assert systemd.hear() == {"READY": "1", "STATUS": "4 processes ready"}
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    service.reloading()
    said = systemd.hear()
    assert before <= int(said.pop("MONOTONIC_USEC")) <= before + 10_000_000
    assert said == {"RELOADING": "1"}
    service.ready()
    assert systemd.hear() == {"READY": "1"}
    service.extend_timeout(1.5)
    assert systemd.hear() == {"EXTEND_TIMEOUT_USEC": "1500000"}
    service.stopping("bye")
    assert systemd.hear() == {"STOPPING": "1", "STATUS": "bye"}


def test_everything_is_taken_out_of_the_environment():
    environ = {
        "NOTIFY_SOCKET": "/run/x",
        "WATCHDOG_USEC": "1000000",
        "WATCHDOG_PID": str(os.getpid()),
        "PATH": "/bin",
    }
    service = ServiceNotifier.receive(environ)
    assert environ == {"PATH": "/bin"}
    assert service.watchdog == 1.0


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
)
def test_no_watchdog(environ, tmp_path):
    systemd = FakeSystemd(str(tmp_path / "notify"))
    service = ServiceNotifier.receive({**environ, "NOTIFY_SOCKET": systemd.path})
    assert service.watchdog is None

    async def main():
        service.start_watchdog(asyncio.get_running_loop())
        await asyncio.sleep(0)
        service.stop_watchdog()

    asyncio.run(main())
    assert systemd.hears_nothing()
    systemd.close()


def test_the_watchdog_is_fed_from_within_the_loop(tmp_path):
    systemd = FakeSystemd(str(tmp_path / "notify"))
    service = ServiceNotifier.receive(
        {"NOTIFY_SOCKET": systemd.path, "WATCHDOG_USEC": "200000"}  # 0.2 s
    )

    async def main():
        loop = asyncio.get_running_loop()
        begun = loop.time()
        service.start_watchdog(loop)
        for _ in range(4):
            assert await asyncio.to_thread(systemd.hear) == {"WATCHDOG": "1"}
        assert loop.time() - begun >= 0.29  # three pauses of half the watchdog's time
        time.sleep(0.5)  # a loop that hangs
        assert await asyncio.to_thread(systemd.hear) == {"WATCHDOG": "1"}  # only then continues
        service.stop_watchdog()
        while not systemd.hears_nothing():
            pass
        await asyncio.sleep(0.15)
        assert systemd.hears_nothing()

    asyncio.run(main())
    systemd.close()


def test_without_systemd_nothing_happens():
    async def main():
        service = ServiceNotifier.receive({})
        service.ready("up")
        service.start_watchdog(asyncio.get_running_loop())
        service.stopping()
        service.stop_watchdog()

    asyncio.run(main())


def test_a_systemd_that_is_gone_is_no_error(tmp_path):
    ServiceNotifier(str(tmp_path / "gone")).ready()
