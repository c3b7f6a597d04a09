"""What the supervisor listens on: real ports and real socket files."""

import asyncio
import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from chansup.config.address import Systemd, Tcp, Unix
from chansup.supervisor.errors import AddressError
from chansup.supervisor.sockets import opening, steering, tcp
from chansup.supervisor.sockets.opening import open_listeners
from chansup.supervisor.sockets.shared import SharedSocket
from chansup.supervisor.sockets.steered import SteeredGroup
from chansup.unix import Ownership

pytestmark = pytest.mark.slow  # the interpreter makes no difference

LOOPBACK = Tcp("127.0.0.1", 0)


def waiting_in(sock):
    """Accept what waits and return how much it was."""
    count = 0
    while True:
        try:
            sock.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def connect(address, times=1):
    for _ in range(times):
        socket.create_connection((address.host, address.port)).close()


@pytest.fixture
def group():
    one = SteeredGroup.open(LOOPBACK)
    yield one
    one.close()


def open_all(*arguments, **options):
    return asyncio.run(open_listeners(*arguments, **options))


# One listener per slot


def test_every_slot_has_its_own_listener_on_the_same_port(group):
    group.ensure(4)
    assert group.steered
    assert group.address.port != 0
    assert len({group.socket_of(slot).fileno() for slot in range(4)}) == 4
    assert {group.socket_of(slot).getsockname()[1] for slot in range(4)} == {group.address.port}


def test_connections_go_where_they_are_steered(group):
    group.ensure(4)
    group.steer([1, 3])
    connect(group.address, 60)
    counts = [waiting_in(group.socket_of(slot)) for slot in range(4)]
    assert counts[0] == counts[2] == 0
    assert counts[1] > 5 < counts[3]


def test_when_no_slot_is_ready_every_listener_queues(group):
    group.ensure(3)
    group.steer([2])
    group.steer([])
    connect(group.address, 90)
    assert all(waiting_in(group.socket_of(slot)) for slot in range(3))


def test_when_no_slot_is_ready_nothing_queues_where_nobody_will_come(group):
    group.ensure(4)
    group.ensure(2)  # scaled down, the listeners of 2 and 3 are not closed yet
    group.steer([])
    connect(group.address, 60)
    assert [bool(waiting_in(group.socket_of(slot))) for slot in range(4)] == [
        True,
        True,
        False,
        False,
    ]


def test_a_new_slot_gets_nothing_until_it_is_ready(group):
    group.ensure(2)
    group.steer([0, 1])
    group.ensure(3)
    connect(group.address, 40)
    assert waiting_in(group.socket_of(2)) == 0
    group.steer([2])
    connect(group.address, 3)
    assert waiting_in(group.socket_of(2)) == 3


def test_one_slot_needs_no_program_and_can_grow(group):
    group.steer([0])
    connect(group.address)
    assert waiting_in(group.socket_of(0)) == 1
    group.ensure(2)
    group.steer([1])
    connect(group.address, 5)
    assert [waiting_in(group.socket_of(slot)) for slot in range(2)] == [0, 5]


def test_shrinking_closes_from_the_end_and_keeps_the_rest_in_place(group):
    group.ensure(4)
    kept = [group.socket_of(slot).fileno() for slot in range(2)]
    group.steer([0, 1])
    group.shrink(2)
    assert [group.socket_of(slot).fileno() for slot in range(2)] == kept
    with pytest.raises(IndexError):
        group.socket_of(2)
    group.steer([1])
    connect(group.address, 5)
    assert [waiting_in(group.socket_of(slot)) for slot in range(2)] == [0, 5]
    group.ensure(3)
    group.steer([2])
    connect(group.address, 5)
    assert waiting_in(group.socket_of(2)) == 5


def test_an_unchanged_choice_costs_no_system_call(group, monkeypatch):
    group.ensure(3)
    attached = []
    attach = steering.attach

    def recorded(*both):
        attached.append(both)
        attach(*both)

    monkeypatch.setattr(steering, "attach", recorded)
    group.steer([0, 1], [4, 8])
    group.steer([0, 1], [4, 8])
    group.steer([0, 1], [1, 2])  # the same proportion
    assert len(attached) == 1
    group.steer([0, 1], [1, 1])
    assert len(attached) == 2


def test_two_hundred_slots(group):
    group.ensure(200)
    group.steer(range(0, 200, 3))
    connect(group.address, 100)
    counts = [waiting_in(group.socket_of(slot)) for slot in range(200)]
    assert sum(counts) == 100
    assert all(slot % 3 == 0 for slot, count in enumerate(counts) if count)


@pytest.mark.parametrize("open_one", [SteeredGroup.open, SharedSocket.tcp])
def test_listeners_are_non_blocking_private_and_without_delay(open_one):
    one = open_one(LOOPBACK)
    one.ensure(2)
    for slot in range(2):
        sock = one.socket_of(slot)
        assert not sock.getblocking()
        assert not sock.get_inheritable()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    one.close()


def test_who_refuses_refuses_in_every_process_and_can_still_be_steered(group):
    group.ensure(3)
    group.steer([0, 1])
    inherited = group.socket_of(1).dup()
    group.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect(group.address)
    group.steer([2])
    group.shrink(1)
    with pytest.raises(OSError, match="Invalid argument"):
        inherited.accept()
    inherited.close()


# Ports that are taken


@pytest.mark.parametrize("steer", [True, False])
def test_a_port_that_another_supervisor_has_is_an_error(steer):
    # The same user, and SO_REUSEPORT on both sides: the kernel would let both listen.
    first = SteeredGroup.open(LOOPBACK)
    first.ensure(3)
    try:
        with pytest.raises(AddressError, match="this supervisor itself") as caught:
            open_all(first.address, steer=steer)
        assert str(first.address) in str(caught.value)
        assert "choose another port" in str(caught.value)
    finally:
        first.close()


def test_the_holder_of_a_port_is_named():
    program = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0), reuse_port=True);"
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        port = int(other.stdout.readline())
        with pytest.raises(AddressError, match=rf"process {other.pid} \(.*python.*\) already"):
            open_all(Tcp("127.0.0.1", port))
        other.stdin.close()


def test_two_supervisors_that_start_at_once_never_share_a_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for _ in range(30):
        barrier = threading.Barrier(4)
        opened: list[SteeredGroup] = []

        def race(barrier=barrier, opened=opened):
            barrier.wait()
            try:
                one = SteeredGroup.open(Tcp("127.0.0.1", port))
            except AddressError:
                return
            opened.append(one)

        threads = [threading.Thread(target=race) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(opened) <= 1
        for one in opened:
            one.close()


def test_connections_of_an_earlier_run_do_not_hold_the_port():
    first = SteeredGroup.open(LOOPBACK)
    address = first.address
    with socket.create_connection((address.host, address.port)) as client:
        accepted, _ = first.socket_of(0).accept()
        accepted.close()  # first to close: TIME_WAIT is on the side of the server
        assert client.recv(1) == b""
    first.close()
    again = SteeredGroup.open(address)
    again.ensure(2)
    again.close()


def test_a_closed_group_frees_its_port():
    first = SteeredGroup.open(LOOPBACK)
    first.ensure(5)
    first.close()
    with socket.socket() as sock:
        sock.bind((first.address.host, first.address.port))


def test_a_privileged_port_names_the_capability():
    program = (
        "import asyncio, encodings.idna, os; from chansup.config.address import Tcp;"
        "from chansup.supervisor.errors import AddressError;"
        "from chansup.supervisor.sockets.opening import open_listeners\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: asyncio.run(open_listeners(Tcp('127.0.0.1', 81)))\n"
        "except AddressError as error: print(error)"
    )
    if tcp._first_free_port() <= 81:
        pytest.skip("no port is privileged here (net.ipv4.ip_unprivileged_port_start)")
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
    assert "127.0.0.1:81" in said
    assert "CAP_NET_BIND_SERVICE" in said


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_an_address_of_another_machine(host):
    with pytest.raises(AddressError, match="no network interface"):
        open_all(Tcp(host, 0))


@pytest.mark.parametrize("name", ["no-such-host.invalid", "x" * 64])
def test_an_unknown_host_name(name):
    with pytest.raises(AddressError, match="host name is unknown"):
        open_all(Tcp(name, 8000))


def test_too_many_open_files(monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(AddressError, match="ulimit -n"):
        tcp.listen(LOOPBACK, 10, False)


# Host names, port 0, both IP versions


def test_a_name_is_resolved():
    opened = open_all(Tcp("localhost", 0))
    assert {one.address.host for one in opened} <= {"127.0.0.1", "::1"}
    for one in opened:
        one.close()


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture
def both_loopbacks(monkeypatch):
    """Have every name lead to both loopback addresses, whatever /etc/hosts says."""

    async def both(address):
        return ["127.0.0.1", "::1"]

    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    monkeypatch.setattr(opening, "_resolve", both)


@pytest.mark.parametrize("steer", [True, False])
def test_a_name_opens_every_address_on_one_port(both_loopbacks, steer):
    four, six = open_all(Tcp("localhost", 0), steer=steer)
    assert (four.address.host, six.address.host) == ("127.0.0.1", "::1")
    assert four.address.port == six.address.port != 0
    four.close()
    six.close()


def test_one_taken_address_of_a_name_opens_none_of_them(both_loopbacks):
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match="already listens"):
            open_all(Tcp("localhost", port))
        with socket.socket() as sock:  # the IPv4 one was closed again
            sock.bind(("127.0.0.1", port))


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_all_of_ipv6_takes_ipv4_too_unless_that_stands_beside_it():
    (dual,) = open_all(Tcp("::", 0))
    dual.ensure(2)
    dual.steer([1])
    port = dual.address.port
    connect(Tcp("127.0.0.1", port), 2)
    connect(Tcp("::1", port), 3)
    assert [waiting_in(dual.socket_of(slot)) for slot in range(2)] == [0, 5]
    dual.close()

    beside = Tcp("0.0.0.0", port)
    (four,) = open_all(beside, beside=[Tcp("::", port)])
    (six,) = open_all(Tcp("::", port), beside=[beside])
    connect(Tcp("127.0.0.1", port), 2)
    connect(Tcp("::1", port), 3)
    assert (waiting_in(four.socket_of(0)), waiting_in(six.socket_of(0))) == (2, 3)
    four.close()
    six.close()


def test_without_steering_all_slots_share_one_socket():
    (one,) = open_all(LOOPBACK, steer=False)
    one.ensure(3)
    one.steer([2])
    one.shrink(1)
    assert not one.steered
    assert one.socket_of(0) is one.socket_of(2)
    connect(one.address)
    assert waiting_in(one.socket_of(1)) == 1
    one.close()


def test_a_kernel_that_refuses_programs_gets_a_shared_socket(monkeypatch):
    monkeypatch.setattr(steering, "SO_ATTACH_REUSEPORT_CBPF", 9999)
    (one,) = open_all(LOOPBACK)
    assert not one.steered
    one.close()


# Unix sockets


def test_a_unix_socket_has_its_mode_and_goes_with_its_owner(tmp_path):
    path = tmp_path / "web.sock"
    (one,) = open_all(Unix("web.sock"), directory=tmp_path, ownership=Ownership(0o600))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert str(one.address) == f"unix:{path}"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    assert waiting_in(one.socket_of(7)) == 1
    assert not one.socket_of(0).getblocking()
    assert sorted(os.listdir(tmp_path)) == [".web.sock.chansup", "web.sock"]
    one.close()
    assert os.listdir(tmp_path) == []


def test_the_file_of_a_dead_process_is_replaced(tmp_path):
    path = tmp_path / "web.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.listen()
    dead.close()
    one = SharedSocket.unix(Unix(str(path)))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    one.close()


@pytest.mark.parametrize("full", [False, True])
def test_a_living_unix_socket_is_an_error(tmp_path, full):
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as client:
        other.bind(str(path))
        other.listen(0)
        if full:
            client.connect(str(path))
        with pytest.raises(AddressError, match="another process already listens"):
            SharedSocket.unix(Unix(str(path)))
    assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_a_file_that_is_no_socket_is_left_alone(tmp_path, kind):
    path = tmp_path / "web.sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AddressError, match="not a socket"):
        SharedSocket.unix(Unix(str(path)))
    assert os.listdir(tmp_path) == ["web.sock"]


def test_a_file_that_is_not_ours_any_more_stays(tmp_path):
    path = tmp_path / "web.sock"
    one = SharedSocket.unix(Unix(str(path)))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        one.close()
        assert path.exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("x" * 108, "too long"), ("file/x/web.sock", "is not a directory. Remove it")],
)
def test_a_path_that_cannot_be_bound(tmp_path, name, reason):
    (tmp_path / "file").touch()
    with pytest.raises(AddressError, match=reason):
        SharedSocket.unix(Unix(str(tmp_path / name)))


def test_a_directory_that_is_missing_is_made(tmp_path):
    former = os.umask(0o077)
    try:
        one = SharedSocket.unix(Unix(str(tmp_path / "run/site/web.sock")))
    finally:
        os.umask(former)
    for directory in (tmp_path / "run", tmp_path / "run/site"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o755
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "run/site/web.sock"))
    one.close()


def test_a_directory_that_is_not_writable():
    with pytest.raises(AddressError, match="is not writable"):
        SharedSocket.unix(Unix("/usr/web.sock" if os.geteuid() else "/sys/kernel/web.sock"))


def test_servers_that_unlink_what_they_were_bound_to_miss_the_file(tmp_path):
    # asyncio in Python 3.13 and gunicorn do that when a process ends.
    path = tmp_path / "web.sock"
    one = SharedSocket.unix(Unix(str(path)))
    assert not Path(one.socket_of(0).getsockname()).exists()
    one.close()


def test_a_unix_socket_that_refuses(tmp_path):
    one = SharedSocket.unix(Unix(str(tmp_path / "web.sock")))
    one.refuse()
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(str(tmp_path / "web.sock"))
    one.close()


# Sockets of systemd


def test_sockets_that_systemd_did_not_pass():
    with pytest.raises(AddressError, match=r"no socket named web.*FileDescriptorName=web"):
        open_all(Systemd("web"))
    with pytest.raises(AddressError, match=r"systemd passed no socket\. Start"):
        open_all(Systemd())


def test_an_adopted_socket_keeps_its_file(tmp_path):
    path = tmp_path / "web.sock"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    one = SharedSocket.adopt(sock, Systemd())
    assert not one.socket_of(3).getblocking()
    one.refuse()  # systemd keeps listening
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    one.close()
    assert path.exists()


def test_nothing_leaks_over_many_openings(tmp_path):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    async def cycle():
        for address in (LOOPBACK, Tcp("localhost", 0), Unix(str(tmp_path / "web.sock"))):
            for one in await open_listeners(address):
                one.ensure(4)
                one.steer([1])
                one.close()
        with pytest.raises(AddressError):
            await open_listeners(Tcp("192.0.2.1", 0))

    asyncio.run(cycle())
    before = descriptors()
    for _ in range(20):
        asyncio.run(cycle())
    assert descriptors() == before
